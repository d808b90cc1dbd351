//! Images by name: what a name means, opening, creating. The library's errors get qemu-img's
//! words here.

mod attach;
mod blkdebug;
mod create;
mod name;
mod nbd;
mod node;
mod open;
mod protocol;
mod quorum;
mod shown;

pub(crate) use create::{
    BACKING_FOR_SEVERAL, NewImage, PLAIN_FILE, TargetWishes, creatable_format, guard, plan_target,
    require_compression,
};
pub(crate) use name::{ImageName, combine, is_relative};
pub(crate) use open::{
    How, Opened, Reason, identity, image_cache, open, open_or_reason, source_cache, target_cache,
};

use rimg::{FORMATS, FormatInfo, backing_driver, driver};
use std::path::Path;

/// What there is to know of the format with this name.
pub(crate) fn format(name: &str) -> Option<&'static FormatInfo> {
    driver(FORMATS, name).map(|driver| driver.format())
}

/// Whether there is such a format for an image below another.
pub(crate) fn is_backing_format(name: &str) -> bool {
    backing_driver(FORMATS, name).is_some()
}

/// The names of all formats.
pub(crate) fn format_names() -> Vec<&'static str> {
    FORMATS.iter().map(|driver| driver.format().name).collect()
}

/// The name of a local file as it is shown.
pub(crate) fn path_name(path: &Path) -> String {
    shown::node_name(&node::Node::of_path(path))
}
