//! At every point between two syncs, losing any of the writes since the first of them leaves an
//! image that opens, holds all that was synced, and is damaged by leaks at worst.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, Kind, Op, apply, create, kinds, open, ops};
use proptest::prelude::*;
use rimg_core::{BlockImage, Finding, Repair, SnapshotInfo, SnapshotSelector, Storage};
use rimg_testkit::{MemoryDir, ModelDisk, RecordingStorage};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the disk was when so many records were in the log.
struct Moment {
    position: usize,
    /// Whether everything was made durable then.
    flushed: bool,
    disk: Vec<u8>,
    /// Names, and the disks that the snapshots keep.
    snapshots: Vec<(String, Vec<u8>)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::cases(32)))]

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
        let mut image = open(&dir);
        let moment = |flushed, model: &ModelDisk| {
            let names = model.snapshot_names().into_iter().map(str::to_owned);
            let kept = (0..).map(|place| bytes(&model.snapshot(place)));
            let snapshots = names.zip(kept).collect();
            Moment { position: recording.position(), flushed, disk: bytes(model), snapshots }
        };
        let mut moments = vec![moment(true, &model)];
        for op in &ops {
            let before = model.clone();
            if matches!(op, Op::Reopen) {
                image.close().unwrap();
                image = open(&dir);
            }
            apply(&whole_sectors(op), image.as_ref(), &mut model);
            if model.size_bytes() < before.size_bytes() {
                let end = model.size_bytes();
                let on_the_way = without_tail(&before, end, &dir, &kind);
                moments.extend(on_the_way.iter().map(|disk| moment(false, disk)));
            }
            moments.push(moment(matches!(op, Op::Flush | Op::Reopen), &model));
        }
        let flags_change =
            ops.iter().any(|op| matches!(op, Op::Take { .. } | Op::Apply { .. } | Op::Delete { .. }));
        for state in recording.crash_states(3, 1) {
            if state.prefix < moments[0].position {
                continue;
            }
            let what = format!("after {} records, {:?}", state.prefix, state.fates);
            let disk: Arc<dyn Storage> = state.storage.clone();
            dir.put("disk", disk);
            let image = dir.open("disk", "qcow2", true).expect(&what);
            assert_harmless(image.as_ref(), kind.cluster_bits, flags_change, &what);
            let first = moments
                .iter()
                .rposition(|moment| moment.flushed && moment.position <= state.synced)
                .unwrap_or(0);
            let next = moments.iter().map(|moment| moment.position).find(|p| *p >= state.prefix);
            let last = moments.iter().rposition(|moment| Some(moment.position) == next);
            let last = last.unwrap_or(moments.len() - 1).max(first);
            assert_between(image.as_ref(), &moments[first..=last], &what);
            assert_snapshots(image.as_ref(), &moments[first..=last], &what);
        }
    }
}

/// While a disk shrinks, what is behind its new end goes first: it may be nothing, or what lies
/// below.
fn without_tail(disk: &ModelDisk, end: u64, dir: &MemoryDir, kind: &Kind) -> Vec<ModelDisk> {
    let mut zeroed = disk.clone();
    zeroed.zero(end..disk.size_bytes());
    let mut below = zeroed.clone();
    if kind.backing_bytes > end {
        let base = dir.file("base");
        let stop = kind.backing_bytes.min(disk.size_bytes());
        let mut bytes = vec![0; usize::try_from(stop - end).unwrap()];
        base.read_exact_at(&mut bytes, end).unwrap();
        below.write(&bytes, end);
    }
    vec![zeroed, below]
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

/// Leaks; and where snapshots come and go, COPIED flags that keep somebody from writing in place,
/// or that are on a cluster of which only leaked references say that others use it.
fn assert_harmless(image: &dyn BlockImage, cluster_bits: u32, flags_change: bool, what: &str) {
    let mut leaked = BTreeSet::new();
    let mut flags = Vec::new();
    let mut found = |finding: &Finding| {
        let message = finding.message.clone();
        if let Some(rest) = message.strip_prefix("Leaked cluster ") {
            leaked.insert(rest.split(' ').next().unwrap().parse::<u64>().unwrap());
        } else if flags_change && message.starts_with("ERROR OFLAG_COPIED") {
            flags.push(message);
        } else {
            panic!("{message}: {what}");
        }
    };
    image.checker().unwrap().check(Repair::Nothing, &mut found).unwrap();
    for message in flags {
        let entry = message.split("_entry=").nth(1).unwrap().split(' ').next().unwrap();
        let entry = u64::from_str_radix(entry, 16).unwrap();
        let cluster = (entry & 0x00ff_ffff_ffff_fe00) >> cluster_bits;
        assert!(entry >> 63 == 0 || leaked.contains(&cluster), "{message}: {what}");
    }
}

/// Every sector is what it was at some moment since everything was durable.
fn assert_between(image: &dyn BlockImage, moments: &[Moment], what: &str) {
    let mut seen = vec![0; usize::try_from(image.size_bytes()).unwrap()];
    let has_size = moments.iter().any(|moment| moment.disk.len() == seen.len());
    assert!(has_size, "size {}: {what}", seen.len());
    image.read_at(&mut seen, 0).expect(what);
    for (sector, bytes) in seen.chunks(512).enumerate() {
        let place = sector * 512..sector * 512 + bytes.len();
        let known = moments.iter().any(|moment| moment.disk.get(place.clone()) == Some(bytes));
        assert!(known, "sector {sector} is what it never was: {what}");
    }
}

/// The snapshots are those of some moment, and hold what they held then.
fn assert_snapshots(image: &dyn BlockImage, moments: &[Moment], what: &str) {
    let snapshots = image.snapshots().unwrap();
    let kept = |info: &SnapshotInfo| {
        let disk = snapshots.open(&SnapshotSelector::IdOrName(&info.id)).expect(what).unwrap();
        let mut bytes = vec![0; usize::try_from(disk.size_bytes()).unwrap()];
        disk.read_at(&mut bytes, 0).expect(what);
        (info.name.clone(), bytes)
    };
    let seen: Vec<(String, Vec<u8>)> = snapshots.list().unwrap().iter().map(kept).collect();
    let known = moments.iter().any(|moment| moment.snapshots == seen);
    assert!(known, "{} snapshots are what they never were: {what}", seen.len());
}

fn bytes(disk: &ModelDisk) -> Vec<u8> {
    disk.read(0..disk.size_bytes())
}
