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
