//! Random changes, compared with plain bytes.

use super::{Drill, Op, apply, assert_sound, cases};
use crate::{ModelDisk, Rng};
use rimg_core::{BlockImage, ExtentKind, num};

impl Drill {
    /// `default` times, a new image is changed `steps` times at random, closed, checked and opened
    /// again now and then. It always holds what was written, and what it says of where its bytes
    /// are is true.
    ///
    /// # Panics
    /// When anything else happens, with the seed.
    pub fn model(&self, default: u64, steps: u64) {
        for seed in 0..cases(default) {
            let mut rng = Rng::new(seed);
            let dir = self.dir();
            let mut model = self.make(&dir);
            let mut image = self.opened(&dir, true);
            model.assert_same(image.as_ref(), &format!("seed {seed}, new: {self:?}"));
            for step in 0..steps {
                let what = format!("seed {seed}, step {step}: {self:?}");
                let op = Op::random(&mut rng, self.size_bytes, self.step_bytes);
                if matches!(op, Op::Reopen) {
                    image.close().unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    assert_sound(self.opened(&dir, false).as_ref(), &what);
                    image = self.opened(&dir, true);
                }
                apply(&op, image.as_ref(), &mut model, &what);
                if step % 64 == 63 {
                    model.assert_same(image.as_ref(), &what);
                    assert_places(&model, image.as_ref(), &what);
                }
            }
            let what = format!("seed {seed}, the end: {self:?}");
            model.assert_same(image.as_ref(), &what);
            image.close().unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let image = self.opened(&dir, false);
            model.assert_same(image.as_ref(), &what);
            assert_places(&model, image.as_ref(), &what);
            assert_sound(image.as_ref(), &what);
        }
    }
}

/// What the image says of where its bytes are is true.
fn assert_places(model: &ModelDisk, image: &dyn BlockImage, what: &str) {
    let size = model.size_bytes();
    let mut at = 0;
    while at < size {
        let extent = image.extent_at(at..size).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        let end = at + extent.len_bytes;
        assert!(extent.len_bytes > 0 && end <= size, "{what}: {extent:?} at {at:#x}");
        let wanted = model.read(at..end);
        match extent.kind {
            ExtentKind::Zero { .. } => {
                assert!(rimg_core::zeroes::is_zero(&wanted), "{what}: no zeroes at {at:#x}");
            }
            ExtentKind::Backing { .. } if image.backing().is_none() => {
                assert!(rimg_core::zeroes::is_zero(&wanted), "{what}: nothing below {at:#x}");
            }
            ExtentKind::Data(place) => {
                let mut found = vec![0xA5; num::to_usize(extent.len_bytes).unwrap()];
                let file = image.file(place.file).unwrap_or_else(|| panic!("{what}: no file"));
                file.read_exact_at(&mut found, place.host.0)
                    .unwrap_or_else(|e| panic!("{what}: data at {at:#x} is nowhere: {e}"));
                assert!(found == wanted, "{what}: data at {at:#x} is not at {:#x}", place.host.0);
            }
            _ => {}
        }
        at = end;
    }
}
