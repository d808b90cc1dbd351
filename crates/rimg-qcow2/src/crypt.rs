//! Encryption of guest data: the old AES method, and LUKS (Header, crypt_method).
//!
//! Sectors of 512 bytes are encrypted one by one. What makes one differ from another of the same
//! contents is its number: the guest's with the old method, the host's with LUKS. Compressed
//! clusters and all metadata are plain.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod amend;
mod create;
mod data;

pub(crate) use create::{NewEncryption, write_luks};

use crate::error::CorruptKind;
use crate::header::Header;
use crate::image::Access;
use crate::spec;
use core::fmt;
use rimg_core::{Error, InfoValue, OpenOptions, RawOptions, Result, Secret, Storage, num, op};
use rimg_crypto::luks1::{self, OptionNames};
use rimg_crypto::{CipherAlgorithm, CipherMode, CipherSpec, IvGenerator, SectorCipher};
use std::sync::RwLock;

/// The options of an open image, and of a new one, start with this.
pub(crate) const PREFIX: &str = "encrypt.";
pub(crate) const KEY_SECRET: &str = OptionNames::ENCRYPT.key_secret();
const FORMAT_OPTION: &str = "encrypt.format";

/// How the guest data of an open image is encrypted.
#[derive(Debug)]
pub(crate) struct Encryption {
    method: Method,
    /// Missing where the image was opened to be inspected.
    cipher: Option<SectorCipher>,
    /// The key that LUKS keeps, for further key slots.
    master_key: Option<Secret>,
    /// Writers of less than a sector are alone, as they read the rest of it before; those of whole
    /// sectors share it.
    whole_sectors: RwLock<()>,
}

enum Method {
    Aes,
    Luks(Box<luks1::Header>),
}

impl Encryption {
    /// Reads what there is to know of an image's encryption, and gets its key unless it is only
    /// looked at. `None` for an image that is not encrypted.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of QEMU for what the options say or do not say, a
    /// passphrase that opens no key slot among it; what is wrong with the LUKS header.
    pub(crate) fn open(
        file: &dyn Storage,
        header: &Header,
        access: Access,
        how: &OpenOptions<'_>,
    ) -> Result<Option<Self>> {
        let name = match header.crypt_method {
            spec::crypt::NONE => None,
            spec::crypt::AES => Some("aes"),
            _ => Some("luks"),
        };
        check_format(name, how.options)?;
        if name.is_none() {
            return Ok(None);
        }
        refuse_unknown(how.options)?;
        let passphrase = || OptionNames::ENCRYPT.passphrase(how.options);
        // Whoever only looks needs no key, but a passphrase that is given has to be right.
        let wants_key = !access.is_metadata_only() || how.options.value(KEY_SECRET).is_some();
        let (method, cipher, master_key) = if header.crypt_method == spec::crypt::AES {
            let cipher = if wants_key { Some(aes_cipher(passphrase()?)?) } else { None };
            (Method::Aes, cipher, None)
        } else {
            let (luks, at) = read_luks(file, header)?;
            let (cipher, key) = if wants_key {
                let opened = luks.unlock(file, at, passphrase()?, &how.limits)?;
                let key = opened.ok_or_else(|| OptionNames::ENCRYPT.wrong_passphrase())?.master_key;
                (Some(luks.data_cipher(&key)?), Some(key))
            } else {
                (None, None)
            };
            (Method::Luks(Box::new(luks)), cipher, key)
        };
        Ok(Some(Self { method, cipher, master_key, whole_sectors: RwLock::new(()) }))
    }

    /// What `info` says of it, under the names and in the order of QEMU's JSON.
    pub(crate) fn describe(&self) -> InfoValue {
        let name = |name: &str| ("format", InfoValue::Text(name.to_owned()));
        match &self.method {
            Method::Aes => InfoValue::Map(vec![name("aes")]),
            Method::Luks(luks) => {
                let mut all = luks.describe();
                let at = all.iter().position(|(name, _)| *name == "cipher-mode").unwrap_or(0);
                all.insert(at, name("luks"));
                InfoValue::Map(all)
            }
        }
    }

    /// Encrypts whole sectors for their place in the file.
    pub(crate) fn encrypt(&self, sectors: &mut [u8], guest: u64, host: u64) -> Result<()> {
        self.cipher()?.encrypt(sectors, self.number(guest, host))
    }

    /// Decrypts whole sectors.
    fn decrypt(&self, sectors: &mut [u8], guest: u64, host: u64) -> Result<()> {
        self.cipher()?.decrypt(sectors, self.number(guest, host))
    }

    fn cipher(&self) -> Result<&SectorCipher> {
        self.cipher.as_ref().ok_or(Error::Misuse("the image was opened for inspection only"))
    }

    fn number(&self, guest: u64, host: u64) -> u64 {
        match self.method {
            Method::Aes => guest / spec::SECTOR_BYTES,
            Method::Luks(_) => host / spec::SECTOR_BYTES,
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes => "Aes",
            Self::Luks(_) => "Luks",
        })
    }
}

/// Refuses options of encryption that are only for new images, or for none.
fn refuse_unknown(options: &RawOptions) -> Result<()> {
    let names = options.iter().filter_map(|(name, _)| name.strip_prefix(PREFIX));
    match names.into_iter().find(|name| !matches!(*name, "format" | "key-secret")) {
        Some(unknown) => {
            let reason = format!("Parameter '{unknown}' is unexpected");
            Err(Error::InvalidOption { option: "options", reason })
        }
        None => Ok(()),
    }
}

/// What the user takes the image for has to be what it is.
fn check_format(actual: Option<&str>, options: &RawOptions) -> Result<()> {
    let Some(wanted) = options.value(FORMAT_OPTION) else { return Ok(()) };
    let reason = match actual {
        Some(actual) if actual == wanted => return Ok(()),
        Some(actual) => {
            format!("Header reported '{actual}' encryption format but options specify '{wanted}'")
        }
        None => format!("No encryption in image header, but options specified format '{wanted}'"),
    };
    Err(Error::InvalidOption { option: FORMAT_OPTION, reason })
}

/// The old method: AES-128-CBC, keyed with the passphrase itself, cut or filled up with zeroes.
fn aes_cipher(passphrase: &Secret) -> Result<SectorCipher> {
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
    Ok(SectorCipher::new(spec, key.expose())?)
}

/// The LUKS header and where it is (Full disk encryption header pointer).
fn read_luks(file: &dyn Storage, header: &Header) -> Result<(luks1::Header, u64)> {
    let wrong = |kind: CorruptKind, at| kind.at("full disk encryption header", "offset", at);
    let (at, len) = header.encryption_header().ok_or_else(|| {
        CorruptKind::NoEncryptionHeader.at(
            "header",
            "crypt_method",
            crate::header::offset::CRYPT_METHOD,
        )
    })?;
    if !header.geometry.is_aligned(at) {
        return Err(wrong(CorruptKind::Misaligned(at), at));
    }
    let needed = num::to_u64(luks1::HEADER_BYTES);
    if at.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) || len < needed {
        return Err(wrong(CorruptKind::OutOfRange(at, len), at));
    }
    let mut bytes = [0; luks1::HEADER_BYTES];
    file.read_exact_at(&mut bytes, at).map_err(Error::io(op::READ_LUKS_HEADER, at))?;
    let luks = luks1::Header::parse(&bytes, at)?;
    if luks.payload_offset() > len {
        return Err(wrong(CorruptKind::OutOfRange(at, luks.payload_offset()), at));
    }
    Ok((luks, at))
}
