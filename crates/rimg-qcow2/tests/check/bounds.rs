//! Images that are made to keep a check busy for ever.

use crate::findings::open_as;
use rimg_core::{FindingKind, Repair, StorageWrite as _};
use rimg_testkit::{MemoryStorage, bounds};
use std::sync::Arc;
use std::time::Duration;

const CLUSTER: u64 = 1 << 16;
const L1_ENTRIES: u32 = 4 << 20;

/// An image with the largest L1 table there is, and as many snapshots as there can be.
struct Hostile {
    file: MemoryStorage,
    l1_at: u64,
}

impl Hostile {
    /// `l1_of` gives each snapshot its L1 table.
    fn new(snapshots: u32, l1_of: impl Fn(u64) -> u64) -> Self {
        let file = MemoryStorage::new();
        let table_at = 4 * CLUSTER;
        let l1_at = (table_at + u64::from(snapshots) * 64).next_multiple_of(CLUSTER);
        let l1_bytes = u64::from(L1_ENTRIES) * 8;
        let write = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
        let mut header = Vec::new();
        header.extend(0x5146_49fb_u32.to_be_bytes());
        header.extend(3_u32.to_be_bytes());
        header.extend([0; 12]);
        header.extend(16_u32.to_be_bytes());
        header.extend((1_u64 << 30).to_be_bytes());
        header.extend(0_u32.to_be_bytes());
        header.extend(L1_ENTRIES.to_be_bytes());
        header.extend(l1_at.to_be_bytes());
        header.extend(CLUSTER.to_be_bytes());
        header.extend(1_u32.to_be_bytes());
        header.extend(snapshots.to_be_bytes());
        header.extend(table_at.to_be_bytes());
        header.extend([0; 24]);
        header.extend(4_u32.to_be_bytes());
        header.extend(104_u32.to_be_bytes());
        write(0, &header);
        write(CLUSTER, &(2 * CLUSTER).to_be_bytes());
        let mut table = Vec::new();
        for number in 0..u64::from(snapshots) {
            table.extend((l1_at + l1_of(number)).to_be_bytes());
            table.extend(L1_ENTRIES.to_be_bytes());
            // Neither identifier nor name, and 24 bytes of extra data.
            table.extend([0; 24]);
            table.extend(24_u32.to_be_bytes());
            table.extend([0; 24]);
        }
        write(table_at, &table);
        // The L2 table is an empty one: cluster 3.
        let entry = ((3 * CLUSTER) | (1 << 63)).to_be_bytes();
        write(l1_at, &entry.repeat(usize::try_from(L1_ENTRIES).unwrap()));
        file.set_len_bytes(l1_at + 4 * l1_bytes).unwrap();
        Self { file, l1_at }
    }

    /// Checks within bounds; gives the messages of check errors.
    fn check(self) -> Vec<String> {
        bounds::within(Duration::from_secs(60), "the check", move || {
            let image = open_as(Arc::new(self.file), false, true).unwrap();
            let mut errors = Vec::new();
            let checker = image.checker().unwrap();
            checker
                .check(Repair::Nothing, &mut |finding| {
                    if finding.kind == FindingKind::CheckError {
                        errors.push(finding.message.clone());
                    }
                })
                .unwrap();
            errors
        })
    }
}

#[test]
fn snapshots_that_share_a_huge_l1_table_are_checked_in_time() {
    let hostile = Hostile::new(65_536, |_| 0);
    assert!(hostile.l1_at > 4 << 20);
    // The disk's own table alone leads to one L2 table millions of times; those of snapshots are
    // known by then.
    let errors = hostile.check();
    assert!(errors.iter().all(|error| error.contains("again and again")), "{errors:?}");
}

#[test]
fn snapshots_whose_l1_tables_overlap_are_given_up() {
    let errors = Hostile::new(65_536, |number| number % 512 * CLUSTER).check();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("not all of them were looked at"), "{errors:?}");
}
