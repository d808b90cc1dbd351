//! Disk images of macOS (UDIF): a trailer, which leads to a property list or a resource fork, which
//! has a table of chunks for each partition.

mod plist;
mod resource;
mod table;
mod trailer;

pub(crate) use table::Table;

use rimg_core::{Match, ProbeWindow};

pub(crate) const FORMAT: &str = "dmg";

/// The name says it, as for QEMU: the trailer does not, since any disk may end so.
pub(crate) fn probe(window: &ProbeWindow<'_>) -> Match {
    let is_named_so = window.name.is_some_and(|name| name.ends_with(".dmg"));
    if is_named_so { Match::Weak } else { Match::No }
}
