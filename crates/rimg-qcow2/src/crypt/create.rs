//! Encrypted images to be: what the options say, and the LUKS header.
#![warn(clippy::indexing_slicing)]

use super::{FORMAT_OPTION, KEY_SECRET, PREFIX, passphrase};
use crate::header::{Extension, Header};
use crate::image::Qcow2Image;
use crate::spec;
use rimg_core::{Error, RawOptions, Result, Secret, Zeroing};
use rimg_crypto::luks1::{Iterations, NewVolume, Volume};
use rimg_crypto::{
    CipherAlgorithm, CipherError, CipherMode, CipherSpec, Hash, IvGenerator, OsRandom,
};

/// How a new image is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NewEncryption {
    Aes,
    Luks { volume: NewVolume, iter_time_ms: u64, passphrase: Secret },
}

impl NewEncryption {
    /// Reads the options `encryption` (which is whether that is on) and `encrypt.*`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of `qemu-img create`.
    pub(crate) fn parse(raw: &RawOptions, encryption: bool) -> Result<Option<Self>> {
        let format = match raw.value(FORMAT_OPTION) {
            Some(_) if encryption => {
                return refuse(
                    "encryption",
                    "'encrypt.format' and its alias 'encryption' can't be used at the same time",
                );
            }
            Some(format) => format,
            None if encryption => "aes",
            None if raw.iter().any(|(name, _)| name.starts_with(PREFIX)) => {
                return refuse(FORMAT_OPTION, "Parameter 'encrypt.format' is missing");
            }
            None => return Ok(None),
        };
        match format {
            "aes" => {
                let ours = |name: &str| name == FORMAT_OPTION || name == KEY_SECRET;
                let other = raw.iter().find(|(name, _)| name.starts_with(PREFIX) && !ours(name));
                if let Some((name, _)) = other {
                    return refuse(FORMAT_OPTION, format!("Parameter '{name}' is unexpected"));
                }
                passphrase(raw)?;
                Ok(Some(Self::Aes))
            }
            "luks" => Self::luks(raw).map(Some),
            other => {
                refuse(FORMAT_OPTION, format!("Parameter 'format' does not accept value '{other}'"))
            }
        }
    }

    fn luks(raw: &RawOptions) -> Result<Self> {
        let algorithm = choice(raw, "encrypt.cipher-alg", FOREIGN_CIPHERS, |name| {
            CipherAlgorithm::from_name(name)
        })?;
        let mode = choice(raw, "encrypt.cipher-mode", &["ctr"], CipherMode::from_name)?;
        let iv = choice(raw, "encrypt.ivgen-alg", &[], IvGenerator::from_name)?;
        let iv_hash = choice(raw, "encrypt.ivgen-hash-alg", FOREIGN_HASHES, Hash::from_name)?;
        let hash = choice(raw, "encrypt.hash-alg", FOREIGN_HASHES, Hash::from_name)?;
        let iter_time_ms = super::iter_time_ms(raw)?;
        let iv = iv.unwrap_or(IvGenerator::Plain64);
        let essiv_hash = (iv == IvGenerator::Essiv).then_some(Hash::Sha256);
        let volume = NewVolume {
            cipher: CipherSpec {
                algorithm: algorithm.unwrap_or(CipherAlgorithm::Aes256),
                mode: mode.unwrap_or(CipherMode::Xts),
                iv,
                iv_hash: iv_hash.or(essiv_hash),
            },
            hash: hash.unwrap_or(Hash::Sha256),
        };
        if let Err(error @ CipherError::EssivHash(_)) = volume.cipher.essiv_hash() {
            return refuse("encrypt.ivgen-hash-alg", error.to_string());
        }
        let passphrase = passphrase(raw)?.clone();
        Ok(Self::Luks { volume, iter_time_ms, passphrase })
    }

    /// How many bytes there have to be for a header besides the image's own.
    pub(crate) fn header_bytes(&self) -> u64 {
        match self {
            Self::Aes => 0,
            Self::Luks { volume, .. } => volume.header_bytes(),
        }
    }

    /// The value of the header's field.
    pub(crate) const fn method(&self) -> u32 {
        match self {
            Self::Aes => spec::crypt::AES,
            Self::Luks { .. } => spec::crypt::LUKS,
        }
    }

    /// The extension of the header that LUKS has, with the place still to be found out.
    pub(crate) fn extension(&self) -> Option<Extension> {
        match self {
            Self::Aes => None,
            Self::Luks { .. } => Some(Extension::Encryption(vec![0; 16])),
        }
    }
}

/// Ciphers and hashes that QEMU knows, or may know.
const FOREIGN_CIPHERS: &[&str] = &[
    "des",
    "3des",
    "cast5-128",
    "serpent-128",
    "serpent-192",
    "serpent-256",
    "twofish-128",
    "twofish-192",
    "twofish-256",
    "sm4",
];
const FOREIGN_HASHES: &[&str] = &["md5", "sm3"];

fn choice<T>(
    raw: &RawOptions,
    option: &'static str,
    foreign: &[&str],
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(name) = raw.value(option) else { return Ok(None) };
    if let Some(value) = from_name(name) {
        return Ok(Some(value));
    }
    if foreign.contains(&name) {
        return refuse(option, format!("Algorithm '{name}' not supported"));
    }
    let short = option.strip_prefix(PREFIX).unwrap_or(option);
    refuse(option, format!("Parameter '{short}' does not accept value '{name}'"))
}

fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

/// Gives a new image its LUKS header: clusters behind everything that there is, and the header's
/// extension that leads there.
pub(crate) fn write_luks(
    image: &Qcow2Image,
    volume: &NewVolume,
    iter_time_ms: u64,
    passphrase: &Secret,
) -> Result<()> {
    let g = image.geometry;
    let iterations = Iterations::measured(volume, iter_time_ms)?;
    let made = Volume::new(volume, passphrase, iterations, &mut OsRandom)?;
    let len = made.header.payload_offset();
    let mut state = image.lock()?;
    let (run, _) = image.allocate(&mut state, g.clusters_for(len))?;
    let (at, end) = (g.cluster_offset(run.first), g.cluster_offset(run.end()));
    let file = image.file_writer()?;
    file.write_zeroes_at(at..end, Zeroing::KeepAllocated)
        .map_err(Error::io("clear LUKS header", at))?;
    let area_at = at.saturating_add(made.area.offset);
    file.write_all_at(&made.area.bytes, area_at).map_err(Error::io("write key slot", area_at))?;
    file.write_all_at(&made.header.encode(), at).map_err(Error::io("write LUKS header", at))?;
    enter(&mut state.header, at, len);
    Ok(())
}

fn enter(header: &mut Header, at: u64, len: u64) {
    for extension in &mut header.extensions {
        if let Extension::Encryption(data) = extension {
            *data = [at.to_be_bytes(), len.to_be_bytes()].concat();
        }
    }
}
