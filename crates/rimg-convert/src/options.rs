//! What a conversion may be told.

use core::num::{NonZeroU64, NonZeroUsize};
use std::thread;

/// How to convert. `Default` is what `qemu-img convert` does without options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// How many threads work, the calling one included; `None` for one per available core.
    /// The target's bytes do not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// How many units of work may be held in memory (`-m`); `None` for one per thread, and
    /// one more where a single thread writes at a time. Never fewer than one is used.
    pub units_in_flight: Option<NonZeroUsize>,
    /// The length and alignment in bytes of the zero runs that are looked for in data (`-S`).
    /// 0 looks for none, and writes even what the source knows to be zero: the target is fully
    /// allocated. Lengths above 1 MiB count as that.
    pub sparse_bytes: u32,
    /// Encode the target's clusters (`-c`).
    pub compress: bool,
    /// The target has a backing image whose contents are the source's own backing's (`-B`).
    pub backing: Option<TargetBacking>,
    /// The target was made for this conversion, so nobody misses it if it gets lost on the way,
    /// and what it says of its initial contents still holds.
    pub target_is_new: bool,
    /// The whole target is known to read as zeroes (`--target-is-zero`).
    pub target_is_zero: bool,
    /// Data that cannot be read becomes zeroes, with a [`Warning`](crate::Warning) for each sector
    /// (`--salvage`).
    pub salvage: bool,
    /// Let the kernel move data where it can (`-C`). Data is then taken as it is: no zero runs are
    /// looked for in it.
    pub copy_offload: bool,
    /// No more than so many bytes are written in a second (`-r`).
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            threads: None,
            units_in_flight: None,
            sparse_bytes: 4096,
            compress: false,
            backing: None,
            target_is_new: false,
            target_is_zero: false,
            salvage: false,
            copy_offload: false,
            bytes_per_second: None,
        }
    }
}

/// What a target's backing image is to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetBacking {
    /// How many layers of the source lie above the one whose contents the target's backing image
    /// has: 1 when it is the source's own backing image, as `qemu-img convert -B` takes for granted.
    pub layers_above: usize,
    /// The size of the target's backing image in bytes: the target reads as zeroes behind it.
    pub size_bytes: u64,
}

/// How many threads work where nobody says.
pub(crate) fn threads(wanted: Option<NonZeroUsize>) -> usize {
    wanted.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        NonZeroUsize::get,
    )
}
