//! Creation options: the table that describes them, and text to typed values.

use crate::address::{ClusterBits, RefcountOrder};
use crate::spec;
use rimg_core::{Error, OptionKind, OptionSpec, Preallocation, RawOptions, Result};

const fn spec(
    name: &'static str,
    kind: OptionKind,
    default: Option<&'static str>,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, kind, help, default }
}

/// In the order in which `create` prints them.
pub(crate) const SPECS: &[OptionSpec] = &[
    spec("cluster_size", OptionKind::Size, Some("65536"), "qcow2 cluster size"),
    spec("extended_l2", OptionKind::Bool, Some("off"), "Extended L2 tables"),
    spec(
        "preallocation",
        OptionKind::Text,
        None,
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
    ),
    spec(
        "compression_type",
        OptionKind::Text,
        Some("zlib"),
        "Compression method used for image cluster compression",
    ),
    spec("size", OptionKind::Size, None, "Virtual disk size"),
    spec("compat", OptionKind::Text, None, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    spec("backing_file", OptionKind::Text, None, "File name of a base image"),
    spec("backing_fmt", OptionKind::Text, None, "Image format of the base image"),
    spec("data_file", OptionKind::Text, None, "File name of an external data file"),
    spec(
        "data_file_raw",
        OptionKind::Bool,
        None,
        "The external data file must stay valid as a raw image",
    ),
    spec(
        "encryption",
        OptionKind::Bool,
        None,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    spec(
        "encrypt.format",
        OptionKind::Text,
        None,
        "Encrypt the image, format choices: 'aes', 'luks'",
    ),
    spec(
        "encrypt.key-secret",
        OptionKind::Text,
        None,
        "ID of secret providing qcow AES key or LUKS passphrase",
    ),
    spec("encrypt.cipher-alg", OptionKind::Text, None, "Name of encryption cipher algorithm"),
    spec("encrypt.cipher-mode", OptionKind::Text, None, "Name of encryption cipher mode"),
    spec("encrypt.ivgen-alg", OptionKind::Text, None, "Name of IV generator algorithm"),
    spec("encrypt.ivgen-hash-alg", OptionKind::Text, None, "Name of IV generator hash algorithm"),
    spec("encrypt.hash-alg", OptionKind::Text, None, "Name of encryption hash algorithm"),
    spec("encrypt.iter-time", OptionKind::Number, None, "Time to spend in PBKDF in milliseconds"),
    spec("lazy_refcounts", OptionKind::Bool, Some("off"), "Postpone refcount updates"),
    spec(
        "refcount_bits",
        OptionKind::Number,
        Some("16"),
        "Width of a reference count entry in bits",
    ),
];

/// What a new image is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) version: u32,
    pub(crate) cluster: ClusterBits,
    pub(crate) refcount: RefcountOrder,
    pub(crate) extended_l2: bool,
    pub(crate) lazy_refcounts: bool,
    pub(crate) compression_type: u8,
    pub(crate) preallocation: Preallocation,
    pub(crate) backing_file: Option<String>,
    pub(crate) backing_format: Option<String>,
    pub(crate) data_file: Option<String>,
    pub(crate) data_file_raw: bool,
}

impl CreateOptions {
    /// Reads the options, in qemu-img's words where they cannot be.
    pub(crate) fn parse(raw: &RawOptions) -> Result<Self> {
        let options = Self {
            version: version(raw)?,
            cluster: cluster(raw)?,
            refcount: refcount(raw)?,
            extended_l2: is_on(raw, "extended_l2")?,
            lazy_refcounts: is_on(raw, "lazy_refcounts")?,
            compression_type: compression_type(raw)?,
            preallocation: preallocation(raw)?,
            backing_file: raw.value("backing_file").map(str::to_owned),
            backing_format: raw.value("backing_fmt").map(str::to_owned),
            data_file: raw.value("data_file").map(str::to_owned),
            data_file_raw: is_on(raw, "data_file_raw")?,
        };
        refuse_encryption(raw)?;
        options.refuse_new_features_in_version_2()?;
        options.refuse_contradictions()?;
        Ok(options)
    }

    fn refuse_new_features_in_version_2(&self) -> Result<()> {
        if self.version >= 3 {
            return Ok(());
        }
        let needs = "(use version=v3 or greater)";
        if self.data_file.is_some() {
            let what = "External data files are only supported with compatibility level 1.1";
            return invalid("data_file", format!("{what} and above {needs}"));
        }
        if self.extended_l2 {
            let what = "Extended L2 entries are only supported with compatibility level 1.1";
            return invalid("extended_l2", format!("{what} and above {needs}"));
        }
        if self.lazy_refcounts {
            let what = "Lazy refcounts only supported with compatibility level 1.1";
            return invalid("lazy_refcounts", format!("{what} and above {needs}"));
        }
        if self.refcount.bits() != 16 {
            let what = "Different refcount widths than 16 bits require compatibility level 1.1";
            return invalid("refcount_bits", format!("{what} or above {needs}"));
        }
        if self.compression_type != spec::compression::ZLIB {
            let what = "Non-zlib compression type is only supported with compatibility level 1.1";
            return invalid("compression_type", format!("{what} and above {needs}"));
        }
        Ok(())
    }

    fn refuse_contradictions(&self) -> Result<()> {
        if self.extended_l2 && self.cluster.bits() < spec::EXTENDED_L2_MIN_CLUSTER_BITS {
            let least = 1_u32 << spec::EXTENDED_L2_MIN_CLUSTER_BITS;
            let what = "Extended L2 entries are only supported with cluster sizes of at least";
            return invalid("extended_l2", format!("{what} {least} bytes"));
        }
        if self.preallocation != Preallocation::Off
            && self.backing_file.is_some()
            && !self.extended_l2
        {
            let what = "Backing file and preallocation can only be used at the same time if \
                        extended_l2 is on";
            return invalid("preallocation", what);
        }
        if self.data_file_raw && self.data_file.is_none() {
            return invalid("data_file_raw", "data-file-raw requires data-file");
        }
        if self.data_file_raw && self.backing_file.is_some() {
            let what = "Backing file and data-file-raw cannot be used at the same time";
            return invalid("data_file_raw", what);
        }
        if self.backing_format.is_some() && self.backing_file.is_none() {
            return invalid("backing_fmt", "Backing format cannot be used without backing file");
        }
        Ok(())
    }
}

fn invalid<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

fn not_accepted<T>(option: &'static str, parameter: &str, value: &str) -> Result<T> {
    invalid(option, format!("Parameter '{parameter}' does not accept value '{value}'"))
}

fn is_on(raw: &RawOptions, option: &'static str) -> Result<bool> {
    match raw.value(option) {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(_) => invalid(option, format!("Parameter '{option}' expects 'on' or 'off'")),
    }
}

fn version(raw: &RawOptions) -> Result<u32> {
    match raw.value("compat") {
        Some("0.10" | "v2") => Ok(2),
        None | Some("1.1" | "v3") => Ok(3),
        Some(other) => not_accepted("compat", "version", other),
    }
}

fn cluster(raw: &RawOptions) -> Result<ClusterBits> {
    let Some(text) = raw.value("cluster_size") else {
        return ClusterBits::new(16).or_else(|_| invalid("cluster_size", "no default"));
    };
    let bits = text
        .parse::<u64>()
        .ok()
        .filter(|bytes| bytes.is_power_of_two())
        .and_then(|bytes| ClusterBits::new(bytes.trailing_zeros()).ok());
    match bits {
        Some(bits) => Ok(bits),
        None => {
            invalid("cluster_size", "Cluster size must be a power of two between 512 and 2048k")
        }
    }
}

fn refcount(raw: &RawOptions) -> Result<RefcountOrder> {
    let text = raw.value("refcount_bits").unwrap_or("16");
    let Ok(bits) = text.parse::<u64>() else {
        return invalid("refcount_bits", "Parameter 'refcount_bits' expects a number");
    };
    let order = Some(bits)
        .filter(|bits| bits.is_power_of_two())
        .and_then(|bits| RefcountOrder::new(bits.trailing_zeros()).ok());
    match order {
        Some(order) => Ok(order),
        None => invalid(
            "refcount_bits",
            "Refcount width must be a power of two and may not exceed 64 bits",
        ),
    }
}

fn compression_type(raw: &RawOptions) -> Result<u8> {
    match raw.value("compression_type") {
        None | Some("zlib") => Ok(spec::compression::ZLIB),
        Some("zstd") => Ok(spec::compression::ZSTD),
        Some(other) => not_accepted("compression_type", "compression-type", other),
    }
}

fn preallocation(raw: &RawOptions) -> Result<Preallocation> {
    match raw.value("preallocation") {
        None => Ok(Preallocation::Off),
        Some(name) => match Preallocation::from_name(name) {
            Some(mode) => Ok(mode),
            None => not_accepted("preallocation", "preallocation", name),
        },
    }
}

fn refuse_encryption(raw: &RawOptions) -> Result<()> {
    let wanted = raw.iter().any(|(name, value)| {
        name.starts_with("encrypt.") || (name == "encryption" && value == "on")
    });
    if wanted {
        return Err(Error::Unsupported {
            format: crate::error::FORMAT,
            feature: "creating encrypted images".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(options: &[(&str, &str)], with: &str) {
        let raw =
            options.iter().fold(RawOptions::new(), |raw, (name, value)| raw.with(*name, *value));
        let error = CreateOptions::parse(&raw).unwrap_err();
        assert!(error.to_string().contains(with), "{error}");
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let none = CreateOptions::parse(&RawOptions::new()).unwrap();
        let spelled_out = SPECS
            .iter()
            .filter_map(|spec| Some((spec.name, spec.default?)))
            .fold(RawOptions::new(), |raw, (name, value)| raw.with(name, value));
        assert_eq!(CreateOptions::parse(&spelled_out).unwrap(), none);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        refused(&[("cluster_size", "3072")], "power of two between 512 and 2048k");
        refused(&[("cluster_size", "4194304")], "power of two between 512 and 2048k");
        refused(&[("refcount_bits", "3")], "Refcount width");
        refused(&[("refcount_bits", "128")], "Refcount width");
        refused(&[("compat", "0.9")], "'version' does not accept value '0.9'");
        refused(&[("compat", "v2"), ("refcount_bits", "8")], "Different refcount widths");
        refused(&[("compat", "0.10"), ("lazy_refcounts", "on")], "Lazy refcounts");
        refused(&[("compat", "0.10"), ("compression_type", "zstd")], "Non-zlib");
        refused(&[("compat", "0.10"), ("extended_l2", "on")], "Extended L2 entries");
        refused(&[("compat", "0.10"), ("data_file", "x")], "External data files");
        refused(&[("extended_l2", "on"), ("cluster_size", "4096")], "at least 16384 bytes");
        refused(&[("data_file_raw", "on")], "data-file-raw requires data-file");
        refused(&[("backing_fmt", "raw")], "without backing file");
        refused(&[("preallocation", "full"), ("backing_file", "x")], "extended_l2 is on");
        refused(&[("encrypt.format", "luks")], "creating encrypted images");
    }
}
