//! Between two syncs any of the writes may be lost.

use super::{Drill, Op, apply, cases};
use crate::{ModelDisk, RecordingStorage, Rng};
use rimg_core::{BlockImage, Repair, Storage};
use std::sync::Arc;

/// What the disk was when so many records were in the log.
pub(super) struct Moment {
    pub(super) position: usize,
    /// Whether everything was made durable then.
    pub(super) flushed: bool,
    pub(super) disk: Vec<u8>,
}

impl Drill {
    /// `default` times, a new image is changed `steps` times at random; then every state that a
    /// crash could have left of its file is opened. It holds all that was durable, every sector is
    /// what it was at some moment since, and a check finds leaks at worst.
    ///
    /// # Panics
    /// When anything else happens, with the seed.
    pub fn crash(&self, default: u64, steps: u64) {
        for seed in 0..cases(default) {
            self.crash_once(seed, steps);
        }
    }

    fn crash_once(&self, seed: u64, steps: u64) {
        let mut rng = Rng::new(seed);
        let dir = self.dir();
        let recording = Arc::new(RecordingStorage::new());
        let disk: Arc<dyn Storage> = recording.clone();
        dir.put("disk", disk);
        let mut model = self.make(&dir);
        recording.writer().unwrap().sync().unwrap();
        let mut image = self.opened(&dir, true);
        let moment = |flushed, model: &ModelDisk| Moment {
            position: recording.position(),
            flushed,
            disk: model.read(0..model.size_bytes()),
        };
        let mut moments = vec![moment(true, &model)];
        let mut done = Vec::new();
        for _ in 0..steps {
            let op = Op::random(&mut rng, self.size_bytes, self.step_bytes).in_sectors();
            let what = format!("seed {seed} after {done:?}: {self:?}");
            let before = model.clone();
            if matches!(op, Op::Reopen) {
                image.close().unwrap_or_else(|error| panic!("{what}: {error:?}"));
                image = self.opened(&dir, true);
            }
            apply(&op, image.as_ref(), &mut model, &what);
            if model.size_bytes() < before.size_bytes() {
                moments.extend(self.on_the_way(&before, &model).map(|disk| moment(false, &disk)));
            }
            moments.push(moment(matches!(op, Op::Flush | Op::Reopen), &model));
            done.push(op);
        }
        drop(image);
        for state in recording.crash_states(3, seed) {
            if state.prefix < moments[0].position {
                continue;
            }
            let what = format!(
                "seed {seed}, {self:?}, {done:#?}\n{} records, {:?}",
                state.prefix, state.fates
            );
            let disk: Arc<dyn Storage> = state.storage.clone();
            dir.put("disk", disk);
            let first = moments
                .iter()
                .rposition(|moment| moment.flushed && moment.position <= state.synced)
                .unwrap_or(0);
            let next = moments.iter().map(|moment| moment.position).find(|p| *p >= state.prefix);
            let last = moments.iter().rposition(|moment| Some(moment.position) == next);
            let last = last.unwrap_or(moments.len() - 1).max(first);
            // Formats may mend what a crash left when they are opened for writing: what they hold
            // has to be right before.
            for writable in [false, true] {
                let image = dir
                    .open_with("disk", self.format(), writable, &self.open)
                    .unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_between(image.as_ref(), &moments[first..=last], &what);
                // Having been left in use is a finding of its own, to some.
                if writable {
                    assert_harmless(image.as_ref(), &what);
                }
            }
        }
    }

    /// While a disk shrinks, what is behind its new end goes first: it may be nothing, or what
    /// lies below.
    pub(super) fn on_the_way(
        &self,
        before: &ModelDisk,
        after: &ModelDisk,
    ) -> impl Iterator<Item = ModelDisk> + use<> {
        let (end, size) = (after.size_bytes(), before.size_bytes());
        let mut zeroed = before.clone();
        zeroed.zero(end..size);
        let mut below = zeroed.clone();
        let stop = self.below_bytes.min(size);
        if stop > end {
            let bytes = crate::guest::GuestContents::new(7, self.below_bytes).to_vec();
            let part = usize::try_from(end).unwrap()..usize::try_from(stop).unwrap();
            below.write(&bytes[part], end);
        }
        [zeroed, below].into_iter()
    }
}

/// Every sector is what it was at some moment since everything was durable.
pub(super) fn assert_between(image: &dyn BlockImage, moments: &[Moment], what: &str) {
    let mut seen = vec![0; usize::try_from(image.size_bytes()).unwrap()];
    let has_size = moments.iter().any(|moment| moment.disk.len() == seen.len());
    assert!(has_size, "size {}: {what}", seen.len());
    image.read_at(&mut seen, 0).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    // Mostly it is one of them as a whole.
    if moments.iter().any(|moment| moment.disk == seen) {
        return;
    }
    for (sector, bytes) in seen.chunks(512).enumerate() {
        let place = sector * 512..sector * 512 + bytes.len();
        let known = moments.iter().any(|moment| moment.disk.get(place.clone()) == Some(bytes));
        assert!(known, "sector {sector} is what it never was: {what}");
    }
}

pub(super) fn assert_harmless(image: &dyn BlockImage, what: &str) {
    let Some(checker) = image.checker() else { return };
    let mut findings = Vec::new();
    let summary =
        checker.check(Repair::Nothing, &mut |finding| findings.push(finding.message.clone()));
    let summary = summary.unwrap_or_else(|error| panic!("{what}: cannot be checked: {error:?}"));
    let sum = (summary.corruptions, summary.check_errors);
    assert_eq!(sum, (0, 0), "{what}: {findings:#?}");
}
