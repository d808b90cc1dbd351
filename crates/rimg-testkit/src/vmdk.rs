//! A small encoder of VMware's extents that no program here writes: `COWD` and seSparse. It knows
//! the formats by itself, so that a reader's mistakes are not its own.

use std::collections::BTreeMap;

const SECTOR: usize = 512;

/// What a grain of a hand-built extent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grain {
    /// Given back by the guest: seSparse only.
    Unmapped,
    /// Zeroes: seSparse only.
    Zero,
    /// Its bytes.
    Data(Vec<u8>),
}

/// A `COWD` extent: header, directory, tables of 4096 entries, grains in the order of the disk.
///
/// # Panics
/// When a grain does not have `grain_sectors` sectors, or is not data.
#[must_use]
pub fn cowd(sectors: u32, grain_sectors: u32, grains: &BTreeMap<u32, Grain>) -> Vec<u8> {
    const GTES: u32 = 4096;
    let tables = sectors.div_ceil(grain_sectors).div_ceil(GTES);
    let directory_at = 4;
    let directory_sectors = (tables * 4).div_ceil(512);
    let mut file = vec![0; SECTOR * 4];
    file.resize(SECTOR * sector(directory_at + directory_sectors), 0);
    for table in 0..tables {
        let of_table: Vec<_> = grains.range(table * GTES..(table + 1) * GTES).collect();
        if of_table.is_empty() {
            continue;
        }
        let table_sector = end_of(&file);
        put32(&mut file, SECTOR * sector(directory_at) + sector(table) * 4, table_sector);
        let table_at = file.len();
        file.resize(table_at + sector(GTES) * 4, 0);
        for (grain, what) in of_table {
            let Grain::Data(bytes) = what else { panic!("COWD has data only") };
            assert_eq!(bytes.len(), SECTOR * sector(grain_sectors));
            let end = end_of(&file);
            put32(&mut file, table_at + sector(grain % GTES) * 4, end);
            file.extend(bytes);
        }
    }
    file[..4].copy_from_slice(b"COWD");
    let free = end_of(&file);
    let fields = [1, 3, sectors, grain_sectors, directory_at, tables, free];
    for (index, field) in fields.into_iter().enumerate() {
        put32(&mut file, 4 + index * 4, field);
    }
    file
}

/// An seSparse extent: both headers, directory, tables, grains of 4 KiB backwards, so that nothing
/// is where one would guess.
///
/// # Panics
/// When a grain does not have 4 KiB.
#[must_use]
pub fn sesparse(sectors: u64, grains: &BTreeMap<u64, Grain>) -> Vec<u8> {
    const GTES: u64 = 4096;
    const TABLE: usize = 4096 * 8;
    let directory_at = 8 * SECTOR;
    let tables = sectors.div_ceil(8).div_ceil(GTES);
    let directory_len = (usize::try_from(tables).unwrap() * 8).next_multiple_of(SECTOR);
    let used: Vec<u64> = (0..tables)
        .filter(|table| grains.range(table * GTES..(table + 1) * GTES).next().is_some())
        .collect();
    let tables_at = directory_at + directory_len;
    let grains_at = (tables_at + used.len() * TABLE).next_multiple_of(4096);
    let mut file = vec![0; grains_at];
    let mut stored: Vec<&[u8]> = Vec::new();
    let data: Vec<_> = grains.iter().filter(|(_, what)| matches!(what, Grain::Data(_))).collect();
    for (number, table) in used.iter().enumerate() {
        let entry = 0x1000_0000_0000_0000 | u64::try_from(number).unwrap();
        put64(&mut file, directory_at + usize::try_from(*table).unwrap() * 8, entry);
    }
    for (grain, what) in grains {
        let entry = match what {
            Grain::Unmapped => 0x1000_0000_0000_0000,
            Grain::Zero => 0x2000_0000_0000_0000,
            Grain::Data(_) => {
                let nth = data.iter().position(|(known, _)| *known == grain).unwrap();
                let place = u64::try_from(data.len() - 1 - nth).unwrap();
                0x3000_0000_0000_0000 | (place & 0xfff) << 48 | place >> 12
            }
        };
        let number = used.iter().position(|table| *table == grain / GTES).unwrap();
        let index = usize::try_from(grain % GTES).unwrap();
        put64(&mut file, tables_at + number * TABLE + index * 8, entry);
    }
    for (_, what) in data.iter().rev() {
        let Grain::Data(bytes) = what else { unreachable!() };
        assert_eq!(bytes.len(), 4096);
        stored.push(bytes);
    }
    file.extend(stored.concat());
    let in_sectors = |bytes: usize| u64::try_from(bytes / SECTOR).unwrap();
    let header = [
        (0, 0xcafe_babe),
        (8, 0x2_0000_0001),
        (16, sectors),
        (24, 8),
        (32, 64),
        (80, 1),
        (88, 1),
        (96, 2),
        (104, 1),
        (112, 3),
        (120, 1),
        (128, in_sectors(directory_at)),
        (136, in_sectors(directory_len)),
        (144, in_sectors(tables_at)),
        (152, in_sectors(used.len() * TABLE)),
        (192, in_sectors(grains_at)),
        (200, in_sectors(data.len() * 4096)),
    ];
    for (at, value) in header {
        put64(&mut file, at, value);
    }
    put64(&mut file, SECTOR, 0xcafe_cafe);
    file
}

/// A descriptor file of one extent.
#[must_use]
pub fn descriptor(create_type: &str, extents: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\n\n# Extent description\n{extents}\n\n\
         # The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\n"
    )
    .into_bytes()
}

fn sector(count: u32) -> usize {
    usize::try_from(count).unwrap()
}

fn end_of(file: &[u8]) -> u32 {
    u32::try_from(file.len() / SECTOR).unwrap()
}

fn put32(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
