//! How large an image would become, without making it.

use crate::BitmapInfo;
use core::ops::Range;

/// Adds up how large the file of an image that does not exist would be. Comes from
/// [`FormatDriver::measure`](crate::FormatDriver::measure) and is told what the image would hold.
pub trait Measure: Send {
    /// The guest bytes of `range` will hold data. Ranges come in ascending order and do not
    /// overlap; what lies between them takes no space. (Zeroes do, where they have to hide what an
    /// image below holds.)
    fn add_data(&mut self, range: Range<u64>);

    /// The sizes for what was added so far.
    fn measured(&self) -> Measured;

    /// How many bytes persistent bitmaps would take beside that, with every bit set; `None` where
    /// the image could have none.
    fn bitmaps_bytes(&self, bitmaps: &[BitmapInfo]) -> Option<u64> {
        let _ = bitmaps;
        None
    }
}

/// Counts the units of a disk (clusters, blocks, grains, what one table maps) that data lies in,
/// each once.
/// ```
/// let mut blocks = rimg_core::UnitCount::new(4096);
/// blocks.add(0..1);
/// blocks.add(4095..8193);
/// assert_eq!(blocks.count(), 3);
/// ```
#[derive(Debug, Clone)]
pub struct UnitCount {
    unit_bytes: u64,
    count: u64,
    /// The first unit that was not counted yet.
    next: u64,
}

impl UnitCount {
    /// Of units of `unit_bytes`, 0 of which count nothing.
    #[must_use]
    pub const fn new(unit_bytes: u64) -> Self {
        Self { unit_bytes, count: 0, next: 0 }
    }

    /// There is data in `range`, in bytes. Ranges come in ascending order, as with
    /// [`Measure::add_data`].
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() || self.unit_bytes == 0 {
            return;
        }
        let end = range.end.div_ceil(self.unit_bytes);
        let start = (range.start / self.unit_bytes).max(self.next);
        self.count = self.count.saturating_add(end.saturating_sub(start));
        self.next = self.next.max(end);
    }

    /// How many there are so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}

/// The sizes of an image's file in bytes: room to be set aside for it.
///
/// They are what qemu-img reports, and bounds: tables are counted as if they all were in use. An
/// image that uses each of its tables becomes exactly as large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// For the data that was added.
    pub required_bytes: u64,
    /// When every byte of the disk has been written once.
    pub fully_allocated_bytes: u64,
}
