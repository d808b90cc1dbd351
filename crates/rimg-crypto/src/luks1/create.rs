//! New volumes.

use super::header::{Header, KeySlot, aligned};
use super::slot::SlotArea;
use super::{ALIGN_SECTORS, DIGEST_BYTES, LEAST_ITERATIONS, SALT_BYTES, SLOTS};
use crate::{CipherSpec, Hash, RandomSource, SectorCipher, iterations_per_second, random};
use rimg_core::num::to_u64;
use rimg_core::{Error, Result, Secret};

/// What a new volume is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewVolume {
    /// The cipher of data and key material.
    pub cipher: CipherSpec,
    /// The hash of keys and splitter.
    pub hash: Hash,
}

impl Default for NewVolume {
    /// AES-256-XTS and SHA-256, as with QEMU.
    fn default() -> Self {
        Self { cipher: CipherSpec::AES_256_XTS, hash: Hash::Sha256 }
    }
}

/// How many iterations of a hash make guessing slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iterations {
    /// For the digest that tells whether a master key is the right one.
    pub master_key: u32,
    /// For the key of a key slot.
    pub key_slot: u32,
}

impl Iterations {
    /// As few as are ever taken: for tests, and for passphrases that cannot be guessed.
    pub const LEAST: Self = Self { master_key: LEAST_ITERATIONS, key_slot: LEAST_ITERATIONS };

    /// As many as take this machine `milliseconds` for each passphrase that is tried, and an
    /// eighth of it for the master key; never fewer than [`LEAST`](Self::LEAST).
    /// Takes a moment to find out, but for 0.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when there is no number for so many.
    pub fn measured(volume: &NewVolume, milliseconds: u64) -> Result<Self> {
        if milliseconds == 0 {
            return Ok(Self::LEAST);
        }
        let rate = iterations_per_second(volume.hash);
        let scaled = |key_bytes: usize, divisor: u64| {
            let digests = to_u64(key_bytes.div_ceil(volume.hash.digest_bytes()));
            scale(rate / digests.max(1), milliseconds, divisor)
        };
        Ok(Self {
            master_key: scaled(DIGEST_BYTES, 8)?,
            key_slot: scaled(volume.cipher.key_bytes(), 1)?,
        })
    }
}

fn scale(rate: u64, milliseconds: u64, divisor: u64) -> Result<u32> {
    let refuse = |reason: String| Err(Error::InvalidOption { option: "iter-time", reason });
    let Some(product) = rate.checked_mul(milliseconds) else {
        return refuse(format!(
            "PBKDF iterations {rate} too large to scale: Numerical result out of range"
        ));
    };
    let wanted = product / 1000 / divisor;
    match u32::try_from(wanted) {
        Ok(iterations) => Ok(iterations.max(LEAST_ITERATIONS)),
        Err(_) => refuse(format!("PBKDF iterations {wanted} larger than {}", u32::MAX)),
    }
}

/// A new volume: its header, its master key, and the key material of its first slot.
#[derive(Debug, Clone)]
pub struct Volume {
    /// To be written to the start of the volume.
    pub header: Header,
    /// The key of the data.
    pub master_key: Secret,
    /// To be written before the header is.
    pub area: SlotArea,
}

impl Volume {
    /// Makes a volume with a random master key, which `passphrase` opens.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a cipher that cannot be; what `random` says.
    pub fn new(
        new: &NewVolume,
        passphrase: &Secret,
        iterations: Iterations,
        random: &mut dyn RandomSource,
    ) -> Result<Self> {
        let mut master_key = Secret::zeroed(new.cipher.key_bytes());
        random.fill(master_key.expose_mut())?;
        // Refuses what does not go together.
        SectorCipher::new(new.cipher, master_key.expose())?;
        let mut digest_salt = [0; SALT_BYTES];
        random.fill(&mut digest_salt)?;
        let mut header = Header {
            cipher_name: new.cipher.luks_name().to_owned(),
            cipher_mode: new.cipher.luks_mode(),
            hash_spec: new.hash.name().to_owned(),
            payload_offset: 0,
            key_bytes: u32::try_from(new.cipher.key_bytes()).unwrap_or(u32::MAX),
            digest: [0; DIGEST_BYTES],
            digest_salt,
            digest_iterations: iterations.master_key,
            uuid: random::uuid(random)?,
            slots: [KeySlot { active: None, material_sector: 0 }; SLOTS],
        };
        header.digest = header.digest_of(&master_key)?;
        let each = aligned(header.material_sectors());
        let mut sector = ALIGN_SECTORS;
        for slot in &mut header.slots {
            slot.material_sector = sector;
            sector = sector.saturating_add(each);
        }
        header.payload_offset = sector;
        let area = header.fill_slot(0, passphrase, &master_key, iterations.key_slot, random)?;
        Ok(Self { header, master_key, area })
    }
}

/// How many bytes the header of a new volume takes, key material included.
impl NewVolume {
    /// How long header and key material of such a volume are together, in bytes.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        let key_bytes = u32::try_from(self.cipher.key_bytes()).unwrap_or(u32::MAX);
        let each = aligned(key_bytes.saturating_mul(super::STRIPES).div_ceil(512));
        let slots = u64::from(each).saturating_mul(8);
        slots.saturating_add(ALIGN_SECTORS.into()).saturating_mul(super::SECTOR_BYTES)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::test::Counting;
    use crate::{CipherAlgorithm, CipherMode, IvGenerator};

    pub(crate) fn volume() -> Volume {
        let passphrase = Secret::from("abc");
        let new = NewVolume::default();
        Volume::new(&new, &passphrase, Iterations::LEAST, &mut Counting::default()).unwrap()
    }

    #[test]
    fn the_same_randomness_makes_the_same_volume() {
        let (one, other) = (volume(), volume());
        assert_eq!(one.header, other.header);
        assert_eq!(one.area, other.area);
    }

    /// The key takes two digests of SHA-256, the digest of the master key one.
    #[test]
    fn a_longer_key_gets_fewer_iterations() {
        let found = Iterations::measured(&NewVolume::default(), 1000).unwrap();
        let of_key_slot = found.master_key.saturating_mul(8) / 2;
        assert!(found.key_slot.abs_diff(of_key_slot) <= 8, "{found:?}");
    }

    #[test]
    fn data_starts_where_qemu_has_it() {
        for (algorithm, mode, offset) in [
            (CipherAlgorithm::Aes256, CipherMode::Xts, 2_068_480),
            (CipherAlgorithm::Aes256, CipherMode::Cbc, 1_052_672),
            (CipherAlgorithm::Aes128, CipherMode::Cbc, 528_384),
        ] {
            let cipher = CipherSpec { algorithm, mode, iv: IvGenerator::Plain64, iv_hash: None };
            let new = NewVolume { cipher, hash: Hash::Sha1 };
            assert_eq!(new.header_bytes(), offset);
            let passphrase = Secret::from("");
            let made = Volume::new(&new, &passphrase, Iterations::LEAST, &mut Counting::default());
            assert_eq!(made.unwrap().header.payload_offset(), offset);
        }
    }

    #[test]
    fn times_become_iterations() {
        assert_eq!(scale(1_000_000, 2000, 1).unwrap(), 2_000_000);
        assert_eq!(scale(1_000_000, 2000, 8).unwrap(), 250_000);
        assert_eq!(scale(1_000_000, 0, 8).unwrap(), 1000);
        let reason = |rate, time| scale(rate, time, 1).unwrap_err().to_string();
        assert_eq!(
            reason(6_425_098, u64::MAX),
            "PBKDF iterations 6425098 too large to scale: Numerical result out of range"
        );
        assert_eq!(
            reason(1_000_000, 5_000_000),
            "PBKDF iterations 5000000000 larger than 4294967295"
        );
    }
}
