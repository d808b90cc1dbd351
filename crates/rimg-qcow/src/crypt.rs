//! Encryption of guest data: AES-128 in CBC mode, sector by sector, with the number of the guest's
//! sector for what makes one differ from the next. Compressed clusters and all metadata are plain.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::FORMAT;
use crate::options::refuse;
use crate::spec::SECTOR_BYTES;
use rimg_core::{Error, RawOptions, Result, Secret};
use rimg_crypto::{CipherAlgorithm, CipherMode, CipherSpec, IvGenerator};

const PREFIX: &str = "encrypt.";
const KEY_SECRET: &str = "encrypt.key-secret";
const FORMAT_OPTION: &str = "encrypt.format";
const METHOD: &str = "aes";

/// The cipher of an open image.
#[derive(Debug)]
pub(crate) struct Cipher(rimg_crypto::SectorCipher);

impl rimg_blocks::SectorCipher for Cipher {
    fn sector_bytes(&self) -> u32 {
        512
    }

    fn encrypt(&self, sectors: &mut [u8], at: u64) {
        if self.0.encrypt(sectors, at / SECTOR_BYTES).is_err() {
            // Not a whole sector, which the engine never gives: nothing plain goes to the disk.
            sectors.fill(0);
        }
    }

    fn decrypt(&self, sectors: &mut [u8], at: u64) {
        if self.0.decrypt(sectors, at / SECTOR_BYTES).is_err() {
            sectors.fill(0);
        }
    }
}

/// The cipher of an image, if it is encrypted; whoever only looks needs no key.
pub(crate) fn open(
    is_encrypted: bool,
    needs_key: bool,
    options: &RawOptions,
) -> Result<Option<Cipher>> {
    if let Some((name, _)) = options.iter().find(|(name, _)| !name.starts_with(PREFIX)) {
        return Err(Error::unknown_open_option(FORMAT, name));
    }
    match options.value(FORMAT_OPTION) {
        Some(wanted) if !is_encrypted => {
            let reason =
                format!("No encryption in image header, but options specified format '{wanted}'");
            return refuse(FORMAT_OPTION, reason);
        }
        Some(wanted) if wanted != METHOD => {
            let reason = format!(
                "Header reported '{METHOD}' encryption format but options specify '{wanted}'"
            );
            return refuse(FORMAT_OPTION, reason);
        }
        _ => {}
    }
    if !is_encrypted || (!needs_key && options.value(KEY_SECRET).is_none()) {
        return Ok(None);
    }
    let names = options.iter().filter_map(|(name, _)| name.strip_prefix(PREFIX));
    if let Some(name) = names.into_iter().find(|name| !matches!(*name, "format" | "key-secret")) {
        return refuse("options", format!("Parameter '{name}' is unexpected"));
    }
    cipher(passphrase(options)?).map(Some)
}

/// Whether a new image is to be encrypted. Its key has to be there, although nothing in a new image
/// depends on it.
pub(crate) fn check_new(options: &RawOptions) -> Result<bool> {
    let by_alias = match options.value("encryption") {
        None | Some("off") => false,
        Some("on") => true,
        Some(_) => return refuse("encryption", "Parameter 'encryption' expects 'on' or 'off'"),
    };
    match options.value(FORMAT_OPTION) {
        Some(_) if by_alias => {
            return refuse(
                "encryption",
                "'encrypt.format' and its alias 'encryption' can't be used at the same time",
            );
        }
        None if !by_alias => {
            return match options.value(KEY_SECRET) {
                Some(_) => refuse(FORMAT_OPTION, "Parameter 'encrypt.format' is missing"),
                None => Ok(false),
            };
        }
        None | Some(METHOD) => {}
        Some("luks") => return refuse(FORMAT_OPTION, "Unsupported encryption format"),
        Some(other) => {
            let reason = format!("Parameter 'format' does not accept value '{other}'");
            return refuse(FORMAT_OPTION, reason);
        }
    }
    passphrase(options)?;
    Ok(true)
}

fn passphrase(options: &RawOptions) -> Result<&Secret> {
    let Some(id) = options.value(KEY_SECRET) else {
        return refuse(KEY_SECRET, format!("Parameter '{KEY_SECRET}' is required for cipher"));
    };
    match options.secret(id) {
        Some(secret) => Ok(secret),
        None => refuse(KEY_SECRET, format!("No secret with id '{id}'")),
    }
}

/// The key is the passphrase itself, cut or filled up with zeroes.
fn cipher(passphrase: &Secret) -> Result<Cipher> {
    let spec = CipherSpec {
        algorithm: CipherAlgorithm::Aes128,
        mode: CipherMode::Cbc,
        iv: IvGenerator::Plain64,
        iv_hash: None,
    };
    let mut key = Secret::zeroed(spec.key_bytes());
    for (to, from) in key.expose_mut().iter_mut().zip(passphrase.expose()) {
        *to = *from;
    }
    Ok(Cipher(rimg_crypto::SectorCipher::new(spec, key.expose())?))
}
