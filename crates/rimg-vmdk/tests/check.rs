//! What a check finds, and what it mends.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{CheckSummary, Limits, OpenOptions, RawOptions, Repair, Storage};
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::sync::Arc;

/// A disk of 64 MiB with two grains in its second table, and the places of its tables.
struct Sample {
    file: Vec<u8>,
    directory: usize,
    copy: usize,
    /// The second table and its copy.
    table: usize,
    table_copy: usize,
}

fn sample() -> Sample {
    let dir = MemoryDir::new(DRIVERS);
    dir.create("disk", "vmdk", 64 << 20, RawOptions::NONE).unwrap();
    let image = dir.open("disk", "vmdk", true).unwrap();
    image.writer().unwrap().write_at(&[5; 100_000], 40 << 20).unwrap();
    image.close().unwrap();
    let file = bytes_of(dir.file("disk").as_ref());
    let sector = |at: usize| {
        let bytes = file[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap() * 512
    };
    let (directory, copy) = (sector(56), sector(48));
    let (table, table_copy) = (sector(directory + 4), sector(copy + 4));
    Sample { directory, copy, table, table_copy, file }
}

fn bytes_of(file: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The check of a file, and what it says.
fn check(dir: &MemoryDir, repair: Repair) -> (CheckSummary, Vec<String>) {
    let how = OpenOptions {
        writable: repair != Repair::Nothing,
        inspect_only: true,
        limits: Limits::default(),
        gate: dir,
        options: RawOptions::NONE,
    };
    let image = DRIVERS[0].open(dir.file("disk"), &how).unwrap();
    let mut said = Vec::new();
    let checker = image.checker().unwrap();
    let summary = checker.check(repair, &mut |finding| said.push(finding.message.clone())).unwrap();
    image.close().unwrap();
    (summary, said)
}

/// Damages the sample; checks, repairs and checks again. Returns what the first check said and
/// the first byte of each of the two grains afterwards.
fn mend(damage: &[(usize, u32)]) -> (Vec<String>, [u8; 2]) {
    let mut file = sample().file;
    for (at, value) in damage {
        file[*at..*at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let dir = MemoryDir::new(DRIVERS);
    dir.put("disk", Arc::new(MemoryStorage::from(file)));
    let (summary, said) = check(&dir, Repair::Nothing);
    assert_eq!(summary.corruptions, u64::try_from(said.len()).unwrap());
    let (summary, mended) = check(&dir, Repair::All);
    assert_eq!(summary.corruptions_fixed, u64::try_from(said.len()).unwrap());
    assert_eq!((summary.corruptions, &mended), (0, &said));
    assert_eq!(check(&dir, Repair::Nothing), (CheckSummary::default(), vec![]));
    let image = dir.open("disk", "vmdk", true).unwrap();
    let mut seen = [0; 2];
    let (first, second) = seen.split_at_mut(1);
    image.read_at(first, 40 << 20).unwrap();
    image.read_at(second, (40 << 20) + 65_536).unwrap();
    image.close().unwrap();
    (said, seen)
}

const FAR: u32 = 0x7000_0000;

#[test]
fn what_the_copy_knows_comes_back() {
    let Sample { directory, table, .. } = sample();
    let entry = table + (640 - 512) * 4;
    let sector = (40 << 20) / 512;
    assert_eq!(mend(&[]), (vec![], [5, 5]));
    let said = format!("ERROR: cluster offset for sector {sector} points after EOF");
    assert_eq!(mend(&[(entry, FAR)]), (vec![said], [5, 5]));
    let place = u64::from(FAR) * 512;
    let said = format!("ERROR: grain table 1 is behind the end, at {place:#x}");
    assert_eq!(mend(&[(directory + 4, FAR)]), (vec![said], [5, 5]));
    let said = "ERROR: the grain directory cannot be read; its copy can".to_owned();
    assert_eq!(mend(&[(56, FAR)]), (vec![said], [5, 5]));
}

#[test]
fn what_nobody_knows_reads_as_zeroes() {
    let Sample { directory, copy, table, table_copy, .. } = sample();
    let entry = (640 - 512) * 4;
    let (said, seen) = mend(&[(table + entry, FAR), (table_copy + entry, FAR)]);
    assert_eq!((said.len(), seen), (1, [0, 5]));
    let (said, seen) = mend(&[(directory + 4, FAR), (copy + 4, FAR)]);
    assert_eq!((said.len(), seen), (1, [0, 0]));
}

#[test]
fn a_grain_has_one_owner() {
    let Sample { file, table, .. } = sample();
    let entry = table + (640 - 512) * 4;
    let first = u32::from_le_bytes(file[entry..entry + 4].try_into().unwrap());
    // The copy knows where the second one is.
    let (said, seen) = mend(&[(entry + 4, first)]);
    let sector = ((40 << 20) + 65_536) / 512;
    let expected = format!("ERROR: sector {sector}: entry {first:#x} is used by another grain");
    assert_eq!((said, seen), (vec![expected], [5, 5]));
}

#[test]
fn a_copy_that_differs_is_written_anew() {
    let Sample { table_copy, file, .. } = sample();
    let mut damaged = file.clone();
    damaged[table_copy + 8] = 1;
    let dir = MemoryDir::new(DRIVERS);
    dir.put("disk", Arc::new(MemoryStorage::from(damaged)));
    assert_eq!(check(&dir, Repair::Nothing), (CheckSummary::default(), vec![]));
    assert_eq!(check(&dir, Repair::All), (CheckSummary::default(), vec![]));
    assert!(bytes_of(dir.file("disk").as_ref()) == file);
}
