//! Checking an image's metadata.

use crate::Result;
use core::fmt::Debug;

/// Checking, and where asked, repairing an image's metadata in bounded memory.
pub trait Check: Send + Sync {
    /// Goes over all metadata, reporting each finding as it is made.
    ///
    /// When it repairs, a finding may come twice, first as it was found and then as it was
    /// repaired; the summary counts it once. To be sure of what a repair left, check again.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) when it is to repair an image that was not
    /// opened for that; otherwise when the check cannot be finished. What was reported, and
    /// repaired, until then holds.
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary>;
}

/// What a check may repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: only report.
    Nothing,
    /// Clusters that nobody uses any more.
    Leaks,
    /// Everything that can be.
    All,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub kind: FindingKind,
    /// A line for people, in the words of the format's reference implementation where it has any.
    pub message: String,
    /// Whether it was repaired.
    pub repaired: bool,
    /// QEMU counts such findings and says nothing of each. A program that stands in for its own
    /// says nothing either.
    pub wordless_in_qemu: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// Space is lost, data is not.
    Leak,
    /// Data is lost or may be.
    Corruption,
    /// Part of the check could not be done.
    CheckError,
    /// Nothing by itself: says what is being done about the others.
    Note,
}

/// The sums of a check. Lengths are in bytes, counts in clusters of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckSummary {
    /// Findings that could not be checked through.
    pub check_errors: u64,
    /// Corruptions that are there still.
    pub corruptions: u64,
    /// Leaked clusters that are there still.
    pub leaks: u64,
    /// Corruptions that were repaired.
    pub corruptions_fixed: u64,
    /// Leaked clusters that were given back.
    pub leaks_fixed: u64,
    /// Guest clusters that the disk has.
    pub total_clusters: u64,
    /// Guest clusters that have space in the image.
    pub allocated_clusters: u64,
    /// Guest clusters whose neighbour lies elsewhere in the file.
    pub fragmented_clusters: u64,
    /// Guest clusters that are stored compressed.
    pub compressed_clusters: u64,
    /// The end of the last used cluster in the file.
    pub image_end_offset: u64,
}
