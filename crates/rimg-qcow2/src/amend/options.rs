//! What an image can be brought to.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::RefcountOrder;
use crate::header::{Extension, Header};
use crate::snapshot::SnapshotEntry;
use crate::spec;
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result};

const fn option(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, help, default: None }
}

/// In the order of their help.
pub(crate) const SPECS: &[OptionSpec] = &[
    option("backing_file", OptionKind::Text, "File name of a base image"),
    option("backing_fmt", OptionKind::Text, "Image format of the base image"),
    option("compat", OptionKind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    option("data_file", OptionKind::Text, "File name of an external data file"),
    option(
        "data_file_raw",
        OptionKind::Bool,
        "The external data file must stay valid as a raw image",
    ),
    option("encrypt.iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
    option("encrypt.keyslot", OptionKind::Number, "Select a single keyslot to modify explicitly"),
    option(
        "encrypt.new-secret",
        OptionKind::Text,
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    option("encrypt.old-secret", OptionKind::Text, "Select all keyslots that match this password"),
    option(
        "encrypt.state",
        OptionKind::Text,
        "Select new state of affected keyslots (active/inactive)",
    ),
    option("lazy_refcounts", OptionKind::Bool, "Postpone refcount updates"),
    option("refcount_bits", OptionKind::Number, "Width of a reference count entry in bits"),
    option("size", OptionKind::Size, "Virtual disk size"),
];

/// What the image is to be; every change is possible, unless snapshots prevent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AmendOptions {
    pub(super) version: u32,
    pub(super) refcount: RefcountOrder,
    pub(super) size_bytes: u64,
    lazy_refcounts: bool,
    /// `None` leaves it as it is; an empty name takes it away.
    data_file: Option<String>,
    data_file_raw: bool,
}

impl AmendOptions {
    /// Reads the options and refuses what this image cannot become, in the words of `qemu-img
    /// amend`.
    pub(super) fn parse(raw: &RawOptions, header: &Header) -> Result<Self> {
        let version = match raw.value("compat") {
            None => header.version,
            Some("0.10" | "v2") => 2,
            Some("1.1" | "v3") => 3,
            Some(other) => {
                return refuse("compat", format!("Unknown compatibility level {other}"));
            }
        };
        let lazy = is_on(raw, "lazy_refcounts")?;
        let refcount = refcount(raw, header)?;
        check_backing(raw, header)?;
        check_data_file(raw, header)?;
        if version < 3 && lazy == Some(true) {
            return refuse(
                "lazy_refcounts",
                "Lazy refcounts only supported with compatibility level 1.1 and above (use \
                 compat=1.1 or greater)",
            );
        }
        if version < 3 && refcount.bits() != 16 {
            if refcount == header.geometry.refcount {
                return refuse("compat", "compat=0.10 requires refcount_bits=16");
            }
            return refuse(
                "refcount_bits",
                "Refcount widths other than 16 bits require compatibility level 1.1 or above \
                 (use compat=1.1 or greater)",
            );
        }
        let size_bytes = match raw.value("size").map(str::parse) {
            None | Some(Ok(0)) => header.size_bytes,
            Some(Ok(size)) => size,
            Some(Err(_)) => return refuse("size", "Parameter 'size' expects a size"),
        };
        // The image has the newer version while it is resized.
        check_size(size_bytes, version.max(header.version), header)?;
        if version < header.version {
            check_downgrade(header)?;
        }
        let was_lazy = header.compatible & spec::compatible::LAZY_REFCOUNTS != 0;
        let was_raw = header.autoclear & spec::autoclear::DATA_FILE_RAW != 0;
        Ok(Self {
            version,
            refcount,
            size_bytes,
            lazy_refcounts: version >= 3 && lazy.unwrap_or(was_lazy),
            data_file: raw.value("data_file").map(str::to_owned),
            data_file_raw: is_on(raw, "data_file_raw")?.unwrap_or(was_raw),
        })
    }

    /// Whether the image is all that already.
    pub(super) fn is_nothing(&self, header: &Header) -> bool {
        self.version == header.version
            && self.refcount == header.geometry.refcount
            && self.size_bytes == header.size_bytes
            && !self.changes_header(header)
    }

    /// Whether flags or names change.
    pub(super) fn changes_header(&self, header: &Header) -> bool {
        let mut changed = header.clone();
        self.apply_to(&mut changed);
        changed != *header
    }

    /// Sets flags and names.
    pub(super) fn apply_to(&self, header: &mut Header) {
        set(&mut header.compatible, spec::compatible::LAZY_REFCOUNTS, self.lazy_refcounts);
        set(&mut header.autoclear, spec::autoclear::DATA_FILE_RAW, self.data_file_raw);
        let Some(name) = &self.data_file else { return };
        let place =
            header.extensions.iter().position(|known| matches!(known, Extension::DataFileName(_)));
        header.extensions.retain(|known| !matches!(known, Extension::DataFileName(_)));
        if !name.is_empty() {
            let place = place.unwrap_or(0).min(header.extensions.len());
            header.extensions.insert(place, Extension::DataFileName(name.clone()));
        }
    }
}

fn set(bits: &mut u64, bit: u64, on: bool) {
    if on { *bits |= bit } else { *bits &= !bit }
}

fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

fn is_on(raw: &RawOptions, name: &'static str) -> Result<Option<bool>> {
    match raw.value(name) {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(_) => refuse(name, format!("Parameter '{name}' expects 'on' or 'off'")),
    }
}

fn refcount(raw: &RawOptions, header: &Header) -> Result<RefcountOrder> {
    let Some(text) = raw.value("refcount_bits") else { return Ok(header.geometry.refcount) };
    let Ok(bits) = text.parse::<u64>() else {
        return refuse("refcount_bits", "Parameter 'refcount_bits' expects a number");
    };
    match RefcountOrder::new(bits.trailing_zeros()) {
        Ok(order) if u64::from(order.bits()) == bits => Ok(order),
        _ => refuse(
            "refcount_bits",
            "Refcount width must be a power of two and may not exceed 64 bits",
        ),
    }
}

/// What lies below is changed by rebasing, which knows what to do about the contents.
fn check_backing(raw: &RawOptions, header: &Header) -> Result<()> {
    let (name, format) = (raw.value("backing_file"), raw.value("backing_fmt"));
    let same = name == header.backing_name.as_deref() && format == header.backing_format();
    if (name.is_some() || format.is_some()) && !same {
        return refuse(
            "backing_file",
            "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.",
        );
    }
    Ok(())
}

fn check_data_file(raw: &RawOptions, header: &Header) -> Result<()> {
    if raw.value("data_file").is_some() && !header.has(spec::incompatible::DATA_FILE) {
        return refuse(
            "data_file",
            "data-file can only be set for images that use an external data file",
        );
    }
    let is_raw = header.autoclear & spec::autoclear::DATA_FILE_RAW != 0;
    if is_on(raw, "data_file_raw")? == Some(true) && !is_raw {
        return refuse("data_file_raw", "data-file-raw cannot be set on existing images");
    }
    Ok(())
}

fn check_size(size_bytes: u64, version: u32, header: &Header) -> Result<()> {
    if !size_bytes.is_multiple_of(spec::SECTOR_BYTES) {
        return refuse("size", "The new size must be a multiple of 512");
    }
    if size_bytes != header.size_bytes && version < 3 && header.snapshot_count > 0 {
        return refuse("size", "Can't resize a v2 image which has snapshots");
    }
    Ok(())
}

/// What version 2 has no way to say, and is refused before anything is changed.
fn check_downgrade(header: &Header) -> Result<()> {
    if header.has(spec::incompatible::DATA_FILE) {
        return refuse("compat", "Cannot downgrade an image with a data file");
    }
    Ok(())
}

/// Features that version 2 has no way to say. Whether clusters are compressed with zstd is looked
/// at apart.
pub(super) fn check_features(header: &Header) -> Result<()> {
    let known = spec::incompatible::DIRTY | spec::incompatible::COMPRESSION_TYPE;
    let rest = header.incompatible & !known;
    if rest != 0 {
        return refuse(
            "compat",
            format!("Cannot downgrade an image with incompatible features {rest:#x} set"),
        );
    }
    Ok(())
}

/// Version 2 cannot say of a snapshot that its disk had another size. Looked at when the image has
/// the size that it is to have: as with QEMU, a change of size that came with the wish stays.
pub(super) fn check_snapshots(snapshots: &[SnapshotEntry], size_bytes: u64) -> Result<()> {
    let fits = |entry: &SnapshotEntry| {
        entry.info.disk_size_bytes == size_bytes && u32::try_from(entry.info.vm_state_bytes).is_ok()
    };
    if !snapshots.iter().all(fits) {
        return refuse("compat", "Internal snapshots prevent downgrade of image");
    }
    Ok(())
}
