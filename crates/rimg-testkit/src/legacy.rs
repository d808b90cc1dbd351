//! Encoders of formats that nothing writes any more, made from the formats' descriptions. They take
//! chunks that are encoded already, and put them where the formats want them.

/// A cloop image of version 2: blocks of `block_bytes`, each a zlib stream.
#[must_use]
pub fn cloop(block_bytes: u32, blocks: &[Vec<u8>]) -> Vec<u8> {
    let script =
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
    let mut image = script.to_vec();
    image.resize(128, 0);
    image.extend(block_bytes.to_be_bytes());
    image.extend(u32::try_from(blocks.len()).unwrap().to_be_bytes());
    let mut offset = image.len() + (blocks.len() + 1) * 8;
    image.extend(u64::try_from(offset).unwrap().to_be_bytes());
    for block in blocks {
        offset += block.len();
        image.extend(u64::try_from(offset).unwrap().to_be_bytes());
    }
    for block in blocks {
        image.extend(block);
    }
    image
}

/// A growing image of Bochs: `disk` in extents of `extent_bytes`, without the extents and sectors
/// that are all zeroes.
#[must_use]
pub fn bochs(version: u32, extent_bytes: u32, disk: &[u8]) -> Vec<u8> {
    let each = usize::try_from(extent_bytes).unwrap();
    let mut image = b"Bochs Virtual HD Image".to_vec();
    image.resize(32, 0);
    image.extend(b"Redolog");
    image.resize(48, 0);
    image.extend(b"Growing");
    image.resize(64, 0);
    let entries = disk.len().div_ceil(each);
    let bitmap_bytes = 512_u32;
    let entries_field = u32::try_from(entries).unwrap();
    for number in [version, 512, entries_field, bitmap_bytes, extent_bytes] {
        image.extend(number.to_le_bytes());
    }
    if version >= 0x2_0000 {
        image.extend(0_u32.to_le_bytes());
    }
    image.extend(u64::try_from(disk.len()).unwrap().to_le_bytes());
    image.resize(512, 0);
    let mut catalog = Vec::new();
    let mut extents = Vec::new();
    let mut count = 0_u32;
    for extent in disk.chunks(each) {
        if extent.iter().all(|byte| *byte == 0) {
            catalog.extend(u32::MAX.to_le_bytes());
            continue;
        }
        catalog.extend(count.to_le_bytes());
        count += 1;
        let mut bitmap = vec![0; 512];
        let mut data = Vec::new();
        for (index, sector) in extent.chunks(512).enumerate() {
            if sector.iter().any(|byte| *byte != 0) {
                bitmap[index / 8] |= 1 << (index % 8);
                data.extend(sector);
            } else {
                // What was not written is not looked at.
                data.extend([0xaa; 512]);
            }
        }
        data.resize(each, 0xbb);
        extents.extend(bitmap);
        extents.extend(data);
    }
    image.extend(catalog);
    image.extend(extents);
    image
}

/// A chunk of a disk image of macOS.
#[derive(Debug, Clone)]
pub struct DmgChunk {
    /// Its type, as the table has it.
    pub kind: u32,
    /// How many sectors of the disk it is.
    pub sectors: u64,
    /// What is stored of it.
    pub bytes: Vec<u8>,
}

/// Where a disk image of macOS keeps its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmgTables {
    /// In a property list.
    Plist,
    /// In a resource fork, as before Mac OS X 10.2.
    ResourceFork,
}

/// A disk image of macOS: partitions that follow each other, each a row of chunks.
#[must_use]
pub fn dmg(partitions: &[Vec<DmgChunk>], place: DmgTables) -> Vec<u8> {
    let mut image = Vec::new();
    let mut tables = Vec::new();
    let mut sector = 0_u64;
    for chunks in partitions {
        let (table, sectors) = dmg_table(chunks, sector, &mut image);
        tables.push(table);
        sector += sectors;
    }
    let at = image.len();
    match place {
        DmgTables::Plist => image.extend(plist(&tables).as_bytes()),
        DmgTables::ResourceFork => image.extend(resource_fork(&tables)),
    }
    let (start, len) = (u64::try_from(at).unwrap(), u64::try_from(image.len() - at).unwrap());
    let mut trailer = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| trailer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"koly");
    put(4, &4_u32.to_be_bytes());
    put(8, &512_u32.to_be_bytes());
    put(12, &1_u32.to_be_bytes());
    put(32, &start.to_be_bytes());
    let fork = if place == DmgTables::Plist { 216 } else { 40 };
    put(fork, &start.to_be_bytes());
    put(fork + 8, &len.to_be_bytes());
    put(488, &1_u32.to_be_bytes());
    put(492, &sector.to_be_bytes());
    image.extend(trailer);
    image
}

/// A table, and how many sectors it is of; the chunks go to the end of `data`.
fn dmg_table(chunks: &[DmgChunk], first: u64, data: &mut Vec<u8>) -> (Vec<u8>, u64) {
    let mut entries = Vec::new();
    let mut entry = |kind: u32, numbers: [u64; 4]| {
        entries.extend(kind.to_be_bytes());
        entries.extend([0; 4]);
        numbers.iter().for_each(|number| entries.extend(number.to_be_bytes()));
    };
    let mut sectors = 0;
    for chunk in chunks {
        let (at, len) = (u64::try_from(data.len()).unwrap(), chunk.bytes.len());
        entry(chunk.kind, [sectors, chunk.sectors, at, u64::try_from(len).unwrap()]);
        data.extend(&chunk.bytes);
        sectors += chunk.sectors;
    }
    entry(u32::MAX, [sectors, 0, 0, 0]);
    let mut table = b"mish".to_vec();
    table.extend(1_u32.to_be_bytes());
    table.extend(first.to_be_bytes());
    table.extend(sectors.to_be_bytes());
    table.resize(200, 0);
    table.extend(u32::try_from(chunks.len() + 1).unwrap().to_be_bytes());
    table.extend(entries);
    (table, sectors)
}

fn plist(tables: &[Vec<u8>]) -> String {
    let mut list = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n<dict>\n\
                    <key>resource-fork</key>\n<dict>\n<key>blkx</key>\n<array>\n"
        .to_owned();
    for (index, table) in tables.iter().enumerate() {
        let data = base64(table);
        list += &format!(
            "<dict>\n<key>Attributes</key>\n<string>0x0050</string>\n<key>Data</key>\n<data>\n\
             {data}\n</data>\n<key>ID</key>\n<string>{index}</string>\n</dict>\n"
        );
    }
    list + "</array>\n</dict>\n</dict>\n</plist>\n"
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, group) in bytes.chunks(3).enumerate() {
        let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(*group.get(i).unwrap_or(&0)));
        for place in 0..4 {
            let sextet = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap();
            text.push(if place <= group.len() { char::from(LETTERS[sextet]) } else { '=' });
        }
        if index % 13 == 12 {
            text.push('\n');
        }
    }
    text
}

/// Resources of type `blkx`: header, data, and the map, with its list of types and of references.
fn resource_fork(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut references = Vec::new();
    for (id, table) in (0_u16..).zip(tables) {
        references.extend(id.to_be_bytes());
        references.extend(u16::MAX.to_be_bytes());
        references.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        references.extend([0; 4]);
        data.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        data.extend(table);
    }
    let mut map = vec![0; 24];
    map.extend(28_u16.to_be_bytes());
    let types_bytes = 2 + 8;
    map.extend(u16::try_from(28 + types_bytes + references.len()).unwrap().to_be_bytes());
    map.extend(0_u16.to_be_bytes());
    map.extend(b"blkx");
    map.extend(u16::try_from(tables.len() - 1).unwrap().to_be_bytes());
    map.extend(u16::try_from(types_bytes).unwrap().to_be_bytes());
    map.extend(references);
    let mut fork = Vec::new();
    let (data_at, map_at) = (256, 256 + data.len());
    for number in [data_at, map_at, data.len(), map.len()] {
        fork.extend(u32::try_from(number).unwrap().to_be_bytes());
    }
    fork.resize(256, 0);
    fork.extend(data);
    fork.extend(map);
    fork
}
