//! The open image.

use crate::header::{DataArea, Header, Keys};
use crate::options::{self, NAMES};
use core::ops::Range;
use rimg_core::{
    Amend, BlockImage, Dependency, DependencyRole, Error, Extent, ExtentKind, ImageInfo,
    ImageWrite, Limits, OpenOptions, Resize, Result, Storage, StorageWrite, num,
};
use rimg_crypto::SectorCipher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// A volume: a header, and data that is encrypted sector by sector.
#[derive(Debug)]
pub(crate) struct LuksImage {
    /// The file of the data.
    pub(crate) file: Arc<dyn Storage>,
    /// The file of the header, if that is another.
    header_file: Option<Arc<dyn Storage>>,
    pub(crate) header: Header,
    /// Missing where the image was opened to be inspected.
    pub(crate) keys: Option<Keys>,
    pub(crate) area: DataArea,
    writable: bool,
    pub(crate) limits: Limits,
    /// The length of the data's file in bytes. The disk goes on to the end of the last sector.
    pub(crate) file_len: AtomicU64,
    size_bytes: AtomicU64,
    /// Shared by who writes whole sectors. Who writes a part of one has it alone: the rest of the
    /// sector is read before, and nobody else changes it meanwhile.
    pub(crate) sectors: RwLock<()>,
}

impl LuksImage {
    /// # Errors
    /// [`Error::InvalidOption`] in the words of QEMU without the passphrase, or with a wrong one,
    /// unless the image is only inspected and none is given; what is wrong with the header.
    pub(crate) fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Self> {
        if how.writable && file.writer().is_none() {
            return Err(Error::ReadOnly("its file was opened for reading"));
        }
        let header_file = match options::header_file(how.options)? {
            Some(name) => Some(how.gate.open_file(&Dependency {
                role: DependencyRole::Header,
                name,
                format: None,
                writable: how.writable,
            })?),
            None => None,
        };
        let place = header_file.as_deref().unwrap_or(file.as_ref());
        let header = Header::read(place, &how.limits)?;
        if how.writable && matches!(header, Header::V2(_)) {
            return Err(Error::ReadOnly("LUKS version 2 is only read"));
        }
        let wants_key = !how.inspect_only || how.options.value(NAMES.key_secret()).is_some();
        let keys = if wants_key {
            let passphrase = NAMES.passphrase(how.options)?;
            let keys = header.unlock(place, passphrase, &how.limits)?;
            Some(keys.ok_or_else(|| NAMES.wrong_passphrase())?)
        } else {
            None
        };
        let area = header.data_area(header_file.is_some())?;
        let image = Self {
            file,
            header_file,
            header,
            keys,
            area,
            writable: how.writable,
            limits: how.limits,
            file_len: AtomicU64::new(0),
            size_bytes: AtomicU64::new(0),
            sectors: RwLock::new(()),
        };
        image.measure()?;
        Ok(image)
    }

    /// Takes over the length that the file has now.
    pub(crate) fn measure(&self) -> Result<()> {
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        self.file_len.store(len, Ordering::Release);
        self.size_bytes.store(self.area.size_bytes(len)?, Ordering::Release);
        Ok(())
    }

    pub(crate) fn cipher(&self) -> Result<&SectorCipher> {
        let keys = self.keys.as_ref();
        keys.map(|keys| &keys.cipher)
            .ok_or(Error::Misuse("the image was opened for inspection only"))
    }

    /// The number that the sector at `guest` is encrypted with.
    pub(crate) fn number(&self, guest: u64) -> u64 {
        self.area.first_sector.wrapping_add(guest / crate::SECTOR_BYTES)
    }

    /// Where in its file `guest` lies.
    pub(crate) fn host(&self, guest: u64) -> u64 {
        self.area.at.saturating_add(guest)
    }

    pub(crate) fn writable(&self) -> Result<&dyn StorageWrite> {
        let file = self.file.writer().filter(|_| self.writable);
        file.ok_or(Error::ReadOnly("it was opened for reading"))
    }

    /// The file that the header is in.
    pub(crate) fn header_file(&self) -> &dyn Storage {
        self.header_file.as_deref().unwrap_or(self.file.as_ref())
    }

    /// Refuses what reaches past the end of the disk.
    pub(crate) fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }
}

/// The range that a buffer covers.
pub(crate) fn range_of(buf: &[u8], at: u64) -> Result<Range<u64>> {
    let end = at.checked_add(num::to_u64(buf.len()));
    Ok(at..end.ok_or(Error::Misuse("range past the end of the disk"))?)
}

impl BlockImage for LuksImage {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.read(buf, at)
    }

    /// One run: what was never written is garbage like any other, not zeroes.
    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        let len_bytes = range.end.saturating_sub(range.start);
        Ok(Extent { len_bytes, kind: ExtentKind::Opaque })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(self.describe())
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        match index {
            0 => Some(&self.file),
            1 => self.header_file.as_ref(),
            _ => None,
        }
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        if self.writable { Some(self) } else { None }
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        if self.writable { Some(self) } else { None }
    }

    fn amender(&self) -> Option<&dyn Amend> {
        if self.writable { Some(self) } else { None }
    }

    fn close(self: Box<Self>) -> Result<()> {
        if self.writable { self.flush() } else { Ok(()) }
    }
}
