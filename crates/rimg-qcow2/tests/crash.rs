//! At every point between two syncs, losing any of the writes since the first of them leaves an
//! image that opens, holds all that was synced, and is damaged by leaks at worst.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, Op, apply, create, kinds, open, ops};
use proptest::prelude::*;
use rimg_core::{FindingKind, Repair, Storage};
use rimg_testkit::{MemoryDir, ModelDisk, RecordingStorage};
use std::sync::Arc;

/// What the disk was when so many records were in the log.
struct Moment {
    position: usize,
    /// Whether everything was made durable then.
    flushed: bool,
    disk: ModelDisk,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_crash_loses_only_what_was_not_synced(
        kind in kinds().prop_filter("one file to crash", |kind| !kind.data_file),
        ops in ops(16),
    ) {
        let dir = MemoryDir::new(DRIVERS);
        let recording = Arc::new(RecordingStorage::new());
        let disk: Arc<dyn Storage> = recording.clone();
        dir.put("disk", disk);
        let mut model = create(&dir, &kind);
        recording.writer().unwrap().sync().unwrap();
        let image = open(&dir);
        let moment = |flushed, model: &ModelDisk| Moment {
            position: recording.position(),
            flushed,
            disk: model.clone(),
        };
        let mut moments = vec![moment(true, &model)];
        for op in &ops {
            // Sizes change at once and cannot be compared with what a model says of the time
            // between; discards may come into force or not.
            if matches!(op, Op::Grow { .. } | Op::Discard { .. } | Op::Reopen) {
                continue;
            }
            apply(&whole_sectors(op), image.as_ref(), &mut model);
            moments.push(moment(matches!(op, Op::Flush), &model));
        }
        for state in recording.crash_states(3, 1) {
            if state.prefix < moments[0].position {
                continue;
            }
            let what = format!("after {} records, {:?}", state.prefix, state.fates);
            let disk: Arc<dyn Storage> = state.storage.clone();
            dir.put("disk", disk);
            let image = dir.open("disk", "qcow2", true).expect(&what);
            assert_only_leaks(image.as_ref(), &what);
            let first = moments
                .iter()
                .rposition(|moment| moment.flushed && moment.position <= state.synced)
                .unwrap_or(0);
            let last = moments.iter().position(|moment| moment.position >= state.prefix);
            let last = last.unwrap_or(moments.len() - 1);
            assert_between(image.as_ref(), &moments[first..=last], &what);
        }
    }
}

/// Disks write whole sectors: of two writes to one sector, the second takes the first along. The
/// recording knows bytes only, so writes are made to cover whole sectors.
fn whole_sectors(op: &Op) -> Op {
    let round = |at: u64, len: u64| (at / 512 * 512, len.next_multiple_of(512));
    match *op {
        Op::Write { at, len, seed } => {
            let (at, len) = round(at, len);
            Op::Write { at, len, seed }
        }
        Op::Zero { at, len } => {
            let (at, len) = round(at, len);
            Op::Zero { at, len }
        }
        ref other => other.clone(),
    }
}

fn assert_only_leaks(image: &dyn rimg_core::BlockImage, what: &str) {
    image
        .checker()
        .unwrap()
        .check(Repair::Nothing, &mut |finding| {
            assert_eq!(finding.kind, FindingKind::Leak, "{}: {what}", finding.message);
        })
        .unwrap();
}

/// Every sector is what it was at some moment since everything was durable.
fn assert_between(image: &dyn rimg_core::BlockImage, moments: &[Moment], what: &str) {
    let size = image.size_bytes();
    let mut seen = vec![0; usize::try_from(size).unwrap()];
    image.read_at(&mut seen, 0).expect(what);
    let disks: Vec<Vec<u8>> = moments.iter().map(|moment| moment.disk.read(0..size)).collect();
    for (sector, bytes) in seen.chunks(512).enumerate() {
        let place = sector * 512..sector * 512 + bytes.len();
        let known = disks.iter().any(|disk| &disk[place.clone()] == bytes);
        assert!(known, "sector {sector} is what it never was: {what}");
    }
}
