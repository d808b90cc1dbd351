//! At every point between two syncs, losing any of the writes since the first of them leaves an
//! image that opens, holds all that was synced, and is damaged by leaks at worst.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::crash::{Recorded, whole_sectors};
use common::{Kind, Op, apply, kinds, kinds_with_data_file, open, ops};
use proptest::prelude::*;
use rimg_core::Preallocation;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::cases(32)))]

    #[test]
    fn a_crash_loses_only_what_was_not_synced(
        kind in kinds().prop_filter("one file", |kind| !kind.data_file),
        ops in ops(16),
    ) {
        crash(&kind, &ops);
    }

    #[test]
    fn a_crash_of_image_and_data_file_loses_only_what_was_not_synced(
        kind in kinds_with_data_file(),
        ops in ops(16),
    ) {
        crash(&kind, &ops);
    }
}

/// Changes an image, and looks at everything that crashes could have left.
fn crash(kind: &Kind, ops: &[Op]) {
    let (recorded, mut model) = Recorded::new(kind);
    let mut image = open(&recorded.dir);
    let mut moments = vec![recorded.moment(true, &model)];
    for op in ops {
        let before = model.clone();
        if matches!(op, Op::Reopen) {
            image.close().unwrap();
            image = open(&recorded.dir);
        }
        apply(&whole_sectors(op), image.as_ref(), &mut model);
        moments.extend(recorded.while_it_shrinks(&before, &model));
        moments.push(recorded.moment(matches!(op, Op::Flush | Op::Reopen), &model));
    }
    let snapshots_change =
        ops.iter().any(|op| matches!(op, Op::Take { .. } | Op::Apply { .. } | Op::Delete { .. }));
    recorded.after_each_crash(snapshots_change, |crashed| {
        crashed.assert_harmless();
        let possible = &moments[crashed.possible(&moments)];
        crashed.assert_between(possible);
        crashed.assert_snapshots(possible);
    });
}

/// Version 3 with clusters of 4 KiB, and nothing out of the ordinary.
fn plain(size_bytes: u64) -> Kind {
    Kind {
        cluster_bits: 12,
        extended_l2: false,
        version_2: false,
        refcount_bits: 16,
        zstd: false,
        data_file: false,
        data_file_raw: false,
        lazy_refcounts: false,
        backing_bytes: 0,
        size_bytes,
    }
}

/// A crash may come before the data file is cut, or take that away again.
#[test]
fn what_a_shrunk_disk_lost_does_not_come_up_in_a_grown_one() {
    let mut grown = 0;
    for data_file_raw in [true, false] {
        let kind = Kind { data_file: true, data_file_raw, ..plain(100_352) };
        let (recorded, mut model) = Recorded::new(&kind);
        let image = open(&recorded.dir);
        apply(&Op::Write { at: 0, len: 100_352, seed: 1 }, image.as_ref(), &mut model);
        apply(&Op::Shrink { to_sectors: 31 }, image.as_ref(), &mut model);
        image.close().unwrap();
        recorded.after_each_crash(false, |crashed| {
            let end = usize::try_from(crashed.image.size_bytes()).unwrap();
            let resizer = crashed.image.resizer().unwrap();
            resizer.resize(200_704, Preallocation::Metadata).unwrap();
            let gained = &crashed.read()[end..];
            assert!(gained.iter().all(|byte| *byte == 0), "{}", crashed.what);
            grown += usize::from(end < 100_352);
        });
    }
    assert!(grown > 10, "{grown}");
}

/// A crash may take back that a disk grew, but not leave there what was written since.
#[test]
fn what_a_grown_disk_gained_does_not_come_up_when_it_grows_again() {
    for (data_file, data_file_raw) in [(true, false), (true, true), (false, false)] {
        let kind = Kind { data_file, data_file_raw, ..plain(65_536) };
        let mut taken_back = 0;
        let (recorded, mut model) = Recorded::new(&kind);
        let image = open(&recorded.dir);
        apply(&Op::Write { at: 0, len: 512, seed: 1 }, image.as_ref(), &mut model);
        apply(&Op::Grow { by_sectors: 66 }, image.as_ref(), &mut model);
        apply(&Op::Write { at: 65_024, len: 16_384, seed: 2 }, image.as_ref(), &mut model);
        image.close().unwrap();
        recorded.after_each_crash(false, |crashed| {
            if crashed.image.size_bytes() == 65_536 {
                let resizer = crashed.image.resizer().unwrap();
                resizer.resize(131_072, Preallocation::Metadata).unwrap();
                let gained = &crashed.read()[65_536..];
                assert!(gained.iter().all(|byte| *byte == 0), "{}", crashed.what);
                taken_back += 1;
            }
        });
        assert!(taken_back > 3, "{taken_back} of {kind:?}");
    }
}

/// The rest of the (sub)cluster that a disk ends within is zeroed, and nothing else is.
#[test]
fn a_preallocated_disk_keeps_what_it_had() {
    for (extended_l2, data_file) in [(false, false), (true, false), (true, true), (false, true)] {
        for size_bytes in [64 << 10, 68 << 10, 100 << 10] {
            let kind = Kind {
                cluster_bits: 16,
                extended_l2,
                version_2: false,
                refcount_bits: 16,
                zstd: false,
                data_file,
                data_file_raw: data_file,
                lazy_refcounts: false,
                backing_bytes: 0,
                size_bytes,
            };
            let (recorded, mut model) = Recorded::new(&kind);
            let image = open(&recorded.dir);
            apply(&Op::Write { at: 0, len: size_bytes, seed: 1 }, image.as_ref(), &mut model);
            for new in [size_bytes + 5 * 1024, (200 << 10) + 512] {
                image.resizer().unwrap().resize(new, Preallocation::Metadata).unwrap();
                model.resize(new);
                model.assert_same(image.as_ref(), &format!("{kind:?}, {new}"));
            }
        }
    }
}
