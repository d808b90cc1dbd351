//! The footer, its copy, and the header of disks that grow: bytes to checked types and back.

mod dynamic;
mod footer;
mod locator;

pub(crate) use dynamic::{DynamicHeader, layout_offset};
pub(crate) use footer::{DiskType, Footer};
pub(crate) use locator::Locator;

/// The complement of the sum of all bytes but those of the checksum itself, which start at `at`.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let own = at..at.saturating_add(4);
    let others = bytes.iter().enumerate().filter(|(nth, _)| !own.contains(nth));
    !others.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}
