//! The header of either version, and where it says that the data is.

use crate::error::CorruptKind;
use crate::options::invalid;
use crate::{FORMAT, SECTOR_BYTES};
use rimg_core::{Error, Limits, Result, Secret, Storage, num, op};
use rimg_crypto::{SectorCipher, luks1, luks2};

/// Where the header lies in its file.
pub(crate) const AT: u64 = 0;

/// A header of one version or the other.
#[derive(Debug)]
pub(crate) enum Header {
    V1(Box<luks1::Header>),
    V2(Box<luks2::Header>),
}

/// What a passphrase gives.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) cipher: SectorCipher,
    /// The key that is kept in the slots.
    pub(crate) master: Secret,
}

/// Where the encrypted data lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataArea {
    /// In bytes.
    pub(crate) at: u64,
    /// In bytes; `None` when it goes on to the end of the file.
    pub(crate) len_bytes: Option<u64>,
    /// The number of its first sector, in units of 512 bytes.
    pub(crate) first_sector: u64,
    /// What is encrypted as one, in bytes: a power of two.
    pub(crate) sector_bytes: u64,
}

impl Header {
    /// Reads the header at the start of `file`.
    pub(crate) fn read(file: &dyn Storage, limits: &Limits) -> Result<Self> {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let mut bytes = [0; luks1::HEADER_BYTES];
        let there = num::to_usize(len.min(num::to_u64(bytes.len())))?;
        let start = bytes.get_mut(..there).unwrap_or_default();
        file.read_exact_at(start, AT).map_err(Error::io(op::READ_LUKS_HEADER, AT))?;
        if !luks1::Header::is_magic(start) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        if luks2::Header::is_magic(start) {
            return Ok(Self::V2(Box::new(luks2::Header::read(file, AT, limits)?)));
        }
        Ok(Self::V1(Box::new(luks1::Header::parse(start, AT)?)))
    }

    /// Tries a passphrase; `None` when it opens no key slot.
    pub(crate) fn unlock(
        &self,
        file: &dyn Storage,
        passphrase: &Secret,
        limits: &Limits,
    ) -> Result<Option<Keys>> {
        let master = match self {
            Self::V1(header) => {
                header.unlock(file, AT, passphrase, limits)?.map(|opened| opened.master_key)
            }
            Self::V2(header) => header.unlock(file, AT, passphrase, limits)?,
        };
        let Some(master) = master else { return Ok(None) };
        let cipher = match self {
            Self::V1(header) => header.data_cipher(&master)?,
            Self::V2(header) => header.data_cipher(&master)?,
        };
        Ok(Some(Keys { cipher, master }))
    }

    /// Where the data is; `detached` when the header has a file of its own.
    pub(crate) fn data_area(&self, detached: bool) -> Result<DataArea> {
        match self {
            Self::V1(header) if header.payload_offset() == 0 && !detached => {
                let reason = "LUKS payload is overlapping with the header".to_owned();
                Err(invalid("header.filename", reason))
            }
            Self::V1(header) => Ok(DataArea {
                at: header.payload_offset(),
                len_bytes: None,
                first_sector: 0,
                sector_bytes: SECTOR_BYTES,
            }),
            Self::V2(header) => {
                let segment = header.segment();
                Ok(DataArea {
                    at: segment.offset,
                    len_bytes: segment.len_bytes,
                    first_sector: segment.first_sector,
                    sector_bytes: segment.sector_bytes,
                })
            }
        }
    }
}

impl DataArea {
    /// How large the disk is in a file of `file_len` bytes. Its last sector may not be whole.
    pub(crate) fn size_bytes(&self, file_len: u64) -> Result<u64> {
        let file_end = num::align_up(file_len, SECTOR_BYTES).unwrap_or(u64::MAX);
        let there = file_end.checked_sub(self.at).ok_or_else(|| {
            CorruptKind::NoData { data_at: self.at, len: file_len }.at("payload-offset", AT)
        })?;
        match self.len_bytes {
            Some(len) if len > there => {
                let (data_at, file) = (self.at, file_len);
                Err(CorruptKind::DataTruncated { data_at, len, file }.at("segment", AT))
            }
            Some(len) if !len.is_multiple_of(self.sector_bytes) => {
                Err(CorruptKind::PartOfSector(len).at("segment", AT))
            }
            Some(len) => Ok(len),
            None => Ok(num::align_down(there, self.sector_bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_what_the_file_has_behind_the_header() {
        let area = |len_bytes, sector_bytes| DataArea {
            at: 4096,
            len_bytes,
            first_sector: 0,
            sector_bytes,
        };
        for (len_bytes, sector_bytes, file_len, size) in [
            (None, 512, 4096, Some(0)),
            (None, 512, 4000, Some(0)),
            (None, 512, 3584, None),
            (None, 512, 5096, Some(1024)),
            (None, 4096, 11_776, Some(4096)),
            (None, 4096, 12_287, Some(8192)),
            (None, 512, u64::MAX, Some(u64::MAX / 512 * 512 - 4096)),
            (Some(512), 512, 5096, Some(512)),
            (Some(2048), 512, 5096, None),
            (Some(512), 4096, 50_960, None),
        ] {
            let found = area(len_bytes, sector_bytes).size_bytes(file_len);
            let what = format!("{len_bytes:?} {sector_bytes} {file_len}");
            if file_len == u64::MAX {
                // No file is so long; what counts is that nothing overflows.
                assert!(found.is_ok(), "{what}");
            } else {
                assert_eq!(found.ok(), size, "{what}");
            }
        }
    }
}
