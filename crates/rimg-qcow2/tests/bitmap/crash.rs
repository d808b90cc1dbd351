//! Whatever a crash takes away, a bitmap says that it is in use or has a bit for everything that
//! differs from the time when it was started.

use crate::changes::{Change, Truth, changes, make, name_of};
use crate::common::crash::{Crashed, Moment, Recorded, whole_sectors};
use crate::common::{DRIVERS, Op, cases, kinds, kinds_with_data_file, open};
use crate::{findings, runs};
use proptest::prelude::*;
use rimg_core::{FindingKind, RawOptions, Storage};
use rimg_testkit::{MemoryDir, MemoryStorage, RecordingStorage};
use std::collections::BTreeMap;
use std::sync::Arc;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(24)))]

    #[test]
    fn a_bitmap_never_says_too_little(
        kind in prop_oneof![
            4 => kinds().prop_filter("has bitmaps", |kind| !kind.version_2),
            1 => kinds_with_data_file(),
        ],
        changes in changes(16),
    ) {
        let (recorded, mut model) = Recorded::new(&kind);
        let mut image = open(&recorded.dir);
        let mut now = Now::default();
        let mut then = Past::default();
        then.note(recorded.moment(true, &model), &now);
        // Most workloads have a bitmap from the beginning.
        let first = [
            Change::Add { name: 0, granularity_bits: Some(9) },
            Change::Disk(Op::Flush),
        ];
        for change in first.iter().chain(&changes) {
            let change = match change {
                Change::Disk(op) => Change::Disk(whole_sectors(op)),
                other => other.clone(),
            };
            let before = model.clone();
            if matches!(change, Change::Disk(Op::Reopen)) {
                image.close().unwrap();
                image = open(&recorded.dir);
            }
            make(&change, &kind, image.as_ref(), &mut model, &mut now);
            for moment in recorded.while_it_shrinks(&before, &model) {
                then.note(moment, &now);
            }
            let flushed = matches!(change, Change::Disk(Op::Flush | Op::Reopen));
            then.note(recorded.moment(flushed, &model), &now);
        }
        image.close().unwrap();
        then.note(recorded.moment(true, &model), &now);
        let mut trusted = 0;
        recorded.after_each_crash(true, |crashed| {
            let possible = crashed.possible(&then.moments);
            crashed.assert_harmless();
            crashed.assert_between(&then.moments[possible.clone()]);
            crashed.assert_snapshots(&then.moments[possible.clone()]);
            trusted += assert_bitmaps(crashed, &then.bitmaps[possible]);
        });
        prop_assert!(trusted > 0);
    }
}

/// The bitmaps by their names.
type Now = BTreeMap<u8, Truth>;

/// What the image and its bitmaps were.
#[derive(Default)]
struct Past {
    moments: Vec<Moment>,
    bitmaps: Vec<Now>,
}

impl Past {
    fn note(&mut self, moment: Moment, bitmaps: &Now) {
        self.moments.push(moment);
        self.bitmaps.push(bitmaps.clone());
    }
}

/// The directory is that of one moment. So are the bits of bitmaps that are not in use, and those
/// that follow the disk have one for everything that differs since they began to. Returns how many
/// are not in use.
fn assert_bitmaps(crashed: &Crashed<'_>, moments: &[Now]) -> usize {
    let image = crashed.image.as_ref();
    let list = image.bitmaps().unwrap().list().expect(&crashed.what);
    let trusted = list.iter().filter(|info| !info.in_use);
    let bits: BTreeMap<&str, _> =
        trusted.map(|info| (info.name.as_str(), runs(image, &info.name))).collect();
    let disk = crashed.read();
    let is_of = |now: &Now| {
        now.len() == list.len()
            && now.iter().all(|(name, truth)| {
                let name = name_of(*name);
                let Some(info) = list.iter().find(|info| info.name == name) else { return false };
                let is_same =
                    info.granularity_bytes == truth.granularity && info.enabled == truth.enabled;
                let Some(runs) = bits.get(name.as_str()) else { return is_same };
                let follows = || {
                    let sectors = disk.chunks(512).zip(truth.start.chunks(512));
                    let mut changed = (0..).step_by(512).zip(sectors).filter(|(_, (a, b))| a != b);
                    changed.all(|(at, _)| runs.iter().any(|run| run.contains(&at)))
                };
                is_same
                    && truth.start.len() == disk.len()
                    && *runs == truth.runs(image.size_bytes())
                    && (!info.enabled || follows())
            })
    };
    assert!(moments.iter().any(is_of), "{list:?} {bits:?} {}", crashed.what);
    bits.len()
}

/// The extension comes and goes between the header and the backing file's name, in other sectors.
#[test]
fn the_header_is_whole_when_the_extension_comes_and_goes() {
    for (cluster_bits, name) in [(16, "base"), (16, "a-longer-name"), (12, "base"), (10, "base")] {
        let dir = MemoryDir::new(DRIVERS);
        let recording = Arc::new(RecordingStorage::new());
        let disk: Arc<dyn Storage> = recording.clone();
        dir.put("disk", disk);
        dir.put(name, Arc::new(MemoryStorage::from(vec![7; 8192])));
        let options = RawOptions::new()
            .with("cluster_size", (1_u64 << cluster_bits).to_string())
            .with("backing_file", name)
            .with("backing_fmt", "raw");
        dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
        recording.writer().unwrap().sync().unwrap();
        let begin = recording.position();
        let image = open(&dir);
        let editor = image.bitmaps().unwrap().editor().unwrap();
        let writer = image.writer().unwrap();
        for _ in 0..2 {
            editor.add("one", None).unwrap();
            writer.flush().unwrap();
            editor.add("two", None).unwrap();
            writer.flush().unwrap();
            editor.remove("one").unwrap();
            editor.remove("two").unwrap();
            writer.flush().unwrap();
        }
        image.close().unwrap();
        for state in recording.crash_states(64, 1) {
            if state.prefix < begin {
                continue;
            }
            let what = format!("{name} after {} records, {:?}", state.prefix, state.fates);
            let disk: Arc<dyn Storage> = state.storage.clone();
            dir.put("disk", disk);
            let image = dir.open("disk", "qcow2", true).expect(&what);
            let mut first = [0];
            image.read_at(&mut first, 8191).expect(&what);
            assert_eq!(first, [7], "{what}");
            for (kind, message) in findings(image.as_ref()) {
                assert_eq!(kind, FindingKind::Leak, "{message}: {what}");
            }
            image.bitmaps().unwrap().list().expect(&what);
        }
    }
}
