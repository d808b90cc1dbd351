//! Whatever a crash takes away, a bitmap says that it is in use or has a bit for everything that
//! differs from the time when it was started.

use crate::common::{DRIVERS, Op, apply, create, kinds, open, ops};
use crate::{findings, runs};
use proptest::prelude::*;
use rimg_core::{FindingKind, RawOptions, Storage};
use rimg_storage::MemoryStorage;
use rimg_testkit::{MemoryDir, RecordingStorage};
use std::sync::Arc;

/// What the image had when so many records were in the log.
struct Moment {
    position: usize,
    /// Whether everything was made durable then.
    flushed: bool,
    names: Vec<&'static str>,
    /// The disk when the bitmap "followed" was empty last.
    start: Vec<u8>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_bitmap_never_says_too_little(
        kind in kinds().prop_filter("one file to crash", |kind| {
            !kind.data_file && !kind.version_2
        }),
        ops in ops(14),
        clear_at in 0_usize..14,
        add_at in 0_usize..14,
    ) {
        let dir = MemoryDir::new(DRIVERS);
        let recording = Arc::new(RecordingStorage::new());
        let disk: Arc<dyn Storage> = recording.clone();
        dir.put("disk", disk);
        let mut model = create(&dir, &kind);
        recording.writer().unwrap().sync().unwrap();
        let image = open(&dir);
        let size = model.size_bytes();
        let editor = image.bitmaps().unwrap().editor().unwrap();
        let mut names = Vec::new();
        let mut start = model.read(0..size);
        let mut moments = Vec::new();
        let mut note = |flushed, names: &[&'static str], start: &[u8]| moments.push(Moment {
            position: recording.position(),
            flushed,
            names: names.to_vec(),
            start: start.to_vec(),
        });
        note(true, &names, &start);
        editor.add("followed", Some(512)).unwrap();
        names.push("followed");
        image.writer().unwrap().flush().unwrap();
        note(true, &names, &start);
        for (index, op) in ops.iter().enumerate() {
            if index == clear_at {
                start = model.read(0..size);
                editor.clear("followed").unwrap();
                note(false, &names, &start);
            }
            if index == add_at {
                editor.add("coarse", Some(65536)).unwrap();
                editor.add("odd", None).unwrap();
                editor.set_enabled("odd", false).unwrap();
                names.extend(["coarse", "odd"]);
                note(false, &names, &start);
            }
            // What snapshots and sizes go through is the business of another test.
            if !matches!(
                op,
                Op::Write { .. } | Op::Zero { .. } | Op::Discard { .. } | Op::Compressed { .. } | Op::Flush
            ) {
                continue;
            }
            apply(op, image.as_ref(), &mut model);
            note(matches!(op, Op::Flush), &names, &start);
        }
        image.close().unwrap();
        note(true, &names, &start);
        let mut trusted = 0;
        for state in recording.crash_states(3, 1) {
            if state.prefix < moments[0].position {
                continue;
            }
            let what = format!("after {} records, {:?}", state.prefix, state.fates);
            let disk: Arc<dyn Storage> = state.storage.clone();
            dir.put("disk", disk);
            let image = dir.open("disk", "qcow2", true).expect(&what);
            for (kind, message) in findings(image.as_ref()) {
                prop_assert_eq!(kind, FindingKind::Leak, "{}: {}", message, what);
            }
            let first = moments
                .iter()
                .rposition(|moment| moment.flushed && moment.position <= state.synced)
                .unwrap_or(0);
            let last = moments.iter().position(|moment| moment.position >= state.prefix);
            let last = last.unwrap_or(moments.len() - 1);
            let list = image.bitmaps().unwrap().list().unwrap();
            for name in &moments[first].names {
                prop_assert!(list.iter().any(|info| info.name == *name), "{} lost {}", name, what);
            }
            let Some(followed) = list.iter().find(|info| info.name == "followed") else {
                continue;
            };
            if followed.in_use {
                continue;
            }
            trusted += 1;
            let mut now = vec![0; usize::try_from(size).unwrap()];
            image.read_at(&mut now, 0).unwrap();
            let set = runs(image.as_ref(), "followed");
            let says_enough = moments[first..=last].iter().any(|moment| {
                let chunks = now.chunks(512).zip(moment.start.chunks(512)).zip((0..).step_by(512));
                chunks.filter(|((now, start), _)| now != start).all(|(_, at)| {
                    set.iter().any(|run| run.contains(&at))
                })
            });
            prop_assert!(says_enough, "{}", what);
        }
        prop_assert!(trusted > 0);
    }
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
