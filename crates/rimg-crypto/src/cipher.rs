//! Ciphers for sectors: each sector is encrypted by itself, with its number as what makes it
//! different from others of the same contents.

mod aes;
mod cbc;
mod wrapped;
mod xts;

pub use wrapped::decrypt_aes_cbc;

use crate::{CipherError, Hash};
use aes::{Aes, Block};
use core::fmt;
use rimg_core::{Error, Result, num};

/// The unit in which sectors are numbered, and their smallest size.
const SECTOR_BYTES: u64 = 512;
const MAX_SECTOR_BYTES: u64 = 4096;
const BLOCK_BYTES: usize = 16;

/// A block cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CipherAlgorithm {
    /// AES (FIPS 197) with keys of 128 bits.
    Aes128,
    /// AES with keys of 192 bits.
    Aes192,
    /// AES with keys of 256 bits.
    Aes256,
}

impl CipherAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aes128, Self::Aes192, Self::Aes256];

    /// The name in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "aes-128",
            Self::Aes192 => "aes-192",
            Self::Aes256 => "aes-256",
        }
    }

    /// The cipher with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// How long its keys are, in bytes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// How the blocks of a sector are chained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CipherMode {
    /// XTS (IEEE 1619); the key is twice as long as the cipher's.
    Xts,
    /// Cipher block chaining (NIST SP 800-38A).
    Cbc,
    /// Each block by itself, whatever the sector. Safe for nothing; QEMU has it.
    Ecb,
}

impl CipherMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xts, Self::Cbc, Self::Ecb];

    /// The name in options and headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xts => "xts",
            Self::Cbc => "cbc",
            Self::Ecb => "ecb",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// How a sector's initialisation vector is made from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IvGenerator {
    /// The lower 32 bits of the number, little-endian.
    Plain,
    /// The number, little-endian.
    Plain64,
    /// The number, encrypted with a hash of the key.
    Essiv,
}

impl IvGenerator {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Plain64, Self::Essiv];

    /// The name in options and headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Essiv => "essiv",
        }
    }

    /// The generator with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|generator| generator.name() == name)
    }
}

/// All that a cipher needs but its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CipherSpec {
    /// The block cipher.
    pub algorithm: CipherAlgorithm,
    /// How blocks are chained.
    pub mode: CipherMode,
    /// How initialisation vectors are made.
    pub iv: IvGenerator,
    /// The hash for [`IvGenerator::Essiv`]; others may name one that they do not use.
    pub iv_hash: Option<Hash>,
}

impl CipherSpec {
    /// AES-256-XTS by sector number: what LUKS uses unless told otherwise.
    pub const AES_256_XTS: Self = Self {
        algorithm: CipherAlgorithm::Aes256,
        mode: CipherMode::Xts,
        iv: IvGenerator::Plain64,
        iv_hash: None,
    };

    /// The cipher by the words of LUKS: "aes", "xts-plain64", and the length of the key in bytes.
    ///
    /// # Errors
    /// [`CipherError`] when this crate has no such cipher.
    pub fn from_luks(name: &str, mode: &str, key_bytes: usize) -> Result<Self, CipherError> {
        let unknown = || CipherError::Unknown(format!("{name}-{mode} with {key_bytes} byte keys"));
        let (mode, iv) = mode.split_once('-').ok_or_else(unknown)?;
        let mode = CipherMode::from_name(mode).ok_or_else(unknown)?;
        let (iv, iv_hash) = match iv.split_once(':') {
            Some((iv, hash)) => (iv, Some(Hash::from_name(hash).ok_or_else(unknown)?)),
            None => (iv, None),
        };
        let iv = IvGenerator::from_name(iv).ok_or_else(unknown)?;
        let algorithm = CipherAlgorithm::ALL
            .into_iter()
            .find(|algorithm| {
                Self { algorithm: *algorithm, mode, iv, iv_hash }.key_bytes() == key_bytes
            })
            .filter(|_| name == "aes")
            .ok_or_else(unknown)?;
        let spec = Self { algorithm, mode, iv, iv_hash };
        spec.essiv_hash()?;
        Ok(spec)
    }

    /// The cipher's name in LUKS headers.
    #[must_use]
    pub const fn luks_name(self) -> &'static str {
        "aes"
    }

    /// The mode's text in LUKS headers, such as "cbc-essiv:sha256".
    #[must_use]
    pub fn luks_mode(self) -> String {
        let (mode, iv) = (self.mode.name(), self.iv.name());
        match self.iv_hash {
            Some(hash) => format!("{mode}-{iv}:{}", hash.name()),
            None => format!("{mode}-{iv}"),
        }
    }

    /// How long the key is, in bytes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self.mode {
            CipherMode::Xts => self.algorithm.key_bytes().saturating_mul(2),
            CipherMode::Cbc | CipherMode::Ecb => self.algorithm.key_bytes(),
        }
    }

    /// The hash whose digests are ESSIV's keys, when that is what makes the vectors.
    ///
    /// # Errors
    /// [`CipherError`] when there is none, or none whose digests can be keys of AES.
    pub fn essiv_hash(self) -> Result<Option<Hash>, CipherError> {
        match (self.iv, self.iv_hash) {
            (IvGenerator::Essiv, None) => Err(CipherError::Unknown("essiv without a hash".into())),
            (IvGenerator::Essiv, Some(hash)) => match hash.digest_bytes() {
                16 | 24 | 32 => Ok(Some(hash)),
                _ => Err(CipherError::EssivHash(hash)),
            },
            _ => Ok(None),
        }
    }
}

/// A cipher with its key, which is forgotten when it is dropped. Threads may share it.
pub struct SectorCipher {
    spec: CipherSpec,
    sector_bytes: usize,
    data: Aes,
    /// XTS's second key, or ESSIV's.
    iv: Option<Aes>,
}

impl SectorCipher {
    /// A cipher for sectors of 512 bytes.
    ///
    /// # Errors
    /// [`CipherError`] when the key does not fit the cipher.
    pub fn new(spec: CipherSpec, key: &[u8]) -> Result<Self, CipherError> {
        Self::with_sector_bytes(spec, key, SECTOR_BYTES)
    }

    /// A cipher for sectors of 512 to 4096 bytes, a power of two. Whatever their size, they are
    /// numbered by their offset in units of 512 bytes, as LUKS2 does.
    ///
    /// # Errors
    /// [`CipherError`] when the key does not fit the cipher, or for another size.
    pub fn with_sector_bytes(
        spec: CipherSpec,
        key: &[u8],
        sector_bytes: u64,
    ) -> Result<Self, CipherError> {
        let possible = (SECTOR_BYTES..=MAX_SECTOR_BYTES).contains(&sector_bytes);
        let (true, true, Ok(sector)) =
            (possible, sector_bytes.is_power_of_two(), usize::try_from(sector_bytes))
        else {
            return Err(CipherError::SectorBytes(sector_bytes));
        };
        let wrong = || CipherError::KeyLength { needed: spec.key_bytes(), given: key.len() };
        if key.len() != spec.key_bytes() {
            return Err(wrong());
        }
        let (first, second) = key.split_at_checked(spec.algorithm.key_bytes()).ok_or_else(wrong)?;
        let iv = match spec.essiv_hash()? {
            _ if spec.mode == CipherMode::Xts && spec.iv != IvGenerator::Essiv => {
                Some(Aes::new(second).ok_or_else(wrong)?)
            }
            // ESSIV under XTS would take a third key.
            Some(_) if spec.mode == CipherMode::Xts => {
                return Err(CipherError::Unknown("xts-essiv".into()));
            }
            Some(hash) => {
                let key = hash.digest(&[key]);
                Some(Aes::new(key.expose()).ok_or(CipherError::EssivHash(hash))?)
            }
            None => None,
        };
        Ok(Self { spec, sector_bytes: sector, data: Aes::new(first).ok_or_else(wrong)?, iv })
    }

    /// What it was made as.
    #[must_use]
    pub const fn spec(&self) -> CipherSpec {
        self.spec
    }

    /// The size of a sector in bytes.
    #[must_use]
    pub const fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    /// Encrypts whole sectors where they are; the first one has the number `sector` (in units of
    /// 512 bytes).
    ///
    /// # Errors
    /// [`Error::Misuse`] for a part of a sector.
    pub fn encrypt(&self, data: &mut [u8], sector: u64) -> Result<()> {
        self.run(data, sector, Direction::Encrypt)
    }

    /// Decrypts whole sectors where they are; otherwise as [`encrypt`](Self::encrypt).
    ///
    /// # Errors
    /// As for [`encrypt`](Self::encrypt).
    pub fn decrypt(&self, data: &mut [u8], sector: u64) -> Result<()> {
        self.run(data, sector, Direction::Decrypt)
    }

    fn run(&self, data: &mut [u8], sector: u64, direction: Direction) -> Result<()> {
        if !data.len().is_multiple_of(self.sector_bytes) {
            return Err(Error::Misuse("a part of a sector cannot be encrypted"));
        }
        match (self.spec.mode, direction) {
            (CipherMode::Xts, _) => self.xts(data, sector, direction),
            (CipherMode::Cbc, Direction::Encrypt) => self.cbc_encrypt(data, sector),
            (CipherMode::Cbc, Direction::Decrypt) => self.cbc_decrypt(data, sector),
            (CipherMode::Ecb, _) => self.data.run(aes::blocks(data), direction),
        }
        Ok(())
    }

    /// Fills `vectors` with those of the sectors from number `sector` on. XTS's come encrypted
    /// with the second key, ready to be tweaks; so do ESSIV's, by their nature.
    fn vectors(&self, vectors: &mut [Block], sector: u64) {
        let step = num::to_u64(self.sector_bytes) / SECTOR_BYTES;
        let mut number = sector;
        for vector in vectors.iter_mut() {
            let bits = match self.spec.iv {
                IvGenerator::Plain => number & u64::from(u32::MAX),
                IvGenerator::Plain64 | IvGenerator::Essiv => number,
            };
            *vector = u128::from(bits).to_le_bytes().into();
            number = number.wrapping_add(step);
        }
        if let Some(cipher) = &self.iv {
            cipher.run(vectors, Direction::Encrypt);
        }
    }
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectorCipher")
            .field("spec", &self.spec)
            .field("sector_bytes", &self.sector_bytes)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

#[cfg(test)]
mod tests;
