//! At every point between two syncs, losing any of the writes leaves an image that opens, replays
//! its log, and holds all that was synced.
mod common;

use rimg_core::{Preallocation, RawOptions, Repair};
use rimg_testkit::{MemoryDir, RecordingStorage};
use std::sync::Arc;

#[test]
fn a_crash_loses_only_what_was_not_synced() {
    for kind in common::kinds() {
        kind.crash(3, 8);
    }
}

#[test]
fn a_crash_while_the_table_moves_leaves_one_of_both() {
    const MIB: u64 = 1 << 20;
    // With blocks of 1 MiB a region of 1 MiB has the table of 128 GiB.
    let (small, large) = (3 * MIB, 200 << 30);
    let dir = MemoryDir::new(common::DRIVERS);
    let recording = Arc::new(RecordingStorage::new());
    dir.put("disk", recording.clone());
    let options = RawOptions::new().with("block_size", "1048576");
    dir.create("disk", "vhdx", small, &options).unwrap();
    let image = dir.open("disk", "vhdx", true).unwrap();
    let writer = image.writer().unwrap();
    writer.write_at(&[1; 4096], MIB).unwrap();
    writer.flush().unwrap();
    let start = recording.position();
    image.resizer().unwrap().resize(large, Preallocation::Off).unwrap();
    let grown = recording.position();
    // Where the table was is free now, and used.
    for block in 10..14 {
        writer.write_at(&[2; 4096], block * MIB).unwrap();
    }
    writer.flush().unwrap();
    let flushed = recording.position();
    image.close().unwrap();
    let mut sizes = [0, 0];
    for state in recording.crash_states(3, 1).filter(|state| state.prefix >= start) {
        let what = format!("after {} records, {:?}", state.prefix, state.fates);
        dir.put("disk", state.storage.clone());
        let image = dir.open("disk", "vhdx", true).expect(&what);
        let size = image.size_bytes();
        assert!(size == small || size == large, "{size}: {what}");
        assert!(size == large || state.synced < grown, "{what}");
        sizes[usize::from(size == large)] += 1;
        let mut bytes = [0; 4096];
        image.read_at(&mut bytes, MIB).unwrap();
        assert!(bytes == [1; 4096], "{what}");
        if state.synced >= flushed {
            for block in 10..14 {
                image.read_at(&mut bytes, block * MIB).unwrap();
                assert!(bytes == [2; 4096], "{what}");
            }
        }
        let mut found = |finding: &rimg_core::Finding| {
            // One of the two may still say where the table was.
            assert_eq!(finding.message, "ERROR the second region table is damaged", "{what}");
        };
        image.checker().unwrap().check(Repair::Nothing, &mut found).unwrap();
    }
    assert!(sizes[0] > 5 && sizes[1] > 5, "{sizes:?}");
}
