//! Key slots: opening one, filling one, emptying one (sections 4.1 to 4.4).
#![warn(clippy::indexing_slicing)]

use super::header::{ActiveSlot, Header};
use super::{DIGEST_BYTES, SALT_BYTES, SECTOR_BYTES};
use crate::{Hash, RandomSource, SectorCipher, af};
use rimg_core::{Error, Limits, Result, Secret, Storage, num};

/// What a passphrase gave.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Which key slot it opened.
    pub slot: usize,
    /// The key of the data.
    pub master_key: Secret,
}

/// Bytes that belong to a key slot, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotArea {
    /// In bytes from the start of the header.
    pub offset: u64,
    /// Encrypted key material, or what destroys it.
    pub bytes: Vec<u8>,
}

impl Header {
    /// Tries a passphrase on every active key slot of the volume that starts at offset `at` of
    /// `file`. `None` when it opens none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a cipher or hash that this crate does not have,
    /// [`Error::Limit`] for a slot that asks for too many iterations, what the storage says.
    pub fn unlock(
        &self,
        file: &dyn Storage,
        at: u64,
        passphrase: &Secret,
        limits: &Limits,
    ) -> Result<Option<Opened>> {
        self.cipher()?;
        check_iterations(self.digest_iterations, limits)?;
        for slot in 0..self.slots.len() {
            if let Some(master_key) = self.try_slot(slot, file, at, passphrase, limits)? {
                return Ok(Some(Opened { slot, master_key }));
            }
        }
        Ok(None)
    }

    /// Tries a passphrase on one key slot; otherwise as [`unlock`](Self::unlock).
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn try_slot(
        &self,
        slot: usize,
        file: &dyn Storage,
        at: u64,
        passphrase: &Secret,
        limits: &Limits,
    ) -> Result<Option<Secret>> {
        let Some(slot) = self.slots.get(slot) else { return Ok(None) };
        let Some(active) = &slot.active else { return Ok(None) };
        check_iterations(active.iterations, limits)?;
        let (hash, cipher) = (self.hash()?, self.slot_cipher(active, passphrase)?);
        // At most 4000 keys of 64 bytes.
        let mut material = Secret::zeroed(self.material_bytes()?);
        let from = at.saturating_add(slot.material_offset());
        file.read_exact_at(material.expose_mut(), from)
            .map_err(Error::io("read key material", from))?;
        cipher.decrypt(material.expose_mut(), 0)?;
        let key_bytes = num::to_usize(self.key_bytes.into())?;
        let split = material.expose().get(..self.split_bytes()?).unwrap_or_default();
        let master_key = af::merge(split, key_bytes, hash);
        let is_right = Secret::from(&self.digest_of(&master_key)?[..]).is(&self.digest);
        Ok(is_right.then_some(master_key))
    }

    /// Makes slot `slot` one that `passphrase` opens. What it returns has to be durable before the
    /// header, as it is then, is written.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a slot that there is not, what `random` says.
    pub fn fill_slot(
        &mut self,
        slot: usize,
        passphrase: &Secret,
        master_key: &Secret,
        iterations: u32,
        random: &mut dyn RandomSource,
    ) -> Result<SlotArea> {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt)?;
        let active = ActiveSlot { iterations: iterations.max(1), salt };
        let mut material = af::split(master_key, super::STRIPES, self.hash()?, random)?;
        let mut bytes = material.expose().to_vec();
        zeroize::Zeroize::zeroize(material.expose_mut());
        bytes.resize(self.material_bytes()?, 0);
        self.slot_cipher(&active, passphrase)?.encrypt(&mut bytes, 0)?;
        let place = self.slots.get_mut(slot).ok_or(Error::Misuse("no such key slot"))?;
        place.active = Some(active);
        Ok(SlotArea { offset: place.material_offset(), bytes })
    }

    /// Empties slot `slot`. The header, as it is then, has to be written and durable before what
    /// is returned is: random bytes over the key material.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a slot that there is not, what `random` says.
    pub fn erase_slot(&mut self, slot: usize, random: &mut dyn RandomSource) -> Result<SlotArea> {
        let mut bytes = vec![0; self.material_bytes()?];
        random.fill(&mut bytes)?;
        let place = self.slots.get_mut(slot).ok_or(Error::Misuse("no such key slot"))?;
        place.active = None;
        Ok(SlotArea { offset: place.material_offset(), bytes })
    }

    /// The first slot that nobody uses.
    #[must_use]
    pub fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(|slot| !slot.is_active())
    }

    /// The cipher of the data.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when this crate does not have it.
    pub fn data_cipher(&self, master_key: &Secret) -> Result<SectorCipher> {
        Ok(SectorCipher::new(self.cipher()?, master_key.expose())?)
    }

    /// What tells whether a master key is the right one.
    pub(super) fn digest_of(&self, master_key: &Secret) -> Result<[u8; DIGEST_BYTES]> {
        let hash: Hash = self.hash()?;
        let key = master_key.expose();
        let digest = hash.pbkdf2(key, &self.digest_salt, self.digest_iterations, DIGEST_BYTES);
        Ok(digest.expose().first_chunk().copied().unwrap_or_default())
    }

    /// The cipher of a slot's key material.
    fn slot_cipher(&self, slot: &ActiveSlot, passphrase: &Secret) -> Result<SectorCipher> {
        let spec = self.cipher()?;
        let hash = self.hash()?;
        let key = hash.pbkdf2(passphrase.expose(), &slot.salt, slot.iterations, spec.key_bytes());
        Ok(SectorCipher::new(spec, key.expose())?)
    }

    fn split_bytes(&self) -> Result<usize> {
        num::to_usize(u64::from(self.key_bytes).saturating_mul(super::STRIPES.into()))
    }

    /// The length of a slot's key material in whole sectors.
    fn material_bytes(&self) -> Result<usize> {
        num::to_usize(u64::from(self.material_sectors()).saturating_mul(SECTOR_BYTES))
    }
}

fn check_iterations(iterations: u32, limits: &Limits) -> Result<()> {
    if iterations > limits.key_iterations {
        return Err(Error::Limit {
            what: "key derivation in iterations",
            needed: iterations.into(),
            limit: limits.key_iterations.into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::create::tests::volume;
    use super::*;
    use crate::luks1::{Iterations, NewVolume, Volume};
    use crate::test::Counting;
    use crate::{CipherAlgorithm, CipherMode, CipherSpec, IvGenerator};
    use rimg_testkit::MemoryStorage;

    fn file(header: &Header, areas: &[SlotArea]) -> MemoryStorage {
        let mut bytes = vec![0; num::to_usize(header.payload_offset()).unwrap()];
        bytes[..592].copy_from_slice(&header.encode());
        for area in areas {
            let at = num::to_usize(area.offset).unwrap();
            bytes[at..at + area.bytes.len()].copy_from_slice(&area.bytes);
        }
        MemoryStorage::from(bytes)
    }

    #[test]
    fn only_the_passphrase_opens_the_volume() {
        let made = volume();
        let file = file(&made.header, std::slice::from_ref(&made.area));
        let open = |word: &str| {
            made.header.unlock(&file, 0, &Secret::from(word), &Limits::default()).unwrap()
        };
        let opened = open("abc").unwrap();
        assert_eq!((opened.slot, opened.master_key), (0, made.master_key.clone()));
        for word in ["", "ab", "abcd", "ABC"] {
            assert!(open(word).is_none(), "{word}");
        }
    }

    #[test]
    fn every_cipher_and_hash_opens_again() {
        for algorithm in CipherAlgorithm::ALL {
            for (mode, iv, iv_hash) in [
                (CipherMode::Xts, IvGenerator::Plain64, None),
                (CipherMode::Cbc, IvGenerator::Plain, None),
                (CipherMode::Cbc, IvGenerator::Essiv, Some(Hash::Sha256)),
                (CipherMode::Ecb, IvGenerator::Plain64, None),
            ] {
                let hash = Hash::Ripemd160;
                let cipher = CipherSpec { algorithm, mode, iv, iv_hash };
                if cipher.check().is_err() {
                    assert_eq!(algorithm, CipherAlgorithm::Cast5);
                    continue;
                }
                let new = NewVolume { cipher, hash };
                let passphrase = Secret::from("abc");
                let mut random = Counting::default();
                let iterations = Iterations { master_key: 2, key_slot: 3 };
                let made = Volume::new(&new, &passphrase, iterations, &mut random).unwrap();
                let file = file(&made.header, std::slice::from_ref(&made.area));
                let opened = made.header.unlock(&file, 0, &passphrase, &Limits::default());
                assert_eq!(opened.unwrap().unwrap().master_key, made.master_key, "{new:?}");
            }
        }
    }

    #[test]
    fn slots_come_and_go() {
        let Volume { mut header, master_key, area } = volume();
        let (old, new) = (Secret::from("abc"), Secret::from("new"));
        let mut random = Counting::default();
        assert_eq!(header.free_slot(), Some(1));
        let second = header.fill_slot(1, &new, &master_key, 1000, &mut random).unwrap();
        let image = file(&header, &[area.clone(), second.clone()]);
        let limits = Limits::default();
        let slot = |header: &Header, image: &MemoryStorage, word: &Secret| {
            header.unlock(image, 0, word, &limits).unwrap().map(|opened| opened.slot)
        };
        assert_eq!(slot(&header, &image, &old), Some(0));
        assert_eq!(slot(&header, &image, &new), Some(1));
        let erased = header.erase_slot(0, &mut random).unwrap();
        assert_ne!(erased.bytes, area.bytes);
        let image = file(&header, &[erased, second]);
        assert_eq!(slot(&header, &image, &old), None);
        assert_eq!(slot(&header, &image, &new), Some(1));
        assert_eq!(Header::parse(&header.encode(), 0).unwrap(), header);
    }

    #[test]
    fn what_a_slot_costs_is_limited() {
        let made = volume();
        let file = file(&made.header, std::slice::from_ref(&made.area));
        let limits = {
            let mut limits = Limits::default();
            limits.key_iterations = 999;
            limits
        };
        let error = made.header.unlock(&file, 0, &Secret::from("abc"), &limits).unwrap_err();
        assert!(matches!(error, Error::Limit { needed: 1000, limit: 999, .. }), "{error}");
    }

    #[test]
    fn material_that_is_not_there_is_an_error() {
        let made = volume();
        let file = MemoryStorage::from(made.header.encode().to_vec());
        let error =
            made.header.unlock(&file, 0, &Secret::from("abc"), &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Io { op: "read key material", at: 4096, .. }), "{error}");
    }
}
