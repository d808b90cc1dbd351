//! What a format brings.

use core::fmt::Debug;
use core::ops::Range;
use rimg_core::{Extent, Result};

/// A format's table of blocks, and all that hangs on it.
///
/// It is called under the lock of its [`Blocks`](crate::Blocks), one call at a time. It may read
/// tables from its storage; what it changes stays in memory until it is taken by
/// [`take_dirty`](Self::take_dirty). Blocks are counted from 0; ranges are of guest bytes.
pub trait BlockMap: Send + Debug {
    /// The size of the disk in bytes.
    fn size_bytes(&self) -> u64;

    /// The first run of `range`, starting at `range.start`, as this layer sees it; at most as long
    /// as `range`. File offsets are of file 0. A run of data may go on over several blocks where
    /// they follow each other in the file; runs of zeroes and of what lies below should.
    ///
    /// # Errors
    /// What a table or its storage says.
    fn extent(&mut self, range: Range<u64>) -> Result<Extent>;

    /// A place for the whole of `block`, which cannot be written where it is: it has no place, is
    /// encoded, is there in part only, or reads as zeroes whatever its place holds. The place may
    /// be the block's own; otherwise nothing durable refers to it.
    ///
    /// # Errors
    /// When the format has no room for more, or what a table or its storage says.
    fn place(&mut self, block: u64) -> Result<Place>;

    /// The place was not used.
    fn unplace(&mut self, block: u64, place: Place);

    /// From now on the whole of `block` is data at `place`.
    ///
    /// Gives back the place that the block had, if that was another.
    ///
    /// # Errors
    /// What a table or its storage says. [`unplace`](Self::unplace) follows.
    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>>;

    /// From now on `block` reads as zeroes, whatever lies below. It may keep its place.
    ///
    /// # Errors
    /// What a table or its storage says.
    fn set_zero(&mut self, block: u64) -> Result<Zeroed>;

    /// Whether the format has a mark for zeroes that blocks are to get even where nothing lies
    /// below and they are zeroes already, as with QEMU: they stay zeroes when something comes below
    /// later.
    fn marks_zeroes(&self) -> bool {
        false
    }

    /// Makes the tables fit a disk of `size_bytes`, or what the format rounds that up to. Blocks wholly behind its end are let go of;
    /// new ones have no place and read as what lies below, or zeroes.
    ///
    /// # Errors
    /// When the format has no such size, or what a table or its storage says; nothing has changed
    /// then.
    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>>;

    /// The blocks that lie where the tables of a disk of `size_bytes` would have to grow. They are
    /// moved before [`set_size_bytes`](Self::set_size_bytes) is called: [`place`](Self::place) is
    /// asked for another place for each of them, and the one they had comes back by
    /// [`reuse`](Self::reuse).
    ///
    /// # Errors
    /// What a table or its storage says.
    fn in_the_way(&mut self, size_bytes: u64) -> Result<Vec<u64>> {
        let _ = size_bytes;
        Ok(Vec::new())
    }

    /// What has to be durable before anything is changed: a flag that says that the image is in
    /// use. Asked for before the first change after opening, and before the first after an image
    /// was left clean.
    ///
    /// # Errors
    /// What a table or its storage says.
    fn before_changes(&mut self) -> Result<Vec<Stage>> {
        Ok(Vec::new())
    }

    /// Copies of all metadata that changed since it was last taken, in stages: each may refer to
    /// guest data and to what the stages before it wrote. With `closing`, the last stage leaves an
    /// image that was closed properly. A size that grew comes in a stage behind the tables that
    /// hide what lies below the new part.
    ///
    /// # Errors
    /// What a table or its storage says.
    fn take_dirty(&mut self, closing: bool) -> Result<Vec<Stage>>;

    /// What was taken last could not be written, in part or at all: it has to be taken again.
    fn write_failed(&mut self);

    /// Nothing durable refers to `freed` any more, and nobody reads there: it may be handed out.
    fn reuse(&mut self, freed: Freed);

    /// How many bytes of metadata wait to be taken.
    fn dirty_bytes(&self) -> usize;
}

/// Where a block is to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where the block's first byte lies in the file, in bytes.
    pub host: u64,
    /// Whether all of the place is known to read as zeroes: it begins at the end of the file, or
    /// behind it.
    pub is_zeroed: bool,
}

/// A part of the file that nobody needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// Where it starts in the file, in bytes.
    pub host: u64,
    /// How long it is in bytes.
    pub len_bytes: u64,
}

/// Whether a block could be made to read as zeroes by its table alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroed {
    /// It does now. What it occupied, if it does no more.
    Done(Option<Freed>),
    /// The format cannot say so: zeroes have to be written.
    Impossible,
}

/// Metadata that is written together, in any order.
pub type Stage = Vec<Change>;

/// One piece of metadata to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Bytes at an offset of the file.
    Write {
        /// Where.
        at: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// The length of the file in bytes. It becomes shorter only in a flush that follows
    /// [`BlockMap::set_size_bytes`] or a repair; otherwise a smaller length is passed over.
    SetLen(u64),
}

/// A cipher over the sectors of guest data, where a format encrypts what is in the file.
pub trait SectorCipher: Send + Sync + Debug {
    /// The bytes that are encrypted as one; a power of two.
    fn sector_bytes(&self) -> u32;

    /// Encrypts whole sectors in place, the first of which is at guest offset `at`.
    fn encrypt(&self, sectors: &mut [u8], at: u64);

    /// Decrypts whole sectors in place, the first of which is at guest offset `at`.
    fn decrypt(&self, sectors: &mut [u8], at: u64);
}
