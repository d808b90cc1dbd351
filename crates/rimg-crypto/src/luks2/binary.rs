//! The binary header (section 2.1) and its checksum, which is over the JSON area as well.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::Hash;
use crate::error::{CorruptKind, FORMAT};
use rimg_core::{Error, MetadataBudget, Result, Storage, num, op};

const BINARY_BYTES: usize = 4096;
const MAGIC_FIRST: &[u8] = b"LUKS\xba\xbe";
const MAGIC_SECOND: &[u8] = b"SKUL\xba\xbe";
const CHECKSUM: (usize, usize) = (448, 64);
const LABEL: (usize, usize) = (24, 48);
const CHECKSUM_ALGORITHM: (usize, usize) = (72, 32);
const UUID: (usize, usize) = (168, 40);
/// Binary header and JSON area are together one of these powers of two (section 2.2).
const SIZE_BITS: core::ops::RangeInclusive<u32> = 14..=22;

rimg_core::on_disk! {
    /// The numbers of the binary header.
    struct Numbers: BigEndian, 4096 bytes {
        version: u16 = 6,
        hdr_size: u64 = 8,
        seqid: u64 = 16,
        hdr_offset: u64 = 256,
    }
}

/// One of the two headers, its checksum right.
#[derive(Debug)]
pub(super) struct Copy {
    /// The later one counts.
    pub(super) sequence: u64,
    /// Binary header and JSON area together.
    pub(super) size_bytes: u64,
    pub(super) uuid: String,
    pub(super) label: String,
    pub(super) json: Vec<u8>,
    /// Where that lies in the file.
    pub(super) json_at: u64,
}

/// How large a header may be in bytes, and so where the second one may be.
pub(super) fn sizes() -> impl Iterator<Item = u64> {
    SIZE_BITS.map(|bits| 1 << bits)
}

impl Copy {
    /// Reads the header at `at` of the volume that starts at `volume_at`.
    pub(super) fn read(
        file: &dyn Storage,
        volume_at: u64,
        at: u64,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let mut bytes = [0; BINARY_BYTES];
        file.read_exact_at(&mut bytes, at).map_err(Error::io(op::READ_LUKS_HEADER, at))?;
        let is_first = volume_at == at;
        if !bytes.starts_with(if is_first { MAGIC_FIRST } else { MAGIC_SECOND }) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        let numbers = Numbers::parse(&bytes);
        if numbers.version != 2 {
            return super::unsupported(format!("LUKS version {}", numbers.version));
        }
        let wrong = |kind: CorruptKind, name, field| {
            kind.at("LUKS header", name, at.saturating_add(Numbers::offset_of(field)))
        };
        let size = numbers.hdr_size;
        if !sizes().any(|possible| possible == size) {
            return Err(wrong(CorruptKind::HeaderBytes(size), "hdr_size", "hdr_size"));
        }
        let offset = at.saturating_sub(volume_at);
        if numbers.hdr_offset != offset || (!is_first && offset != size) {
            let kind = CorruptKind::HeaderOffset(numbers.hdr_offset);
            return Err(wrong(kind, "hdr_offset", "hdr_offset"));
        }
        let mut all = budget.buffer("LUKS header", size)?;
        file.read_exact_at(&mut all, at).map_err(Error::io(op::READ_LUKS_HEADER, at))?;
        check(&mut all, at)?;
        let text = |name, place: (usize, usize)| {
            let place_at = at.saturating_add(num::to_u64(place.0));
            text(&bytes, place)
                .ok_or_else(|| CorruptKind::NotText.at("LUKS header", name, place_at))
        };
        let json = all.get(BINARY_BYTES..).unwrap_or_default();
        let end = json.iter().position(|byte| *byte == 0).unwrap_or(json.len());
        Ok(Self {
            sequence: numbers.seqid,
            size_bytes: size,
            uuid: text("uuid", UUID)?,
            label: text("label", LABEL)?,
            json: json.get(..end).unwrap_or_default().to_vec(),
            json_at: at.saturating_add(num::to_u64(BINARY_BYTES)),
        })
    }
}

/// Compares the checksum of a header with what it should be: computed with 0 in its place.
fn check(all: &mut [u8], at: u64) -> Result<()> {
    let name = text(all, CHECKSUM_ALGORITHM).unwrap_or_default();
    let Some(hash) = Hash::from_name(&name) else {
        return super::unsupported(format!("LUKS2 checksum {name}"));
    };
    let (start, len) = CHECKSUM;
    let place = all.get_mut(start..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default();
    let found = place.to_vec();
    place.fill(0);
    let expected = hash.digest(&[all]);
    if found.get(..expected.len_bytes()) != Some(expected.expose()) {
        let checksum_at = at.saturating_add(num::to_u64(start));
        return Err(CorruptKind::Checksum.at("LUKS header", "csum", checksum_at));
    }
    Ok(())
}

/// A text that ends with a 0 or where its field does.
fn text(bytes: &[u8], (at, len): (usize, usize)) -> Option<String> {
    let field = bytes.get(at..)?.get(..len)?;
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(len);
    String::from_utf8(field.get(..end)?.to_vec()).ok()
}
