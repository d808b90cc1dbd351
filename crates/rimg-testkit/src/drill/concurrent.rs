//! Many threads at one image.

use super::{Drill, assert_sound};
use crate::Rng;
use crate::storages::{Hook, Hooked, Operation};
use rimg_core::{BlockImage, Storage, num};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What belongs to one thread before the next one's turn comes: no multiple of any block, so that
/// neighbours share blocks and sectors' neighbours.
const STRIPE_BYTES: u64 = 3 * 512;

impl Drill {
    /// `threads` threads write, zero, discard, read and flush at the same time, each in stripes of
    /// its own that share blocks with those of the others. Each always reads what it wrote, and
    /// everything is there when the image is opened again. `rounds` times, on a disk that was
    /// zeroed before, so that blocks are new each time.
    ///
    /// # Panics
    /// When anything else happens.
    pub fn concurrent(&self, threads: u64, rounds: u64) {
        let dir = self.dir();
        let mut model = self.make(&dir);
        let file = dir.file("disk");
        let stuttering: Arc<dyn Storage> =
            Arc::new(Hooked::with_hook(Arc::clone(&file), Stutter::default()));
        dir.put("disk", stuttering);
        let image = self.opened(&dir, true);
        let size = model.size_bytes();
        for round in 0..rounds {
            let start = model.read(0..size);
            let disks: Vec<Vec<u8>> = thread::scope(|scope| {
                let work = |nth| {
                    let (image, disk) = (image.as_ref(), start.clone());
                    scope.spawn(move || one_of_many(image, disk, (nth, threads), round))
                };
                let running: Vec<_> = (0..threads).map(work).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for (nth, disk) in (0..threads).zip(disks) {
                for at in stripes((nth, threads), size) {
                    model.write(&disk[stripe(at, size)], at);
                }
            }
            model.assert_same(image.as_ref(), &format!("round {round}: {self:?}"));
            if round + 1 < rounds {
                image.writer().unwrap().write_zeroes_at(0..size).unwrap();
                model.zero(0..size);
            }
        }
        image.close().unwrap();
        dir.put("disk", file);
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

/// Lets others go first, now and then: what is fast in memory would hardly ever overlap.
#[derive(Debug, Default)]
struct Stutter(AtomicU64);

impl Hook for Stutter {
    fn before(&self, _: &Operation) -> io::Result<()> {
        match Rng::new(self.0.fetch_add(1, Ordering::Relaxed)).below(4) {
            0 => thread::sleep(Duration::from_micros(60)),
            1 | 2 => thread::yield_now(),
            _ => {}
        }
        Ok(())
    }
}

/// What one thread does, to the image and to the disk as it knows it: all go through the disk side
/// by side, so that they meet in the same blocks.
fn one_of_many(image: &dyn BlockImage, disk: Vec<u8>, who: (u64, u64), round: u64) -> Vec<u8> {
    let mut disk = disk;
    let size = num::to_u64(disk.len());
    let writer = image.writer().unwrap();
    let mut rng = Rng::new(who.0 + 1000 * round);
    for at in stripes(who, size) {
        let piece = stripe(at, size);
        let end = num::to_u64(piece.end);
        match rng.below(16) {
            0..=9 => {
                rng.fill(&mut disk[piece.clone()]);
                writer.write_at(&disk[piece], at).unwrap();
            }
            10 | 11 => {
                writer.write_zeroes_at(at..end).unwrap();
                disk[piece].fill(0);
            }
            12 => {
                writer.discard_at(at..end).unwrap();
                image.read_at(&mut disk[piece], at).unwrap();
            }
            13 if rng.one_in(4) => writer.flush().unwrap(),
            _ => {}
        }
        // One of the stripes that it has passed, or is to come to.
        let nth = rng.below(size / STRIPE_BYTES / who.1 + 1);
        if let Some(at) = stripes(who, size).nth(usize::try_from(nth).unwrap()) {
            let piece = stripe(at, size);
            let mut found = vec![0xA5; piece.len()];
            image.read_at(&mut found, at).unwrap();
            assert!(found == disk[piece], "thread {who:?}, round {round}: lost at {at:#x}");
        }
    }
    disk
}
