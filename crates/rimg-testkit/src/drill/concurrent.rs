//! Many threads at one image.

use super::{Drill, assert_sound};
use crate::Rng;
use rimg_core::{BlockImage, num};
use std::thread;

/// What belongs to one thread before the next one's turn comes: no multiple of any block, so that
/// neighbours share blocks and sectors' neighbours.
const STRIPE_BYTES: u64 = 3 * 512;

impl Drill {
    /// `threads` threads write, zero, discard, read and flush at the same time, each in stripes of
    /// its own that share blocks with those of the others. Each always reads what it wrote, and
    /// everything is there when the image is opened again.
    ///
    /// # Panics
    /// When anything else happens.
    pub fn concurrent(&self, threads: u64, steps: u64) {
        let dir = self.dir();
        let mut model = self.make(&dir);
        let start = model.read(0..model.size_bytes());
        let image = self.opened(&dir, true);
        let disks: Vec<Vec<u8>> = thread::scope(|scope| {
            let work = |nth| {
                let (image, disk) = (image.as_ref(), start.clone());
                scope.spawn(move || one_of_many(image, disk, (nth, threads), steps))
            };
            let running: Vec<_> = (0..threads).map(work).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (nth, disk) in (0..threads).zip(disks) {
            for at in stripes((nth, threads), model.size_bytes()) {
                let piece = stripe(at, model.size_bytes());
                model.write(&disk[piece], at);
            }
        }
        model.assert_same(image.as_ref(), &format!("after all: {self:?}"));
        image.close().unwrap();
        let image = self.opened(&dir, false);
        model.assert_same(image.as_ref(), &format!("opened again: {self:?}"));
        assert_sound(image.as_ref(), &format!("{self:?}"));
    }
}

fn stripes((nth, threads): (u64, u64), size: u64) -> impl Iterator<Item = u64> {
    (0..size.div_ceil(STRIPE_BYTES))
        .filter(move |stripe| stripe % threads == nth)
        .map(|stripe| stripe * STRIPE_BYTES)
}

fn stripe(at: u64, size: u64) -> std::ops::Range<usize> {
    let end = (at + STRIPE_BYTES).min(size);
    num::to_usize(at).unwrap()..num::to_usize(end).unwrap()
}

/// What one thread does, to the image and to the disk as it knows it.
fn one_of_many(image: &dyn BlockImage, disk: Vec<u8>, who: (u64, u64), steps: u64) -> Vec<u8> {
    let mut disk = disk;
    let size = num::to_u64(disk.len());
    let own: Vec<u64> = stripes(who, size).collect();
    let writer = image.writer().unwrap();
    let mut rng = Rng::new(who.0);
    for step in 0..steps {
        let Some(count) = std::num::NonZeroU64::new(num::to_u64(own.len())) else { break };
        let at = own[usize::try_from(rng.below(count.get())).unwrap()];
        let piece = stripe(at, size);
        let end = num::to_u64(piece.end);
        match rng.below(10) {
            0..=4 => {
                rng.fill(&mut disk[piece.clone()]);
                writer.write_at(&disk[piece], at).unwrap();
            }
            5 | 6 => {
                writer.write_zeroes_at(at..end).unwrap();
                disk[piece].fill(0);
            }
            7 if step % 50 == 0 => writer.flush().unwrap(),
            7 => {
                writer.discard_at(at..end).unwrap();
                image.read_at(&mut disk[piece], at).unwrap();
            }
            _ => {
                let mut found = vec![0xA5; piece.len()];
                image.read_at(&mut found, at).unwrap();
                assert!(found == disk[piece], "thread {who:?}, step {step}: lost at {at:#x}");
            }
        }
    }
    disk
}
