//! The options of LUKS, which are the same wherever it is used but for their names.

use super::NewVolume;
use crate::{CipherAlgorithm, CipherMode, CipherSpec, Hash, IvGenerator};
use rimg_core::{Error, RawOptions, Result, Secret};

/// So long trying a passphrase takes where nothing else is asked for.
const DEFAULT_ITER_TIME_MS: u64 = 2000;

/// What the options of LUKS are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionNames {
    prefix: &'static str,
    key_secret: &'static str,
    cipher_alg: &'static str,
    cipher_mode: &'static str,
    ivgen_alg: &'static str,
    ivgen_hash_alg: &'static str,
    hash_alg: &'static str,
    iter_time: &'static str,
    pub(super) state: &'static str,
    pub(super) keyslot: &'static str,
    pub(super) new_secret: &'static str,
    pub(super) old_secret: &'static str,
}

macro_rules! names {
    ($prefix:literal) => {
        OptionNames {
            prefix: $prefix,
            key_secret: concat!($prefix, "key-secret"),
            cipher_alg: concat!($prefix, "cipher-alg"),
            cipher_mode: concat!($prefix, "cipher-mode"),
            ivgen_alg: concat!($prefix, "ivgen-alg"),
            ivgen_hash_alg: concat!($prefix, "ivgen-hash-alg"),
            hash_alg: concat!($prefix, "hash-alg"),
            iter_time: concat!($prefix, "iter-time"),
            state: concat!($prefix, "state"),
            keyslot: concat!($prefix, "keyslot"),
            new_secret: concat!($prefix, "new-secret"),
            old_secret: concat!($prefix, "old-secret"),
        }
    };
}

/// A volume as the options want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedVolume {
    /// Cipher and hash.
    pub volume: NewVolume,
    /// How long trying a passphrase shall take, in milliseconds.
    pub iter_time_ms: u64,
    /// What opens the first key slot.
    pub passphrase: Secret,
}

impl OptionNames {
    /// As they are: `key-secret`.
    pub const PLAIN: Self = names!("");
    /// Among options of a format: `encrypt.key-secret`.
    pub const ENCRYPT: Self = names!("encrypt.");

    /// The option that names the secret which opens the volume.
    #[must_use]
    pub const fn key_secret(&self) -> &'static str {
        self.key_secret
    }

    /// The option for how long trying a passphrase shall take.
    #[must_use]
    pub const fn iter_time(&self) -> &'static str {
        self.iter_time
    }

    /// What the creation options ask for.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of `qemu-img create`.
    pub fn new_volume(&self, raw: &RawOptions) -> Result<WantedVolume> {
        let algorithm =
            self.choice(raw, self.cipher_alg, FOREIGN_CIPHERS, CipherAlgorithm::from_name)?;
        let mode = self.choice(raw, self.cipher_mode, &[], CipherMode::from_name)?;
        let iv = self.choice(raw, self.ivgen_alg, &[], IvGenerator::from_name)?;
        let iv_hash = self.choice(raw, self.ivgen_hash_alg, &[], Hash::from_name)?;
        let hash = self.choice(raw, self.hash_alg, &[], Hash::from_name)?;
        let iter_time_ms = self.iter_time_ms(raw)?;
        let iv = iv.unwrap_or(IvGenerator::Plain64);
        let essiv_hash = (iv == IvGenerator::Essiv).then_some(Hash::Sha256);
        let cipher = CipherSpec {
            algorithm: algorithm.unwrap_or(CipherAlgorithm::Aes256),
            mode: mode.unwrap_or(CipherMode::Xts),
            iv,
            iv_hash: iv_hash.or(essiv_hash),
        };
        if let Err(error) = cipher.check() {
            return invalid(self.ivgen_hash_alg, error.to_string());
        }
        self.passphrase(raw)?;
        let passphrase = self.new_passphrase(raw, self.key_secret)?.clone();
        let volume = NewVolume { cipher, hash: hash.unwrap_or(Hash::Sha256) };
        Ok(WantedVolume { volume, iter_time_ms, passphrase })
    }

    /// The secret that the options name as the passphrase.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of QEMU when they name none, or one that is not there.
    pub fn passphrase<'o>(&self, raw: &'o RawOptions) -> Result<&'o Secret> {
        let name = self.key_secret;
        if raw.value(name).is_none() {
            return invalid(name, format!("Parameter '{name}' is required for cipher"));
        }
        self.secret(raw, name)
    }

    /// What QEMU says of a passphrase that opens no key slot.
    #[must_use]
    pub fn wrong_passphrase(&self) -> Error {
        let reason = "Invalid password, cannot unlock any keyslot".into();
        Error::InvalidOption { option: self.key_secret, reason }
    }

    /// How long trying a passphrase shall take, in milliseconds.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for what is no number.
    pub fn iter_time_ms(&self, raw: &RawOptions) -> Result<u64> {
        let name = self.iter_time;
        let Some(text) = raw.value(name) else { return Ok(DEFAULT_ITER_TIME_MS) };
        match text.parse() {
            Ok(milliseconds) => Ok(milliseconds),
            Err(_) => invalid(name, format!("Parameter '{name}' expects a number")),
        }
    }

    /// The secret that the option `name` names.
    pub(super) fn secret<'o>(&self, raw: &'o RawOptions, name: &'static str) -> Result<&'o Secret> {
        let id = raw.value(name).unwrap_or_default();
        raw.secret(id).ok_or_else(|| Error::InvalidOption {
            option: name,
            reason: format!("No secret with id '{id}'"),
        })
    }

    /// As [`secret`](Self::secret), for a passphrase that a key slot is to get: QEMU takes text
    /// alone, and could not open what was given another.
    pub(super) fn new_passphrase<'o>(
        &self,
        raw: &'o RawOptions,
        name: &'static str,
    ) -> Result<&'o Secret> {
        let secret = self.secret(raw, name)?;
        if str::from_utf8(secret.expose()).is_err() {
            let id = raw.value(name).unwrap_or_default();
            return invalid(name, format!("Data from secret {id} is not valid UTF-8"));
        }
        Ok(secret)
    }

    fn choice<T>(
        &self,
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
            return invalid(option, format!("Algorithm '{name}' not supported"));
        }
        let short = option.strip_prefix(self.prefix).unwrap_or(option);
        invalid(option, format!("Parameter '{short}' does not accept value '{name}'"))
    }
}

/// Ciphers that QEMU knows and most builds of it do not have.
const FOREIGN_CIPHERS: &[&str] = &["des", "3des", "sm4"];

fn invalid<T>(option: &'static str, reason: String) -> Result<T> {
    Err(Error::InvalidOption { option, reason })
}
