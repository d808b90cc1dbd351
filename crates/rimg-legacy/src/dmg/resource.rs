//! The resource fork of older images ("Inside Macintosh: More Macintosh Toolbox", resource map):
//! typed pieces of data, those of type `blkx` being the tables.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

const TYPE: &[u8] = b"blkx";
/// Of the header: where data and map start, and how long they are.
const HEADER: usize = 16;
/// In the map: where its list of types starts.
const TYPE_LIST_AT: usize = 24;
const TYPE_BYTES: usize = 8;
const REFERENCE_BYTES: usize = 12;

/// The tables, in the order of the map; `None` when the fork is damaged.
pub(super) fn tables(fork: &[u8]) -> Option<Vec<&[u8]>> {
    let header = fork.get(..HEADER)?;
    let (data_at, map_at) = (number(header, 0)?, number(header, 4)?);
    let (data_len, map_len) = (number(header, 8)?, number(header, 12)?);
    let data = fork.get(data_at..)?.get(..data_len)?;
    let map = fork.get(map_at..)?.get(..map_len)?;
    let types = map.get(short(map, TYPE_LIST_AT)?..)?;
    let mut tables = Vec::new();
    // Counts are one less than what there is; none are 0xffff.
    let count = short(types, 0)?.checked_add(1)? & 0xffff;
    for entry in types.get(2..)?.chunks_exact(TYPE_BYTES).take(count) {
        if !entry.starts_with(TYPE) {
            continue;
        }
        let count = short(entry, 4)?.checked_add(1)?;
        let references = types.get(short(entry, 6)?..)?;
        let mut references = references.chunks_exact(REFERENCE_BYTES);
        for _ in 0..count {
            let reference = references.next()?;
            // The upper byte has flags.
            let at = number(reference, 4)? & 0x00ff_ffff;
            let resource = data.get(at..)?;
            let len = number(resource, 0)?;
            tables.push(resource.get(4..)?.get(..len)?);
        }
    }
    Some(tables)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*field)).ok()
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?).into())
}
