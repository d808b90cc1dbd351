//! Creation options.

use crate::address::{BlockBits, SectorSize};
use crate::error::FORMAT;
use crate::header::Guid;
use crate::spec::{GIB, MIB, TIB};
use crate::{header, spec};
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result, num};

/// In the order in which `qemu-img create` prints them.
pub(crate) const SPECS: &[OptionSpec] = &[
    OptionSpec {
        name: "size",
        kind: OptionKind::Size,
        help: "Virtual disk size; max of 64TB.",
        default: None,
    },
    OptionSpec {
        name: "log_size",
        kind: OptionKind::Size,
        help: "Log size; min 1MB.",
        default: Some("1048576"),
    },
    OptionSpec {
        name: "block_size",
        kind: OptionKind::Size,
        help: "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
        default: Some("0"),
    },
    OptionSpec {
        name: "subformat",
        kind: OptionKind::Text,
        help: "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.",
        default: None,
    },
    OptionSpec {
        name: "block_state_zero",
        kind: OptionKind::Bool,
        help: "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not \
               set to 'off' when using 'qemu-img convert' with subformat=dynamic.",
        default: None,
    },
];

/// What only rimg has.
pub(crate) const EXTRA_SPECS: &[OptionSpec] = &[
    OptionSpec {
        name: "backing_file",
        kind: OptionKind::Text,
        help: "Name of the parent of a differencing image",
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        kind: OptionKind::Text,
        help: "Format of the parent: vhdx",
        default: None,
    },
    OptionSpec {
        name: "logical_sector_size",
        kind: OptionKind::Size,
        help: "Sector size that the guest sees, 512 or 4096. Default is 512.",
        default: None,
    },
    OptionSpec {
        name: "physical_sector_size",
        kind: OptionKind::Size,
        help: "Sector size that the guest is told of the medium, 512 or 4096.",
        default: None,
    },
    OptionSpec {
        name: "uuid",
        kind: OptionKind::Text,
        help: "Identifier of the disk. Derived from the other options unless given.",
        default: None,
    },
];

/// Options that the file below an image has, not the format; they may be among ours.
const PROTOCOL_OPTIONS: &[&str] = &["nocow", "extent_size_hint", "preallocation"];

/// What a new image is to be like; every combination is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    /// A multiple of the sector size.
    pub(crate) size_bytes: u64,
    /// A multiple of 1 MiB.
    pub(crate) log_bytes: u64,
    pub(crate) block: BlockBits,
    pub(crate) is_fixed: bool,
    /// Blocks are said to be zeroes; otherwise nothing is said of those of dynamic images, and
    /// those of fixed ones are there.
    pub(crate) zero_blocks: bool,
    pub(crate) logical_sector: SectorSize,
    pub(crate) physical_sector: SectorSize,
    pub(crate) disk_id: Option<Guid>,
    /// The parent's name; such an image is dynamic.
    pub(crate) parent: Option<String>,
}

impl CreateOptions {
    /// Reads the options for an image of `size_bytes` and refuses what cannot be, in the order and
    /// the words of `qemu-img create`.
    pub(crate) fn parse(size_bytes: u64, raw: &RawOptions) -> Result<Self> {
        refuse_unknown(raw)?;
        let is_fixed = match raw.value("subformat") {
            None | Some("dynamic") => false,
            Some("fixed") => true,
            Some(other) => {
                let reason = format!("Parameter 'subformat' does not accept value '{other}'");
                return refuse("subformat", reason);
            }
        };
        let zero_blocks = match raw.value("block_state_zero") {
            // A fixed disk is to have its space: QEMU reserves it, and then puts what is written
            // elsewhere.
            None => !is_fixed,
            Some("on") => true,
            Some("off") => false,
            Some(_) => {
                let reason = "Parameter 'block_state_zero' expects 'on' or 'off'";
                return refuse("block_state_zero", reason);
            }
        };
        if size_bytes > spec::MAX_DISK_BYTES {
            return refuse("size", "Image size too large; max of 64TB");
        }
        let log_bytes = log_bytes(size(raw, "log_size")?)?;
        let parent = parent(raw, is_fixed)?;
        // Blocks are copied up whole, so those of children are smaller.
        let auto = block_for(size_bytes) / if parent.is_some() { 4 } else { 1 };
        let block = block(size(raw, "block_size")?, auto)?;
        let logical_sector = sector(raw, "logical_sector_size")?.unwrap_or(SectorSize::Of512);
        let physical_sector = sector(raw, "physical_sector_size")?.unwrap_or(logical_sector);
        let disk_id = match raw.value("uuid") {
            None => None,
            Some(text) => match Guid::parse(text) {
                Some(guid) => Some(guid),
                None => return refuse("uuid", format!("'{text}' is no UUID")),
            },
        };
        let sector_bytes = u64::from(logical_sector.bytes());
        Ok(Self {
            // Below 64 TiB, which is a multiple itself.
            size_bytes: num::align_up(size_bytes, sector_bytes).unwrap_or(size_bytes),
            log_bytes,
            block,
            is_fixed,
            // Blocks of children have to let the parent through.
            zero_blocks: zero_blocks && parent.is_none(),
            logical_sector,
            physical_sector,
            disk_id,
            parent,
        })
    }

    /// Bytes that tell apart what these options are not alike in, to derive identifiers from.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        let flags = u64::from(self.is_fixed) << 1 | u64::from(self.zero_blocks);
        let numbers = [
            self.size_bytes,
            self.log_bytes,
            self.block.bytes(),
            self.logical_sector.bytes().into(),
            self.physical_sector.bytes().into(),
            flags,
        ];
        let disk_id = self.disk_id.unwrap_or(header::Guid::ZERO).to_le_bytes();
        numbers.iter().flat_map(|n| n.to_le_bytes()).chain(disk_id).collect()
    }
}

fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

fn refuse_unknown(raw: &RawOptions) -> Result<()> {
    let known = |name| {
        SPECS.iter().chain(EXTRA_SPECS).any(|spec| spec.name == name)
            || PROTOCOL_OPTIONS.contains(&name)
    };
    match raw.iter().find(|(name, _)| !known(name)) {
        Some((name, _)) => refuse("options", format!("Invalid parameter '{name}'")),
        None => Ok(()),
    }
}

fn size(raw: &RawOptions, name: &'static str) -> Result<Option<u64>> {
    match raw.value(name).map(str::parse) {
        None => Ok(None),
        Some(Ok(bytes)) => Ok(Some(bytes)),
        Some(Err(_)) => refuse(
            name,
            format!(
                "Parameter '{name}' expects a non-negative number below 2^64\n\
                 Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                 and exabytes, respectively."
            ),
        ),
    }
}

fn parent(raw: &RawOptions, is_fixed: bool) -> Result<Option<String>> {
    let Some(name) = raw.value("backing_file") else { return Ok(None) };
    if raw.value("backing_fmt").is_some_and(|format| format != FORMAT) {
        return refuse("backing_fmt", "The parent of a vhdx image has to be one, too");
    }
    if is_fixed {
        return refuse("subformat", "An image with a parent cannot be fixed");
    }
    // In the image they part folders.
    if name.contains('\\') {
        return refuse("backing_file", "The name of a parent cannot have backslashes");
    }
    Ok(Some(name.to_owned()))
}

/// Rounded up to whole megabytes.
fn log_bytes(given: Option<u64>) -> Result<u64> {
    match num::align_up(given.unwrap_or(MIB), MIB) {
        Some(0) => refuse("log_size", "Log size must be a multiple of 1 MB"),
        Some(bytes) if bytes < 4 * GIB => Ok(bytes),
        _ => refuse("log_size", "Log size must be smaller than 4 GB"),
    }
}

/// Rounded up to whole megabytes, of which there may be 256.
fn block(given: Option<u64>, auto: u64) -> Result<BlockBits> {
    let bytes = match given {
        None | Some(0) => auto,
        Some(bytes) => num::align_up(bytes, MIB).unwrap_or(u64::MAX),
    };
    let bytes = bytes.min(1 << spec::MAX_BLOCK_BITS);
    match BlockBits::of_bytes(u32::try_from(bytes).unwrap_or_default()) {
        Ok(block) => Ok(block),
        Err(_) => refuse("block_size", "Block size must be a power of two"),
    }
}

/// The block size that qemu-img chooses for a disk.
fn block_for(size_bytes: u64) -> u64 {
    MIB * match size_bytes {
        0..=GIB => 8,
        size if size <= 100 * GIB => 16,
        size if size <= 32 * TIB => 32,
        _ => 64,
    }
}

fn sector(raw: &RawOptions, name: &'static str) -> Result<Option<SectorSize>> {
    let Some(bytes) = size(raw, name)? else { return Ok(None) };
    match SectorSize::of_bytes(u32::try_from(bytes).unwrap_or_default()) {
        Ok(sector) => Ok(Some(sector)),
        Err(_) => refuse(name, format!("Parameter '{name}' does not accept value '{bytes}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(size: u64, options: &[(&str, &str)]) -> Result<CreateOptions> {
        let mut raw = RawOptions::new();
        for (name, value) in options {
            raw.set(*name, *value);
        }
        CreateOptions::parse(size, &raw)
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let defaults: Vec<_> =
            SPECS.iter().filter_map(|spec| Some((spec.name, spec.default?))).collect();
        assert_eq!(parse(1, &defaults).unwrap(), parse(512, &[]).unwrap());
    }

    #[test]
    fn block_and_log_sizes_are_those_of_qemu_img() {
        for (size, given, block) in [
            (1, "0", 8),
            (1 << 30, "0", 8),
            ((1 << 30) + 1, "0", 16),
            (100 << 30, "0", 16),
            (101 << 30, "0", 32),
            (32 << 40, "0", 32),
            (33000 << 30, "0", 64),
            (64 << 40, "0", 64),
            (1, "1", 1),
            (1, "1572864", 2),
            (1, "269484032", 256),
            (1, "18446744073709551615", 256),
        ] {
            let options = parse(size, &[("block_size", given)]).unwrap();
            assert_eq!(options.block.bytes(), block << 20, "{size} {given}");
        }
        for (given, log) in [("1", 1), ("1048577", 2), ("4293918720", 4095)] {
            assert_eq!(parse(1, &[("log_size", given)]).unwrap().log_bytes, log << 20, "{given}");
        }
    }

    #[test]
    fn the_first_thing_wrong_is_named() {
        let wrong = |size, options: &[(&str, &str)]| match parse(size, options) {
            Err(Error::InvalidOption { reason, .. }) => reason,
            other => panic!("{options:?}: {other:?}"),
        };
        let large = "Image size too large; max of 64TB";
        let block = ("block_size", "3145728");
        let log = ("log_size", "4293918721");
        let zero = ("block_state_zero", "x");
        let subformat = "Parameter 'subformat' does not accept value ''";
        assert_eq!(wrong((64 << 40) + 1, &[block, log]), large);
        assert_eq!(wrong(1, &[block, log]), "Log size must be smaller than 4 GB");
        assert_eq!(wrong(1, &[("log_size", "0")]), "Log size must be a multiple of 1 MB");
        assert_eq!(wrong(1, &[block]), "Block size must be a power of two");
        assert_eq!(wrong(1 << 60, &[zero, ("subformat", "")]), subformat);
        assert_eq!(wrong(1, &[zero]), "Parameter 'block_state_zero' expects 'on' or 'off'");
        assert_eq!(wrong(1, &[("x", "1"), zero]), "Invalid parameter 'x'");
        assert_eq!(wrong(1, &[("uuid", "1")]), "'1' is no UUID");
        let sector = ("logical_sector_size", "1024");
        let words = "Parameter 'logical_sector_size' does not accept value '1024'";
        assert_eq!(wrong(1, &[sector]), words);
    }
}
