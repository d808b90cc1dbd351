//! From a passphrase to the data's key.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Header;
use super::metadata::{Kdf, KeySlot};
use crate::{SectorCipher, af};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use rimg_core::{Error, Limits, Result, Secret, Storage, num};

const KIB: u64 = 1024;

impl Header {
    /// Tries a passphrase on every key slot of the volume that starts at offset `at` of `file`.
    /// The data's key, or `None` when it opens none.
    ///
    /// # Errors
    /// [`Error::Limit`] for a slot that asks for too much memory or work, what the storage says.
    pub fn unlock(
        &self,
        file: &dyn Storage,
        at: u64,
        passphrase: &Secret,
        limits: &Limits,
    ) -> Result<Option<Secret>> {
        for slot in &self.metadata.slots {
            let key = slot.key(file, at, passphrase, limits)?;
            if self.is_right(&key, limits)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// The cipher of the data. Sectors are numbered from
    /// [`first_sector`](super::Segment::first_sector) on.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the key does not fit the cipher.
    pub fn data_cipher(&self, key: &Secret) -> Result<SectorCipher> {
        let segment = self.segment();
        let (cipher, sector) = (segment.cipher, segment.sector_bytes);
        Ok(SectorCipher::with_sector_bytes(cipher, key.expose(), sector)?)
    }

    fn is_right(&self, key: &Secret, limits: &Limits) -> Result<bool> {
        let digest = &self.metadata.digest;
        check_work(digest.iterations.into(), limits)?;
        let len = digest.digest.len();
        let found = digest.hash.pbkdf2(key.expose(), &digest.salt, digest.iterations, len);
        Ok(found.is(&digest.digest))
    }
}

impl KeySlot {
    /// What the slot gives for a passphrase, right or wrong.
    fn key(
        &self,
        file: &dyn Storage,
        at: u64,
        passphrase: &Secret,
        limits: &Limits,
    ) -> Result<Secret> {
        let key = self.kdf.derive(passphrase, self.area_cipher.key_bytes(), limits)?;
        let cipher = SectorCipher::new(self.area_cipher, key.expose())?;
        // At most 4000 keys of 64 bytes.
        let mut material = Secret::zeroed(num::to_usize(self.area_bytes)?);
        let from = at.saturating_add(self.area_offset);
        file.read_exact_at(material.expose_mut(), from)
            .map_err(Error::io("read key material", from))?;
        cipher.decrypt(material.expose_mut(), 0)?;
        let split = self.key_bytes.saturating_mul(4000);
        let split = material.expose().get(..split).unwrap_or_default();
        Ok(af::merge(split, self.key_bytes, self.af_hash))
    }
}

impl Kdf {
    fn derive(&self, passphrase: &Secret, len_bytes: usize, limits: &Limits) -> Result<Secret> {
        match self {
            Self::Pbkdf2 { hash, iterations, salt } => {
                check_work((*iterations).into(), limits)?;
                Ok(hash.pbkdf2(passphrase.expose(), salt, *iterations, len_bytes))
            }
            Self::Argon2 { is_id, passes, memory_kib, lanes, salt } => {
                let needed = u64::from(*memory_kib).saturating_mul(KIB);
                if needed > limits.key_memory_bytes {
                    let what = "key derivation in bytes of memory";
                    return Err(Error::Limit { what, needed, limit: limits.key_memory_bytes });
                }
                check_work(u64::from(*passes).saturating_mul((*memory_kib).into()), limits)?;
                let algorithm = if *is_id { Algorithm::Argon2id } else { Algorithm::Argon2i };
                let wrong = |error: argon2::Error| Error::Unsupported {
                    format: crate::error::FORMAT,
                    feature: format!("LUKS2 key derivation: {error}"),
                };
                let params = Params::new(*memory_kib, *passes, *lanes, Some(len_bytes));
                let params = params.map_err(wrong)?;
                let mut blocks: Vec<Block> = Vec::new();
                let count = params.block_count();
                let no_memory = |_| Error::Limit {
                    what: "key derivation in bytes of memory",
                    needed,
                    limit: 0,
                };
                blocks.try_reserve_exact(count).map_err(no_memory)?;
                blocks.resize(count, Block::new());
                let mut key = Secret::zeroed(len_bytes);
                Argon2::new(algorithm, Version::V0x13, params)
                    .hash_password_into_with_memory(
                        passphrase.expose(),
                        salt,
                        key.expose_mut(),
                        &mut blocks,
                    )
                    .map_err(wrong)?;
                Ok(key)
            }
        }
    }
}

/// Iterations of a hash, or kibibytes that are filled: both take some time each.
fn check_work(needed: u64, limits: &Limits) -> Result<()> {
    let limit = limits.key_iterations.into();
    if needed > limit {
        return Err(Error::Limit { what: "key derivation in iterations", needed, limit });
    }
    Ok(())
}
