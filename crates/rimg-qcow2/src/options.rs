//! Creation options: their table, and what they mean together.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod open;

pub(crate) use open::OverlapCheck;

use crate::address::{ClusterBits, Geometry, RefcountOrder};
use crate::crypt::NewEncryption;
use crate::error::FORMAT;
use crate::spec;
use rimg_core::{Codec, Error, OptionKind, OptionSpec, Preallocation, RawOptions, Result};

const fn text(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind: OptionKind::Text, help, default: None }
}

const fn flag(name: &'static str, help: &'static str, default: Option<&'static str>) -> OptionSpec {
    OptionSpec { name, kind: OptionKind::Bool, help, default }
}

/// In the order in which `qemu-img create` prints them; its help is sorted by name.
pub(crate) const SPECS: &[OptionSpec] = &[
    flag(
        "encryption",
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        None,
    ),
    text("encrypt.format", "Encrypt the image, format choices: 'aes', 'luks'"),
    text("encrypt.key-secret", "ID of secret providing qcow AES key or LUKS passphrase"),
    text("encrypt.cipher-alg", "Name of encryption cipher algorithm"),
    text("encrypt.cipher-mode", "Name of encryption cipher mode"),
    text("encrypt.ivgen-alg", "Name of IV generator algorithm"),
    text("encrypt.ivgen-hash-alg", "Name of IV generator hash algorithm"),
    text("encrypt.hash-alg", "Name of encryption hash algorithm"),
    OptionSpec {
        name: "encrypt.iter-time",
        kind: OptionKind::Number,
        help: "Time to spend in PBKDF in milliseconds",
        default: None,
    },
    OptionSpec {
        name: "cluster_size",
        kind: OptionKind::Size,
        help: "qcow2 cluster size",
        default: Some("65536"),
    },
    flag("extended_l2", "Extended L2 tables", Some("off")),
    text("preallocation", "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    OptionSpec {
        name: "compression_type",
        kind: OptionKind::Text,
        help: "Compression method used for image cluster compression",
        default: Some("zlib"),
    },
    OptionSpec { name: "size", kind: OptionKind::Size, help: "Virtual disk size", default: None },
    text("compat", "Compatibility level (v2 [0.10] or v3 [1.1])"),
    text("backing_file", "File name of a base image"),
    text("backing_fmt", "Image format of the base image"),
    text("data_file", "File name of an external data file"),
    flag("data_file_raw", "The external data file must stay valid as a raw image", None),
    flag("lazy_refcounts", "Postpone refcount updates", Some("off")),
    OptionSpec {
        name: "refcount_bits",
        kind: OptionKind::Number,
        help: "Width of a reference count entry in bits",
        default: Some("16"),
    },
];

/// Options that the file below an image has, not the format; they may be among ours.
const PROTOCOL_OPTIONS: &[&str] = &["nocow", "extent_size_hint"];

/// What a new image is to be like; every combination is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    /// 2 or 3.
    pub(crate) version: u32,
    pub(crate) geometry: Geometry,
    /// A multiple of the sector size.
    pub(crate) size_bytes: u64,
    pub(crate) codec: Codec,
    pub(crate) lazy_refcounts: bool,
    pub(crate) preallocation: Preallocation,
    pub(crate) data_file: Option<String>,
    pub(crate) data_file_raw: bool,
    pub(crate) backing_file: Option<String>,
    pub(crate) backing_format: Option<String>,
    pub(crate) encryption: Option<NewEncryption>,
}

impl CreateOptions {
    /// Reads the options for an image of `size_bytes` and refuses what does not go together, in
    /// the order and the words of `qemu-img create`.
    pub(crate) fn parse(size_bytes: u64, raw: &RawOptions) -> Result<Self> {
        refuse_unknown(raw)?;
        let version = version(raw)?;
        let preallocation = preallocation(raw)?;
        let codec = codec(raw)?;
        let extended_l2 = is_on(raw, "extended_l2")?.unwrap_or(false);
        if extended_l2 && version < 3 {
            return refuse_version_2(
                "extended_l2",
                "Extended L2 entries are only supported with compatibility level 1.1 and above",
            );
        }
        let cluster = cluster(raw)?;
        let backing_file = raw.value("backing_file").map(str::to_owned);
        if preallocation != Preallocation::Off && backing_file.is_some() && !extended_l2 {
            return refuse(
                "preallocation",
                "Backing file and preallocation can only be used at the same time if \
                 extended_l2 is on",
            );
        }
        if extended_l2 {
            check_extended_l2(cluster)?;
        }
        let backing_format = raw.value("backing_fmt").map(str::to_owned);
        if backing_format.is_some() && backing_file.is_none() {
            return refuse("backing_fmt", "Backing format cannot be used without backing file");
        }
        let lazy_refcounts = is_on(raw, "lazy_refcounts")?.unwrap_or(false);
        if lazy_refcounts && version < 3 {
            return refuse_version_2(
                "lazy_refcounts",
                "Lazy refcounts only supported with \
                compatibility level 1.1 and above",
            );
        }
        let refcount = refcount(raw, version)?;
        let data_file = raw.value("data_file").map(str::to_owned);
        let data_file_raw = is_on(raw, "data_file_raw")?.unwrap_or(false);
        check_data_file(version, data_file.as_deref(), data_file_raw, backing_file.as_deref())?;
        if codec != Codec::Deflate && version < 3 {
            return refuse_version_2(
                "compression_type",
                "Non-zlib compression type is only \
                supported with compatibility level 1.1 and above",
            );
        }
        let geometry =
            Geometry { cluster, extended_l2, zero_flag: version >= 3 && !extended_l2, refcount };
        let size_bytes = rounded_size(size_bytes, geometry)?;
        let encryption = is_on(raw, "encryption")?.unwrap_or(false);
        let encryption = NewEncryption::parse(raw, encryption)?;
        Ok(Self {
            version,
            geometry,
            size_bytes,
            codec,
            lazy_refcounts,
            // A raw data file is what it is only with every cluster in its place from the start.
            preallocation: match preallocation {
                Preallocation::Off if data_file_raw => Preallocation::Metadata,
                other => other,
            },
            data_file,
            data_file_raw,
            backing_file,
            backing_format,
            encryption,
        })
    }
}

pub(crate) fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

fn refuse_version_2<T>(option: &'static str, what: &str) -> Result<T> {
    refuse(option, format!("{what} (use version=v3 or greater)"))
}

fn refuse_unknown(raw: &RawOptions) -> Result<()> {
    let known =
        |name| SPECS.iter().any(|spec| spec.name == name) || PROTOCOL_OPTIONS.contains(&name);
    match raw.iter().find(|(name, _)| !known(name)) {
        Some((name, _)) => refuse("options", format!("Invalid parameter '{name}'")),
        None => Ok(()),
    }
}

pub(crate) fn is_on(raw: &RawOptions, name: &'static str) -> Result<Option<bool>> {
    match raw.value(name) {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(_) => refuse(name, format!("Parameter '{name}' expects 'on' or 'off'")),
    }
}

fn version(raw: &RawOptions) -> Result<u32> {
    match raw.value("compat") {
        None | Some("1.1" | "v3") => Ok(3),
        Some("0.10" | "v2") => Ok(2),
        Some(other) => {
            refuse("compat", format!("Parameter 'version' does not accept value '{other}'"))
        }
    }
}

fn preallocation(raw: &RawOptions) -> Result<Preallocation> {
    let Some(name) = raw.value("preallocation") else { return Ok(Preallocation::Off) };
    match Preallocation::from_name(name) {
        Some(preallocation) => Ok(preallocation),
        None => refuse(
            "preallocation",
            format!("Parameter 'preallocation' does not accept value '{name}'"),
        ),
    }
}

fn codec(raw: &RawOptions) -> Result<Codec> {
    match raw.value("compression_type") {
        None | Some("zlib") => Ok(Codec::Deflate),
        Some("zstd") => Ok(Codec::Zstd),
        Some(other) => refuse(
            "compression_type",
            format!("Parameter 'compression-type' does not accept value '{other}'"),
        ),
    }
}

pub(crate) fn cluster(raw: &RawOptions) -> Result<ClusterBits> {
    let Some(text) = raw.value("cluster_size") else {
        return ClusterBits::new(spec::DEFAULT_CLUSTER_BITS)
            .map_err(|_| Error::Misuse("the default cluster size is not possible"));
    };
    let Ok(bytes) = text.parse::<u64>() else {
        return refuse(
            "cluster_size",
            "Parameter 'cluster_size' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively.",
        );
    };
    match ClusterBits::new(bytes.trailing_zeros()) {
        Ok(cluster) if cluster.bytes() == bytes => Ok(cluster),
        _ => refuse("cluster_size", "Cluster size must be a power of two between 512 and 2048k"),
    }
}

pub(crate) fn check_extended_l2(cluster: ClusterBits) -> Result<()> {
    if cluster.bits() < spec::EXTENDED_L2_MIN_CLUSTER_BITS {
        let least = 1_u64 << spec::EXTENDED_L2_MIN_CLUSTER_BITS;
        return refuse(
            "extended_l2",
            format!(
                "Extended L2 entries are only supported with cluster sizes of at least {least} \
                 bytes"
            ),
        );
    }
    Ok(())
}

fn refcount(raw: &RawOptions, version: u32) -> Result<RefcountOrder> {
    let bits = match raw.value("refcount_bits") {
        None => 16,
        Some(text) => match text.parse::<u64>() {
            Ok(bits) => bits,
            Err(_) => {
                return refuse("refcount_bits", "Parameter 'refcount_bits' expects a number");
            }
        },
    };
    let order = match RefcountOrder::new(bits.trailing_zeros()) {
        Ok(order) if u64::from(order.bits()) == bits => order,
        _ => {
            return refuse(
                "refcount_bits",
                "Refcount width must be a power of two and may not exceed 64 bits",
            );
        }
    };
    if bits != 16 && version < 3 {
        return refuse_version_2(
            "refcount_bits",
            "Different refcount widths than 16 bits require \
            compatibility level 1.1 or above",
        );
    }
    Ok(order)
}

fn check_data_file(
    version: u32,
    data_file: Option<&str>,
    is_raw: bool,
    backing_file: Option<&str>,
) -> Result<()> {
    if is_raw && data_file.is_none() {
        return refuse("data_file_raw", "data-file-raw requires data-file");
    }
    if is_raw && backing_file.is_some() {
        return refuse(
            "data_file_raw",
            "Backing file and data-file-raw cannot be used at the same time",
        );
    }
    if data_file.is_some() && version < 3 {
        return refuse_version_2(
            "data_file",
            "External data files are only supported with \
            compatibility level 1.1 and above",
        );
    }
    Ok(())
}

/// The size rounded up to sectors, if tables of these clusters can map so much.
fn rounded_size(size_bytes: u64, geometry: Geometry) -> Result<u64> {
    let size = size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES).unwrap_or(u64::MAX);
    if size > spec::MAX_DISK_BYTES {
        let most = spec::MAX_DISK_BYTES;
        return refuse(
            "size",
            format!("Could not resize image: offset({size}) exceeds maximum({most})"),
        );
    }
    if geometry.l1_entries_for(size).saturating_mul(8) > spec::MAX_L1_BYTES {
        return refuse(
            "size",
            format!(
                "The image size is too large for file format '{FORMAT}' (try using a larger \
                 cluster size)"
            ),
        );
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(size: u64, options: &[(&str, &str)]) -> String {
        let mut raw = RawOptions::new();
        for (name, value) in options {
            raw.set(*name, *value);
        }
        match CreateOptions::parse(size, &raw) {
            Err(Error::InvalidOption { reason, .. }) => reason,
            other => panic!("{options:?}: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let mut raw = RawOptions::new();
        let plain = CreateOptions::parse(1, &raw).unwrap();
        for spec in SPECS {
            if let Some(default) = spec.default {
                raw.set(spec.name, default);
            }
        }
        assert_eq!(CreateOptions::parse(512, &raw).unwrap(), plain);
        assert_eq!(plain.size_bytes, 512);
    }

    #[test]
    fn the_first_thing_wrong_is_named() {
        let cluster = "Cluster size must be a power of two between 512 and 2048k";
        for size in ["0", "256", "500", "4194304", "4294967808"] {
            assert_eq!(reason(1, &[("cluster_size", size), ("refcount_bits", "3")]), cluster);
        }
        let width = "Refcount width must be a power of two and may not exceed 64 bits";
        for bits in ["0", "3", "65", "128", "4294967312"] {
            assert_eq!(reason(1, &[("compat", "v2"), ("refcount_bits", bits)]), width);
        }
        let lazy = reason(1, &[("refcount_bits", "3"), ("lazy_refcounts", "on"), ("compat", "v2")]);
        assert!(lazy.starts_with("Lazy refcounts only"), "{lazy}");
    }

    #[test]
    fn encryption_is_refused_not_ignored() {
        let luks = ("encrypt.format", "luks");
        let aes = ("encrypt.format", "aes");
        let secret = ("encrypt.key-secret", "s");
        for (options, expected) in [
            (&[secret][..], "Parameter 'encrypt.format' is missing"),
            (&[luks], "Parameter 'encrypt.key-secret' is required for cipher"),
            (&[aes, secret], "No secret with id 's'"),
            (
                &[aes, ("encryption", "on")],
                "'encrypt.format' and its alias 'encryption' can't be used at the same time",
            ),
            (&[("encrypt.format", "x")], "Parameter 'format' does not accept value 'x'"),
            (&[aes, ("encrypt.iter-time", "1")], "Parameter 'encrypt.iter-time' is unexpected"),
            (
                &[luks, ("encrypt.cipher-alg", "x")],
                "Parameter 'cipher-alg' does not accept value 'x'",
            ),
            (&[luks, ("encrypt.cipher-alg", "sm4")], "Algorithm 'sm4' not supported"),
            (
                &[luks, ("encrypt.ivgen-alg", "essiv"), ("encrypt.ivgen-hash-alg", "sha1")],
                "No AES cipher with key size 20 available",
            ),
        ] {
            assert_eq!(reason(0, options), expected);
        }
    }

    #[test]
    fn sizes_end_where_the_l1_table_may() {
        let most = [("512", 128_u64 << 30), ("65536", 2 << 50), ("2097152", 2 << 60)];
        for (cluster, size) in most {
            let options = [("cluster_size", cluster)];
            let raw = RawOptions::new().with("cluster_size", cluster);
            assert!(CreateOptions::parse(size, &raw).is_ok(), "{cluster}");
            assert!(reason(size + 1, &options).starts_with("The image size is too large"));
        }
    }
}
