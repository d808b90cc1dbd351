//! A storage that fails in the middle of a change.

use super::crash::{Moment, assert_between, assert_harmless};
use super::ops::{follow, perform};
use super::{Drill, Op, cases};
use crate::storages::{Fault, FaultyStorage};
use crate::{ModelDisk, Rng};
use rimg_core::{Error, Storage};
use std::io::ErrorKind;
use std::sync::Arc;

/// More changes than this go well, and there is nothing to learn.
const MOST_STEPS: u64 = 40;

impl Drill {
    /// `default` times, the storage fails somewhere in a random sequence of changes, works again
    /// after that, and the change is tried once more. Either it goes well, and all is there when
    /// the image is opened again; or the image lets nobody go on with it, and holds what was
    /// durable when it is opened again.
    ///
    /// # Panics
    /// When anything else happens, with the seed; and when the storage failed hardly ever.
    pub fn failing(&self, default: u64) {
        let times = cases(default);
        let failed = (0..times).filter(|seed| self.fail_once(*seed)).count();
        assert!(rimg_core::num::to_u64(failed) * 2 > times, "it failed {failed} of {times} times");
    }

    /// Whether the storage failed.
    fn fail_once(&self, seed: u64) -> bool {
        let mut rng = Rng::new(seed);
        let dir = self.dir();
        let mut model = self.make(&dir);
        let file = dir.file("disk");
        let faulty = Arc::new(FaultyStorage::new(Arc::clone(&file)));
        let disk: Arc<dyn Storage> = faulty.clone();
        dir.put("disk", disk);
        let image = self.opened(&dir, true);
        let moment = |model: &ModelDisk| Moment {
            position: 0,
            flushed: false,
            disk: model.read(0..model.size_bytes()),
        };
        let mut moments = vec![moment(&model)];
        faulty.fail(Fault::all_after(rng.below(60), ErrorKind::StorageFull));
        let mut done = Vec::new();
        for _ in 0..MOST_STEPS {
            let op = Op::random(&mut rng, self.size_bytes, self.step_bytes).in_sectors();
            if matches!(op, Op::Reopen) {
                continue;
            }
            let what = format!("seed {seed}, {op:?} after {done:#?}: {self:?}");
            let size = model.size_bytes();
            let failure = perform(&op, image.as_ref(), size).err();
            let Some(failure) = failure else {
                let before = model.clone();
                let mut after = model.clone();
                // What a discard left is looked at, which is not what is to fail.
                faulty.heal();
                follow(&op, image.as_ref(), &mut after);
                faulty.fail(Fault::all_after(rng.below(30), ErrorKind::StorageFull));
                if after.size_bytes() < before.size_bytes() {
                    moments.extend(self.on_the_way(&before, &after).map(|disk| moment(&disk)));
                }
                model = after;
                if matches!(op, Op::Flush) {
                    moments.clear();
                }
                moments.push(moment(&model));
                done.push(op);
                continue;
            };
            assert!(!matches!(failure, Error::Misuse(_)), "{what}: {failure:?}");
            faulty.heal();
            let mut after = model.clone();
            let again = perform(&op, image.as_ref(), size);
            let goes_on = again.is_ok();
            match again {
                Ok(()) => follow(&op, image.as_ref(), &mut after),
                Err(Error::Io { op: doing, .. }) if doing.starts_with("go on after") => {
                    // What of it happened is not known: it may all have.
                    if let Op::Resize { size } = op {
                        if size < model.size_bytes() {
                            let mut shorter = model.clone();
                            shorter.resize(size);
                            let half = self.on_the_way(&model, &shorter);
                            moments.extend(half.map(|disk| moment(&disk)));
                        }
                        after.resize(size);
                    }
                }
                Err(error) => panic!("{what}: the second time: {error:?}"),
            }
            moments.push(moment(&after));
            let closed = image.close();
            dir.put("disk", file);
            let image = self.opened(&dir, true);
            if goes_on {
                closed.unwrap_or_else(|error| panic!("{what}: closing: {error:?}"));
                after.assert_same(image.as_ref(), &what);
            } else {
                assert_between(image.as_ref(), &moments, &what);
            }
            assert_harmless(image.as_ref(), &what);
            return true;
        }
        false
    }
}
