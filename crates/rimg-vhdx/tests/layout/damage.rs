//! What a check finds, and what repairing makes of it.

use super::{MIB, folder, inspect, open, put, read, words};
use rimg_core::{CheckSummary, Repair, Storage as _, StorageWrite as _};
use rimg_testkit::vhdx::{Block, VhdxImage, sum_again};
use rimg_testkit::{MemoryDir, MemoryStorage};

/// Blocks 0 to 2 are there, the last one not whole.
fn sample() -> (VhdxImage, MemoryStorage) {
    let mut image = VhdxImage::new(2 * MIB + 512);
    for block in 0..3 {
        image.blocks.insert(block, Block::Full(vec![u8::try_from(block).unwrap() + 1; 1 << 20]));
    }
    let bytes = image.build();
    (image, bytes)
}

fn set_entry(image: &VhdxImage, bytes: &MemoryStorage, block: u64, entry: u64) {
    bytes.write_all_at(&entry.to_le_bytes(), image.entry_at(block)).unwrap();
}

/// The messages, before and while repairing; the image is sound after that.
fn findings(bytes: &MemoryStorage) -> (Vec<String>, MemoryDir) {
    let dir = folder();
    put(&dir, "disk", bytes);
    let check = |repair, writable| {
        let mut messages = Vec::new();
        let image = inspect(&dir, writable);
        let mut found = |finding: &rimg_core::Finding| {
            assert_eq!(finding.repaired, repair == Repair::All);
            messages.push(finding.message.clone());
        };
        let summary = image.checker().unwrap().check(repair, &mut found).unwrap();
        image.close().unwrap();
        (messages, summary)
    };
    let (messages, summary) = check(Repair::Nothing, false);
    let corruptions = messages.len().try_into().unwrap();
    assert_eq!(summary, CheckSummary { corruptions, ..CheckSummary::default() });
    let (again, summary) = check(Repair::All, true);
    assert_eq!(again, messages);
    let corruptions_fixed = corruptions;
    assert_eq!(summary, CheckSummary { corruptions_fixed, ..CheckSummary::default() });
    let (after, _) = check(Repair::Nothing, false);
    assert_eq!(after, [""; 0], "{messages:?}");
    (messages, dir)
}

fn firsts(dir: &MemoryDir) -> [u8; 3] {
    let image = open(dir, true);
    [0, MIB, 2 * MIB].map(|at| read(image.as_ref(), at, 1)[0])
}

#[test]
fn a_sound_image_has_nothing_to_find() {
    assert_eq!(findings(&sample().1).0, [""; 0]);
}

#[test]
fn entries_that_cannot_be_are_zeroed() {
    let (image, bytes) = sample();
    set_entry(&image, &bytes, 0, 0x50_0005);
    set_entry(&image, &bytes, 1, 0x10_0006);
    let (messages, dir) = findings(&bytes);
    assert_eq!(
        messages,
        [
            "ERROR VHDX BAT entry 0 has unknown state 5",
            "ERROR VHDX BAT entry 1 offset 1048576 points into metadata",
        ]
    );
    assert_eq!(firsts(&dir), [0, 0, 3]);
    set_entry(&image, &bytes, 0, 6);
    assert_eq!(findings(&bytes).0[0], "ERROR VHDX BAT entry 0 offset 0 points into metadata");
}

#[test]
fn a_file_that_was_cut_off_keeps_what_it_has() {
    let (_, bytes) = sample();
    bytes.set_len_bytes(5 * MIB + 512).unwrap();
    let dir = folder();
    put(&dir, "disk", &bytes);
    let at = "vhdx image is corrupt: block allocation table, entry at offset 0x300008";
    let kind = "offset 0x500000 lies behind the end of the file, 0x500200";
    assert_eq!(words(dir.open("disk", "vhdx", false)), format!("{at}: {kind}"));
    let (messages, dir) = findings(&bytes);
    let end = "Image has probably been truncated.";
    assert_eq!(
        messages,
        [
            format!(
                "VHDX BAT entry 1 end offset 6291455 points after end of file (5243392). {end}"
            ),
            format!(
                "VHDX BAT entry 2 start offset 6291456 points after end of file (5243392). {end}"
            ),
        ]
    );
    assert_eq!(firsts(&dir), [1, 2, 0]);
    let image = open(&dir, false);
    assert_eq!(read(image.as_ref(), MIB + 510, 4), [2, 2, 0, 0]);
}

#[test]
fn blocks_that_share_a_place_part() {
    let (image, bytes) = sample();
    set_entry(&image, &bytes, 2, 0x40_0006);
    let dir = folder();
    put(&dir, "disk", &bytes);
    let error = words(dir.open("disk", "vhdx", true));
    let at = "vhdx image is corrupt: block allocation table, entry at offset 0x300010";
    assert_eq!(error, format!("{at}: it lies on top of what is at 0x400000"));
    let (messages, dir) = findings(&bytes);
    assert_eq!(messages, ["ERROR VHDX BAT entry 2 offset 4194304 is used by another entry"]);
    assert_eq!(firsts(&dir), [1, 2, 1]);
    let image = open(&dir, true);
    image.writer().unwrap().write_at(&[9], 0).unwrap();
    image.close().unwrap();
    assert_eq!(firsts(&dir), [9, 2, 1]);
}

#[test]
fn copies_of_what_there_is_twice_are_written_again() {
    for (at, message) in [
        (64 << 10, "ERROR one of the two headers is damaged"),
        (128 << 10, "ERROR one of the two headers is damaged"),
        (192 << 10, "ERROR the first region table is damaged"),
        (256 << 10, "ERROR the second region table is damaged"),
    ] {
        let (_, bytes) = sample();
        bytes.write_all_at(b"x", at + 1000).unwrap();
        let (messages, dir) = findings(&bytes);
        assert_eq!(messages, [message]);
        assert_eq!(firsts(&dir), [1, 2, 3]);
    }
}

#[test]
fn fields_that_are_summed_may_be_wrong_all_the_same() {
    // Every field of what has a checksum, with sums that break and a checksum that holds.
    for (start, len, fields) in [(64 << 10, 4096, 8..80), (192 << 10, 64 << 10, 8..80_u64)] {
        for at in fields {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let (_, bytes) = sample();
                let mut structure = vec![0; len];
                bytes.read_exact_at(&mut structure, start).unwrap();
                structure[usize::try_from(at).unwrap()] = value;
                sum_again(&mut structure);
                // Both copies, so that none of them can help.
                for copy in [start, start + (64 << 10)] {
                    bytes.write_all_at(&structure, copy).unwrap();
                }
                rimg_testkit::drill::survive(
                    &format!("{value:#x} at {:#x}", start + at),
                    super::DRIVERS[0],
                    &bytes,
                    rimg_core::RawOptions::NONE,
                    true,
                );
            }
        }
    }
}

#[test]
fn a_file_that_ends_within_its_first_megabyte_is_corrupt() {
    let (_, whole) = sample();
    let mut whole_bytes = vec![0; 320 << 10];
    whole.read_exact_at(&mut whole_bytes, 0).unwrap();
    let place = |structure, at: u64| {
        format!("vhdx image is corrupt: {structure}, signature at offset {at:#x}")
    };
    for (len, structure, at) in [
        (8, "header", 64 << 10),
        (64 << 10, "header", 64 << 10),
        ((68 << 10) - 1, "header", 64 << 10),
        (100 << 10, "region table", 192 << 10),
        (128 << 10, "region table", 192 << 10),
        (192 << 10, "region table", 192 << 10),
        ((256 << 10) - 1, "region table", 192 << 10),
    ] {
        let dir = folder();
        put(&dir, "disk", &MemoryStorage::from(whole_bytes[..len].to_vec()));
        let error = dir.open("disk", "vhdx", false).unwrap_err();
        assert_eq!(error.to_string(), place(structure, at), "{len}");
        let why = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(why.as_deref(), Some("the file ends within the header section"), "{len}");
    }
}
