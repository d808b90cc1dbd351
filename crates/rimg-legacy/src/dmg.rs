//! Disk images of macOS (UDIF): a trailer, which leads to a property list or a resource fork, which
//! has a table of chunks for each partition.

mod plist;
mod resource;
mod table;
mod trailer;

pub(crate) use table::Table;

use rimg_core::{Match, ProbeWindow};

pub(crate) const FORMAT: &str = "dmg";

/// The trailer says it; but then, any disk may end so.
pub(crate) fn probe(window: &ProbeWindow<'_>) -> Match {
    if trailer::find(window.tail).is_some() { Match::Weak } else { Match::No }
}
