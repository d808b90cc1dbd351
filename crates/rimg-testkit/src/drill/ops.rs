//! Random changes to an image, and to the disk that it should be.

use crate::{ModelDisk, Rng};
use core::ops::Range;
use rimg_core::{BlockImage, Preallocation};

/// A change to an image. Positions are cut to what is there when it is made.
#[derive(Debug, Clone)]
pub enum Op {
    /// Random bytes of this seed are written.
    Write {
        /// Where.
        at: u64,
        /// How many.
        len: u64,
        /// Which.
        seed: u64,
    },
    /// A range is zeroed.
    Zero {
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// A range is discarded.
    Discard {
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// A cluster is written encoded, where the format has such.
    Compressed {
        /// Which cluster.
        cluster: u64,
        /// What it is filled with.
        seed: u64,
    },
    /// The disk is made this long, where the format can.
    Resize {
        /// In bytes.
        size: u64,
    },
    /// Everything is made durable.
    Flush,
    /// The image is closed and opened again: the caller's to do.
    Reopen,
}

impl Op {
    /// A random change of a disk of `size` bytes, whose sizes are multiples of `step`.
    #[must_use]
    pub fn random(rng: &mut Rng, size: u64, step: u64) -> Self {
        let at = rng.below(size + size / 4 + 1);
        let longest = if rng.one_in(3) { size / 2 + 1 } else { 6000 };
        let len = 1 + rng.below(longest.min(600_000));
        match rng.below(40) {
            0..=17 => Self::Write { at, len, seed: rng.next_u64() },
            18..=23 => Self::Zero { at, len },
            24..=28 => Self::Discard { at, len },
            29..=31 => Self::Compressed { cluster: rng.next_u64() >> 32, seed: rng.next_u64() },
            32 | 33 => Self::Resize { size: rng.below(2 * size / step + 2) * step },
            34..=36 => Self::Flush,
            _ => Self::Reopen,
        }
    }

    /// The same with whole sectors of 512 bytes: disks write them whole, so that of two writes to
    /// one sector the second takes the first along.
    #[must_use]
    pub fn in_sectors(self) -> Self {
        let round = |at: u64, len: u64| (at / 512 * 512, len.next_multiple_of(512));
        match self {
            Self::Write { at, len, seed } => {
                let (at, len) = round(at, len);
                Self::Write { at, len, seed }
            }
            Self::Zero { at, len } => {
                let (at, len) = round(at, len);
                Self::Zero { at, len }
            }
            other => other,
        }
    }
}

/// Makes a change to both an image and the disk that it should be.
///
/// # Panics
/// When it fails, with `what`.
#[track_caller]
pub fn apply(op: &Op, image: &dyn BlockImage, model: &mut ModelDisk, what: &str) {
    if let Err(error) = perform(op, image, model.size_bytes()) {
        panic!("{what}: {op:?}: {error:?}");
    }
    follow(op, image, model);
}

fn cut(size: u64, at: u64, len: u64) -> Range<u64> {
    let at = if size == 0 { 0 } else { at % size };
    at..(at + len).min(size)
}

/// Makes a change to an image whose disk has `size` bytes. Compressed writes and changes of size
/// are passed over where the format has none.
pub(super) fn perform(op: &Op, image: &dyn BlockImage, size: u64) -> rimg_core::Result<()> {
    let writer = image.writer().expect("opened for writing");
    match op {
        Op::Write { at, len, seed } => {
            let range = cut(size, *at, *len);
            writer.write_at(&random_bytes(*seed, &range), range.start)
        }
        Op::Zero { at, len } => writer.write_zeroes_at(cut(size, *at, *len)),
        Op::Discard { at, len } => writer.discard_at(cut(size, *at, *len)),
        Op::Compressed { cluster, seed } => {
            let Some(compressor) = image.compressor() else { return Ok(()) };
            let cluster_bytes = compressor.cluster_bytes();
            let Some(range) = cluster_range(size, *cluster, cluster_bytes) else { return Ok(()) };
            compressor.write_compressed_at(&cluster_data(*seed, &range), range.start)
        }
        Op::Resize { size: new } => {
            let Some(resizer) = image.resizer() else { return Ok(()) };
            resizer.resize(*new, Preallocation::Off)?;
            if resizer.grows_by_zeroes() || *new <= size {
                return Ok(());
            }
            writer.write_zeroes_at(size..*new)
        }
        Op::Flush => writer.flush(),
        Op::Reopen => Ok(()),
    }
}

/// Makes a change that an image has gone through to the disk that it should be.
#[track_caller]
pub(super) fn follow(op: &Op, image: &dyn BlockImage, model: &mut ModelDisk) {
    let size = model.size_bytes();
    match op {
        Op::Write { at, len, seed } => {
            let range = cut(size, *at, *len);
            model.write(&random_bytes(*seed, &range), range.start);
        }
        Op::Zero { at, len } => model.zero(cut(size, *at, *len)),
        Op::Discard { at, len } => adopt_discard(image, model, cut(size, *at, *len)),
        Op::Compressed { cluster, seed } => {
            let Some(compressor) = image.compressor() else { return };
            let cluster_bytes = compressor.cluster_bytes();
            if let Some(range) = cluster_range(size, *cluster, cluster_bytes) {
                model.write(&cluster_data(*seed, &range), range.start);
            }
        }
        Op::Resize { size } => {
            if image.resizer().is_some() {
                model.resize(*size);
            }
        }
        Op::Flush | Op::Reopen => {}
    }
}

fn random_bytes(seed: u64, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

fn cluster_range(size: u64, cluster: u64, cluster_bytes: u32) -> Option<Range<u64>> {
    let cluster_bytes = u64::from(cluster_bytes);
    let nth = cluster.checked_rem(size.div_ceil(cluster_bytes))?;
    Some(cut(size, nth * cluster_bytes, cluster_bytes))
}

/// Mostly zeroes: compresses, but is not the same everywhere.
fn cluster_data(seed: u64, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    for place in bytes.iter_mut().step_by(17) {
        *place = seed.to_le_bytes()[0];
    }
    bytes
}

/// Discarded bytes are zeroes or as before, and stay what they are.
#[track_caller]
fn adopt_discard(image: &dyn BlockImage, model: &mut ModelDisk, range: Range<u64>) {
    let before = model.read(range.clone());
    let mut after = vec![0; before.len()];
    image.read_at(&mut after, range.start).unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert!(*after == 0 || after == before, "a discard brought up other bytes");
    }
    model.write(&after, range.start);
}
