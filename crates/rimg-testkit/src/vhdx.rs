//! Builds VHDX images from the specification alone, for what no program here writes:
//! differencing images, sectors of 4096 bytes, every block state, logs that were not replayed.

use crate::MemoryStorage;
use core::ops::Range;
use rimg_core::{StorageWrite as _, num};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const BAT_AT: u64 = 3 * MIB;

/// A GUID as its 16 bytes in the file.
pub type GuidBytes = [u8; 16];

/// An image to be built.
#[derive(Debug, Clone)]
pub struct VhdxImage {
    /// The size of a payload block in bytes.
    pub block_bytes: u32,
    /// The logical sector size in bytes.
    pub sector_bytes: u32,
    /// The size of the disk in bytes.
    pub size_bytes: u64,
    /// What a child knows the image by.
    pub data_write_guid: GuidBytes,
    /// Keys and values of the parent locator; `None` for an image that has no parent.
    pub parent: Option<Vec<(String, String)>>,
    /// The blocks that are not in state 0.
    pub blocks: BTreeMap<u64, Block>,
    /// Log entries, one behind the other from the log's start.
    pub log: Vec<LogEntry>,
    /// How long the file is at the end, where that is not just what is in it.
    pub file_bytes: Option<u64>,
}

/// A block's state, and what is in it: from its start, the rest is zeroes.
#[derive(Debug, Clone)]
pub enum Block {
    /// State 1.
    Undefined,
    /// State 2.
    Zero,
    /// State 3, with a place that has these bytes.
    Unmapped(Vec<u8>),
    /// State 6.
    Full(Vec<u8>),
    /// State 7: these sectors, counted from the block's start, are there.
    Partial(Vec<Range<u64>>, Vec<u8>),
}

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Its sequence number.
    pub sequence: u64,
    /// Which of the entries is its tail.
    pub tail: usize,
    /// What it writes: where, and a sector, or how many zeroes.
    pub updates: Vec<(u64, LogUpdate)>,
    /// The length of the file, flushed and last.
    pub file_bytes: (u64, u64),
}

/// What an entry writes to one place.
#[derive(Debug, Clone)]
pub enum LogUpdate {
    /// Zeroes, in bytes.
    Zeroes(u64),
    /// A sector.
    Data(Box<[u8; 4096]>),
}

impl VhdxImage {
    /// A disk of zeroes in blocks of 1 MiB and sectors of 512 bytes.
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        Self {
            block_bytes: 1 << 20,
            sector_bytes: 512,
            size_bytes,
            data_write_guid: [0xda; 16],
            parent: None,
            blocks: BTreeMap::new(),
            log: Vec::new(),
            file_bytes: None,
        }
    }

    /// Over the image with this `DataWriteGuid`, found as `path` from the image's own folder.
    #[must_use]
    pub fn over(mut self, parent: GuidBytes, path: &str) -> Self {
        let pair = |key: &str, value: String| (key.to_owned(), value);
        self.parent = Some(vec![
            pair("relative_path", path.to_owned()),
            pair("parent_linkage", guid_text(parent)),
        ]);
        self
    }

    /// Where the entry of a block lies in the file.
    #[must_use]
    pub fn entry_at(&self, block: u64) -> u64 {
        let ratio = self.chunk_ratio();
        BAT_AT + 8 * (block + block / ratio)
    }

    /// Where the sector of the table is that has the entry of a block.
    #[must_use]
    pub fn table_sector(&self, block: u64) -> u64 {
        self.entry_at(block) / 4096 * 4096
    }

    fn chunk_ratio(&self) -> u64 {
        (1 << 23) * u64::from(self.sector_bytes) / u64::from(self.block_bytes)
    }

    /// The image.
    #[must_use]
    pub fn build(&self) -> MemoryStorage {
        let file = MemoryStorage::new();
        let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).unwrap();
        write(b"vhdxfile", 0);
        let log_guid = if self.log.is_empty() { [0; 16] } else { [0x10; 16] };
        // The first header is the newer one.
        for (at, sequence) in [(64 << 10, 9_u64), (128 << 10, 8)] {
            write(&self.header(sequence, log_guid), at);
        }
        for at in [192 << 10, 256 << 10] {
            write(&region_table(), at);
        }
        write(&self.metadata(), METADATA_AT);
        let end = self.write_blocks(&file);
        let mut at = LOG_AT;
        let mut places = Vec::new();
        for entry in &self.log {
            places.push(at - LOG_AT);
            let bytes = entry.encode(places[entry.tail], log_guid);
            write(&bytes, at);
            at += num::to_u64(bytes.len());
        }
        file.set_len_bytes(self.file_bytes.unwrap_or(end)).unwrap();
        file
    }

    fn header(&self, sequence: u64, log_guid: GuidBytes) -> Vec<u8> {
        let mut bytes = Bytes::new("head", 4096);
        bytes.put(8, &sequence.to_le_bytes());
        bytes.put(16, &[0xf1; 16]);
        bytes.put(32, &self.data_write_guid);
        bytes.put(48, &log_guid);
        bytes.put(66, &1_u16.to_le_bytes());
        bytes.put(68, &(1_u32 << 20).to_le_bytes());
        bytes.put(72, &LOG_AT.to_le_bytes());
        bytes.summed()
    }

    fn metadata(&self) -> Vec<u8> {
        let flags = if self.parent.is_some() { 2_u32 } else { 0 };
        let mut items = vec![
            ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 4, {
                [self.block_bytes.to_le_bytes(), flags.to_le_bytes()].concat()
            }),
            ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", 6, self.size_bytes.to_le_bytes().to_vec()),
            ("BECA12AB-B2E6-4523-93EF-C309E000C746", 6, vec![0x1d; 16]),
            ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 6, self.sector_bytes.to_le_bytes().to_vec()),
            ("CDA348C7-445D-4471-9CC9-E9885251C556", 6, 4096_u32.to_le_bytes().to_vec()),
        ];
        if let Some(pairs) = &self.parent {
            items.push(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", 4, locator(pairs)));
        }
        let mut bytes = Bytes(vec![0; 64 << 10]);
        bytes.put(0, b"metadata");
        bytes.put(10, &u16::try_from(items.len()).unwrap().to_le_bytes());
        for (nth, (guid, flags, data)) in items.into_iter().enumerate() {
            let at = 32 + 32 * nth;
            bytes.put(at, &guid_bytes(guid));
            bytes.put(at + 16, &u32::try_from(bytes.0.len()).unwrap().to_le_bytes());
            bytes.put(at + 20, &u32::try_from(data.len()).unwrap().to_le_bytes());
            bytes.put(at + 24, &u32::to_le_bytes(flags));
            bytes.0.extend(data);
        }
        bytes.0
    }

    /// Writes blocks, sector bitmaps and their entries; returns where the last one ends.
    fn write_blocks(&self, file: &MemoryStorage) -> u64 {
        let ratio = self.chunk_ratio();
        let blocks = self.size_bytes.div_ceil(self.block_bytes.into());
        let table = (8 * (blocks + blocks / ratio + 1)).next_multiple_of(MIB).max(MIB);
        assert!(table == MIB, "the builder's table has a region of 1 MiB");
        let mut end = BAT_AT + table;
        let mut bitmaps: BTreeMap<u64, u64> = BTreeMap::new();
        file.set_len_bytes(end).unwrap();
        for (number, block) in &self.blocks {
            let mut place = |len: u64, data: &[u8]| {
                let at = end;
                end += len;
                file.set_len_bytes(end).unwrap();
                file.write_all_at(data, at).unwrap();
                at
            };
            let len = u64::from(self.block_bytes);
            let entry = match block {
                Block::Undefined => 1,
                Block::Zero => 2,
                Block::Unmapped(data) => place(len, data) | 3,
                Block::Full(data) => place(len, data) | 6,
                Block::Partial(sectors, data) => {
                    let chunk = number / ratio;
                    let bitmap = *bitmaps.entry(chunk).or_insert_with(|| place(MIB, &[]));
                    let sectors_per_block = len / u64::from(self.sector_bytes);
                    let mut bits = vec![0_u8; usize::try_from(sectors_per_block / 8).unwrap()];
                    for sector in sectors.iter().cloned().flatten() {
                        bits[usize::try_from(sector / 8).unwrap()] |= 1 << (sector % 8);
                    }
                    let within = number % ratio * sectors_per_block / 8;
                    file.write_all_at(&bits, bitmap + within).unwrap();
                    let entry_at = BAT_AT + 8 * ((chunk + 1) * ratio + chunk);
                    file.write_all_at(&(bitmap | 6).to_le_bytes(), entry_at).unwrap();
                    place(len, data) | 7
                }
            };
            file.write_all_at(&entry.to_le_bytes(), self.entry_at(*number)).unwrap();
        }
        end
    }
}

impl LogEntry {
    fn encode(&self, tail: u64, guid: GuidBytes) -> Vec<u8> {
        let data = self.updates.iter().filter(|(_, u)| matches!(u, LogUpdate::Data(_))).count();
        let head = (64 + 32 * self.updates.len()).next_multiple_of(4096);
        let len = head + 4096 * data;
        let mut bytes = Bytes::new("loge", len);
        bytes.put(8, &u32::try_from(len).unwrap().to_le_bytes());
        bytes.put(12, &u32::try_from(tail).unwrap().to_le_bytes());
        bytes.put(16, &self.sequence.to_le_bytes());
        bytes.put(24, &u32::try_from(self.updates.len()).unwrap().to_le_bytes());
        bytes.put(32, &guid);
        bytes.put(48, &self.file_bytes.0.to_le_bytes());
        bytes.put(56, &self.file_bytes.1.to_le_bytes());
        let mut sector_at = head;
        for (nth, (at, update)) in self.updates.iter().enumerate() {
            let descriptor = 64 + 32 * nth;
            bytes.put(descriptor + 16, &at.to_le_bytes());
            bytes.put(descriptor + 24, &self.sequence.to_le_bytes());
            match update {
                LogUpdate::Zeroes(len) => {
                    bytes.put(descriptor, b"zero");
                    bytes.put(descriptor + 8, &len.to_le_bytes());
                }
                LogUpdate::Data(sector) => {
                    bytes.put(descriptor, b"desc");
                    bytes.put(descriptor + 4, &sector[4092..]);
                    bytes.put(descriptor + 8, &sector[..8]);
                    let sequence = self.sequence.to_le_bytes();
                    bytes.put(sector_at, b"data");
                    bytes.put(sector_at + 4, &sequence[4..]);
                    bytes.put(sector_at + 8, &sector[8..4092]);
                    bytes.put(sector_at + 4092, &sequence[..4]);
                    sector_at += 4096;
                }
            }
        }
        bytes.summed()
    }
}

/// Puts the checksum of a structure with one, whose bytes were changed, right again.
pub fn sum_again(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn new(signature: &str, len: usize) -> Self {
        let mut bytes = Self(vec![0; len]);
        bytes.put(0, signature.as_bytes());
        bytes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn summed(mut self) -> Vec<u8> {
        sum_again(&mut self.0);
        self.0
    }
}

fn region_table() -> Vec<u8> {
    let mut bytes = Bytes::new("regi", 64 << 10);
    bytes.put(8, &2_u32.to_le_bytes());
    let regions = [
        ("8B7CA206-4790-4B9A-B8FE-575F050F886E", METADATA_AT),
        ("2DC27766-F623-4200-9D64-115E9BFD4A08", BAT_AT),
    ];
    for (nth, (guid, offset)) in regions.into_iter().enumerate() {
        let at = 16 + 32 * nth;
        bytes.put(at, &guid_bytes(guid));
        bytes.put(at + 16, &offset.to_le_bytes());
        bytes.put(at + 24, &u32::try_from(MIB).unwrap().to_le_bytes());
        bytes.put(at + 28, &1_u32.to_le_bytes());
    }
    bytes.summed()
}

fn locator(pairs: &[(String, String)]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + 12 * pairs.len()];
    bytes[..16].copy_from_slice(&guid_bytes("B04AEFB7-D19E-4A81-B789-25B8E9445913"));
    bytes[18..20].copy_from_slice(&u16::try_from(pairs.len()).unwrap().to_le_bytes());
    for (nth, (key, value)) in pairs.iter().enumerate() {
        let at = 20 + 12 * nth;
        for (text, offset_at, len_at) in [(key, at, at + 8), (value, at + 4, at + 10)] {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let offset = u32::try_from(bytes.len()).unwrap();
            bytes[offset_at..offset_at + 4].copy_from_slice(&offset.to_le_bytes());
            let len = u16::try_from(utf16.len()).unwrap();
            bytes[len_at..len_at + 2].copy_from_slice(&len.to_le_bytes());
            bytes.extend(utf16);
        }
    }
    bytes
}

/// The bytes of a GUID's text: three numbers in little-endian order, then bytes.
fn guid_bytes(text: &str) -> GuidBytes {
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    let mut bytes = u128::from_str_radix(&digits, 16).unwrap().to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn guid_text(mut bytes: GuidBytes) -> String {
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    let digits = format!("{:032X}", u128::from_be_bytes(bytes));
    let (a, b, c, d, e) =
        (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    format!("{{{a}-{b}-{c}-{d}-{e}}}")
}

/// Bit by bit, as the polynomial says.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    let add = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum));
    !bytes.iter().fold(u32::MAX, add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn qemu_img_reads_what_it_can_read() {
        let Some(qemu) = Peer::qemu_img() else { return };
        let dir = tempfile::tempdir().unwrap();
        let mut image = VhdxImage::new((3 << 20) + 512);
        image.blocks.insert(1, Block::Full(vec![7; 5000]));
        image.blocks.insert(2, Block::Zero);
        image.blocks.insert(3, Block::Full(vec![8; 512]));
        let mut wanted = vec![0; (3 << 20) + 512];
        wanted[1 << 20..][..5000].fill(7);
        wanted[3 << 20..].fill(8);
        std::fs::write(dir.path().join("image"), image.build().to_vec().unwrap()).unwrap();
        std::fs::write(dir.path().join("raw"), wanted).unwrap();
        let qemu = qemu.in_dir(&dir);
        qemu.ok(["check", "-q", "-f", "vhdx", "image"]);
        let same = qemu.ok(["compare", "-f", "vhdx", "-F", "raw", "image", "raw"]);
        assert_eq!(same, "Images are identical.\n");
    }
}
