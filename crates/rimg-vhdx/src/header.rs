//! The header: which of two copies counts, bytes to a checked [`Header`] and back.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod crc32c;
mod guid;
pub(crate) mod locator;
pub(crate) mod metadata;
pub(crate) mod region;

pub(crate) use crc32c::{crc32c_with_field_zeroed, put_checksum};
pub(crate) use guid::Guid;

use crate::error::{CorruptKind, unsupported};
use crate::spec;
use rimg_core::{Error, Result, on_disk};

on_disk! {
    /// The fields of a header (2.2.2); the rest of its 4 KiB is reserved.
    pub(crate) struct RawHeader: LittleEndian, 80 bytes {
        signature: u32 = 0,
        checksum: u32 = 4,
        sequence_number: u64 = 8,
        file_write_guid_low: u64 = 16,
        file_write_guid_high: u64 = 24,
        data_write_guid_low: u64 = 32,
        data_write_guid_high: u64 = 40,
        log_guid_low: u64 = 48,
        log_guid_high: u64 = 56,
        log_version: u16 = 64,
        version: u16 = 66,
        log_length: u32 = 68,
        log_offset: u64 = 72,
    }
}

/// A header whose every field is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of two valid headers the one with the greater number counts.
    pub(crate) sequence_number: u64,
    /// Changes before anybody writes to the file.
    pub(crate) file_write_guid: Guid,
    /// Changes before what the guest sees does. A child knows its parent by it.
    pub(crate) data_write_guid: Guid,
    /// What log entries have to bear to count; zero when there are none.
    pub(crate) log_guid: Guid,
    pub(crate) log_offset: u64,
    /// A multiple of 1 MiB, and not 0.
    pub(crate) log_length: u64,
}

impl Header {
    /// Reads one of the headers, whose 4 KiB stand `at` in the file.
    pub(crate) fn parse(bytes: &[u8; spec::HEADER_BYTES], at: u64) -> Result<Self> {
        let wrong = |kind: CorruptKind, field, offset: u64| {
            Err(kind.at("header", field, at.wrapping_add(offset)))
        };
        let raw = bytes.first_chunk().map(RawHeader::parse).unwrap_or_default();
        if raw.signature != spec::HEADER_SIGNATURE {
            let kind = CorruptKind::Signature(raw.signature.into());
            return wrong(kind, "signature", RawHeader::offset_of("signature"));
        }
        let computed = crc32c_with_field_zeroed(bytes);
        if raw.checksum != computed {
            let kind = CorruptKind::Checksum { found: raw.checksum, computed };
            return wrong(kind, "checksum", RawHeader::offset_of("checksum"));
        }
        if raw.version != spec::VERSION {
            return Err(unsupported(format!("version {}", raw.version)));
        }
        let log_guid = Guid::of_words(raw.log_guid_low, raw.log_guid_high);
        if raw.log_version != spec::LOG_VERSION && log_guid != Guid::ZERO {
            return Err(unsupported(format!("log version {}", raw.log_version)));
        }
        let (log_offset, log_length) = (raw.log_offset, u64::from(raw.log_length));
        if !region::is_possible(log_offset, log_length) {
            let kind = CorruptKind::RegionPlace(log_offset, log_length);
            return wrong(kind, "log_offset", RawHeader::offset_of("log_offset"));
        }
        Ok(Self {
            sequence_number: raw.sequence_number,
            file_write_guid: Guid::of_words(raw.file_write_guid_low, raw.file_write_guid_high),
            data_write_guid: Guid::of_words(raw.data_write_guid_low, raw.data_write_guid_high),
            log_guid,
            log_offset,
            log_length,
        })
    }

    pub(crate) fn encode(&self) -> [u8; spec::HEADER_BYTES] {
        let (file_write_guid_low, file_write_guid_high) = self.file_write_guid.words();
        let (data_write_guid_low, data_write_guid_high) = self.data_write_guid.words();
        let (log_guid_low, log_guid_high) = self.log_guid.words();
        let raw = RawHeader {
            signature: spec::HEADER_SIGNATURE,
            checksum: 0,
            sequence_number: self.sequence_number,
            file_write_guid_low,
            file_write_guid_high,
            data_write_guid_low,
            data_write_guid_high,
            log_guid_low,
            log_guid_high,
            log_version: spec::LOG_VERSION,
            version: spec::VERSION,
            // Parsed from 32 bits, or given by options that end below 4 GiB.
            log_length: u32::try_from(self.log_length).unwrap_or(u32::MAX),
            log_offset: self.log_offset,
        };
        let mut bytes = [0; spec::HEADER_BYTES];
        if let Some(start) = bytes.first_chunk_mut() {
            *start = raw.encode();
        }
        put_checksum(&mut bytes);
        bytes
    }
}

/// The two headers of a file, of which at least one is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) current: Header,
    /// Which of [`spec::HEADER_AT`] is current.
    pub(crate) slot: usize,
    /// Whether the other one is valid, too.
    pub(crate) has_both: bool,
}

impl Headers {
    /// Chooses between the headers that stand at [`spec::HEADER_AT`], as far as the file has them.
    pub(crate) fn parse(copies: [&[u8]; 2]) -> Result<Self> {
        let [at_first, at_second] = spec::HEADER_AT;
        let [first, second] = copies;
        match (parse_at(first, at_first), parse_at(second, at_second)) {
            (Ok(first), Ok(second)) if second.sequence_number > first.sequence_number => {
                Ok(Self { current: second, slot: 1, has_both: true })
            }
            (Ok(first), Ok(_)) => Ok(Self { current: first, slot: 0, has_both: true }),
            (Ok(first), Err(_)) => Ok(Self { current: first, slot: 0, has_both: false }),
            (Err(_), Ok(second)) => Ok(Self { current: second, slot: 1, has_both: false }),
            // A version that is not known says more than a copy that is damaged.
            (Err(_), Err(error @ Error::Unsupported { .. })) | (Err(error), Err(_)) => Err(error),
        }
    }

    /// Makes `next` current: where it has to be written, and what. The other header stays as it
    /// is until that is durable.
    pub(crate) fn advance(&mut self, next: Header) -> (u64, Vec<u8>) {
        let sequence_number = self.current.sequence_number.saturating_add(1);
        self.current = Header { sequence_number, ..next };
        self.slot = usize::from(self.slot == 0);
        self.has_both = true;
        let at = spec::HEADER_AT.get(self.slot).copied().unwrap_or_default();
        (at, self.current.encode().to_vec())
    }
}

fn parse_at(bytes: &[u8], at: u64) -> Result<Header> {
    let truncated = || CorruptKind::HeaderSectionTruncated.at("header", "signature", at);
    Header::parse(bytes.first_chunk().ok_or_else(truncated)?, at)
}

/// The file type identifier (2.2.1), with the creator's name.
pub(crate) fn file_identifier(creator: &str) -> Vec<u8> {
    let name = creator.encode_utf16().flat_map(u16::to_le_bytes).take(spec::CREATOR_BYTES);
    spec::FILE_SIGNATURE.to_le_bytes().into_iter().chain(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            sequence_number: 7,
            file_write_guid: Guid(1),
            data_write_guid: Guid(2 << 64),
            log_guid: Guid::ZERO,
            log_offset: 1 << 20,
            log_length: 1 << 20,
        }
    }

    fn parse([first, second]: &[Vec<u8>; 2]) -> Result<Headers> {
        Headers::parse([first, second])
    }

    fn copies(first: Option<Header>, second: Option<Header>) -> [Vec<u8>; 2] {
        [first, second].map(|header| header.map_or(vec![0; 4096], |header| header.encode().into()))
    }

    fn kind(error: &Error) -> String {
        std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        assert_eq!(Header::parse(&header().encode(), 0).unwrap(), header());
    }

    #[test]
    fn the_checksum_is_the_one_that_qemu_img_computes() {
        // The first header of an image made by qemu-img 10.0.2.
        let mut bytes = [0; 4096];
        let start = [
            "68656164a10087d8cd86327300000000",
            "cda19feec1cb451b8e2734b7dc695e90",
            "284e877c91fb4ceba253a9f96a09a65f",
            "00000000000000000000000000000000",
            "00000100000010000000100000000000",
        ]
        .concat();
        for (at, pair) in start.as_bytes().chunks(2).enumerate() {
            bytes[at] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        let header = Header::parse(&bytes, 0).unwrap();
        assert_eq!(header.sequence_number, 0x7332_86cd);
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn the_greater_sequence_number_counts() {
        let newer = Header { sequence_number: 8, ..header() };
        let of = |first, second| parse(&copies(first, second)).unwrap();
        let found = of(Some(header()), Some(newer));
        assert_eq!((found.current, found.slot, found.has_both), (newer, 1, true));
        assert_eq!(of(Some(newer), Some(header())).slot, 0);
        assert_eq!(of(Some(header()), Some(header())).slot, 0);
        let found = of(None, Some(header()));
        assert_eq!((found.slot, found.has_both), (1, false));
        let (at, bytes) = Headers { ..found }.advance(newer);
        assert_eq!(at, spec::HEADER_AT[0]);
        assert_eq!(Header::parse(bytes.first_chunk().unwrap(), 0).unwrap(), newer);
    }

    #[test]
    fn a_wrong_byte_makes_a_header_count_no_more() {
        let mut damaged = copies(Some(header()), None);
        damaged[0][4000] = 1;
        let error = parse(&damaged).unwrap_err();
        assert!(error.to_string().ends_with("header, checksum at offset 0x10004"), "{error}");
        assert!(kind(&error).starts_with("checksum is 0x"), "{}", kind(&error));
    }

    #[test]
    fn fields_that_cannot_be_are_named() {
        let parse = |change: fn(&mut RawHeader)| {
            let bytes = header().encode();
            let mut raw = RawHeader::parse(bytes.first_chunk().unwrap());
            change(&mut raw);
            let mut bytes = [0; 4096];
            bytes[..80].copy_from_slice(&raw.encode());
            put_checksum(&mut bytes);
            Header::parse(&bytes, 0x10000).unwrap_err()
        };
        let error = parse(|raw| raw.version = 2);
        assert_eq!(error.to_string(), "unsupported vhdx feature: version 2");
        let error = parse(|raw| (raw.log_version, raw.log_guid_low) = (1, 1));
        assert_eq!(error.to_string(), "unsupported vhdx feature: log version 1");
        let changes: [fn(&mut RawHeader); 5] = [
            |raw| raw.log_offset = 0,
            |raw| raw.log_offset = 4096,
            |raw| raw.log_length = 0,
            |raw| raw.log_length = 4096,
            |raw| raw.log_offset = u64::MAX << 20,
        ];
        for change in changes {
            let error = parse(change);
            assert!(error.to_string().ends_with("header, log_offset at offset 0x10048"), "{error}");
        }
    }
}
