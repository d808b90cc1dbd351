//! Encrypted images to be: what the options say, and the LUKS header.
#![warn(clippy::indexing_slicing)]

use super::{FORMAT_OPTION, KEY_SECRET, PREFIX};
use crate::header::{Extension, Header};
use crate::image::Qcow2Image;
use crate::spec;
use rimg_core::{Error, RawOptions, Result, Zeroing};
use rimg_crypto::OsRandom;
use rimg_crypto::luks1::{Iterations, OptionNames, Volume, WantedVolume};

/// How a new image is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NewEncryption {
    Aes,
    Luks(WantedVolume),
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
                OptionNames::ENCRYPT.passphrase(raw)?;
                Ok(Some(Self::Aes))
            }
            "luks" => OptionNames::ENCRYPT.new_volume(raw).map(|wanted| Some(Self::Luks(wanted))),
            other => {
                refuse(FORMAT_OPTION, format!("Parameter 'format' does not accept value '{other}'"))
            }
        }
    }

    /// How many bytes there have to be for a header besides the image's own.
    pub(crate) fn header_bytes(&self) -> u64 {
        match self {
            Self::Aes => 0,
            Self::Luks(wanted) => wanted.volume.header_bytes(),
        }
    }

    /// The value of the header's field.
    pub(crate) const fn method(&self) -> u32 {
        match self {
            Self::Aes => spec::crypt::AES,
            Self::Luks(_) => spec::crypt::LUKS,
        }
    }

    /// The extension of the header that LUKS has, with the place still to be found out.
    pub(crate) fn extension(&self) -> Option<Extension> {
        match self {
            Self::Aes => None,
            Self::Luks(_) => Some(Extension::Encryption(vec![0; 16])),
        }
    }
}

fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

/// Gives a new image its LUKS header: clusters behind everything that there is, and the header's
/// extension that leads there.
pub(crate) fn write_luks(image: &Qcow2Image, wanted: &WantedVolume) -> Result<()> {
    let g = image.geometry;
    let WantedVolume { volume, iter_time_ms, passphrase } = wanted;
    let iterations = Iterations::measured(volume, *iter_time_ms)?;
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
