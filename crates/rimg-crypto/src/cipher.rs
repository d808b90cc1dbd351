//! Ciphers for sectors: each sector is encrypted by itself, with its number as what makes it
//! different from others of the same contents.

mod blocks;
mod cbc;
mod ctr;
mod narrow;
mod wrapped;
mod xts;

pub use wrapped::decrypt_aes_cbc;

use crate::{CipherError, Hash};
use blocks::{Block, BlockCipher};
use core::fmt;
use narrow::Narrow;
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
    /// CAST-128 (RFC 2144) with keys of 128 bits. Its blocks have 8 bytes.
    Cast5,
    /// Serpent with keys of 128 bits.
    Serpent128,
    /// Serpent with keys of 192 bits.
    Serpent192,
    /// Serpent with keys of 256 bits.
    Serpent256,
    /// Twofish with keys of 128 bits.
    Twofish128,
    /// Twofish with keys of 192 bits.
    Twofish192,
    /// Twofish with keys of 256 bits.
    Twofish256,
}

impl CipherAlgorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Aes128,
        Self::Aes192,
        Self::Aes256,
        Self::Cast5,
        Self::Serpent128,
        Self::Serpent192,
        Self::Serpent256,
        Self::Twofish128,
        Self::Twofish192,
        Self::Twofish256,
    ];

    /// The name in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "aes-128",
            Self::Aes192 => "aes-192",
            Self::Aes256 => "aes-256",
            Self::Cast5 => "cast5-128",
            Self::Serpent128 => "serpent-128",
            Self::Serpent192 => "serpent-192",
            Self::Serpent256 => "serpent-256",
            Self::Twofish128 => "twofish-128",
            Self::Twofish192 => "twofish-192",
            Self::Twofish256 => "twofish-256",
        }
    }

    /// The name in LUKS headers, which do not tell the length of the key by it.
    #[must_use]
    pub const fn luks_name(self) -> &'static str {
        match self {
            Self::Aes128 | Self::Aes192 | Self::Aes256 => "aes",
            Self::Cast5 => "cast5",
            Self::Serpent128 | Self::Serpent192 | Self::Serpent256 => "serpent",
            Self::Twofish128 | Self::Twofish192 | Self::Twofish256 => "twofish",
        }
    }

    /// What messages call a cipher whose keys come in several lengths.
    pub(crate) const fn family_name(self) -> Option<&'static str> {
        match self {
            Self::Aes128 | Self::Aes192 | Self::Aes256 => Some("AES"),
            Self::Cast5 => None,
            Self::Serpent128 | Self::Serpent192 | Self::Serpent256 => Some("Serpent"),
            Self::Twofish128 | Self::Twofish192 | Self::Twofish256 => Some("Twofish"),
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
            Self::Aes128 | Self::Cast5 | Self::Serpent128 | Self::Twofish128 => 16,
            Self::Aes192 | Self::Serpent192 | Self::Twofish192 => 24,
            Self::Aes256 | Self::Serpent256 | Self::Twofish256 => 32,
        }
    }

    /// Whether its keys may be so long.
    const fn takes_key_of(self, bytes: usize) -> bool {
        match self {
            Self::Cast5 => bytes == 16,
            _ => matches!(bytes, 16 | 24 | 32),
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
    /// Counter mode (NIST SP 800-38A), the sector's vector being the first counter. Who sees a
    /// sector before and after a change sees what changed; QEMU has it.
    Ctr,
}

impl CipherMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xts, Self::Cbc, Self::Ecb, Self::Ctr];

    /// The name in options and headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xts => "xts",
            Self::Cbc => "cbc",
            Self::Ecb => "ecb",
            Self::Ctr => "ctr",
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
            .filter(|algorithm| algorithm.luks_name() == name)
            .find(|algorithm| {
                Self { algorithm: *algorithm, mode, iv, iv_hash }.key_bytes() == key_bytes
            })
            .ok_or_else(unknown)?;
        let spec = Self { algorithm, mode, iv, iv_hash };
        spec.check()?;
        Ok(spec)
    }

    /// The cipher's name in LUKS headers.
    #[must_use]
    pub const fn luks_name(self) -> &'static str {
        self.algorithm.luks_name()
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
            CipherMode::Cbc | CipherMode::Ecb | CipherMode::Ctr => self.algorithm.key_bytes(),
        }
    }

    /// Whether there can be such a cipher.
    ///
    /// # Errors
    /// [`CipherError`] when its parts do not go together.
    pub fn check(self) -> Result<(), CipherError> {
        if self.mode == CipherMode::Xts && self.algorithm == CipherAlgorithm::Cast5 {
            return Err(CipherError::Mode(self.mode));
        }
        self.essiv_hash().map(|_| ())
    }

    /// The hash whose digests are ESSIV's keys, when that is what makes the vectors.
    fn essiv_hash(self) -> Result<Option<Hash>, CipherError> {
        match (self.iv, self.iv_hash) {
            (IvGenerator::Essiv, None) => Err(CipherError::Unknown("essiv without a hash".into())),
            (IvGenerator::Essiv, Some(hash)) => {
                if self.algorithm.takes_key_of(hash.digest_bytes()) {
                    Ok(Some(hash))
                } else {
                    Err(CipherError::EssivHash(self.algorithm, hash))
                }
            }
            _ => Ok(None),
        }
    }

    /// What the vector of the sector with this number is made of.
    const fn vector_number(self, sector: u64) -> u64 {
        match self.iv {
            IvGenerator::Plain => sector & 0xffff_ffff,
            IvGenerator::Plain64 | IvGenerator::Essiv => sector,
        }
    }
}

/// A cipher with its key, which is forgotten when it is dropped. Threads may share it.
pub struct SectorCipher {
    spec: CipherSpec,
    sector_bytes: usize,
    keyed: Keyed,
}

enum Keyed {
    Wide(Wide),
    Narrow(Narrow),
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
        spec.check()?;
        if key.len() != spec.key_bytes() {
            return Err(CipherError::KeyLength { needed: spec.key_bytes(), given: key.len() });
        }
        let keyed = match spec.algorithm {
            CipherAlgorithm::Cast5 => Keyed::Narrow(Narrow::new(spec, sector, key)?),
            _ => Keyed::Wide(Wide::new(spec, sector, key)?),
        };
        Ok(Self { spec, sector_bytes: sector, keyed })
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
        match &self.keyed {
            Keyed::Wide(wide) => wide.run(data, sector, direction),
            Keyed::Narrow(narrow) => narrow.run(data, sector, direction),
        }
        Ok(())
    }
}

/// A cipher whose blocks have 16 bytes.
struct Wide {
    spec: CipherSpec,
    sector_bytes: usize,
    data: BlockCipher,
    /// What encrypts sector numbers with ESSIV.
    essiv: Option<BlockCipher>,
    /// XTS's second key.
    tweak: Option<BlockCipher>,
}

impl Wide {
    fn new(spec: CipherSpec, sector_bytes: usize, key: &[u8]) -> Result<Self, CipherError> {
        let wrong = || CipherError::KeyLength { needed: spec.key_bytes(), given: key.len() };
        let (first, second) = key.split_at_checked(spec.algorithm.key_bytes()).ok_or_else(wrong)?;
        let cipher = |key: &[u8]| BlockCipher::new(spec.algorithm, key).ok_or_else(wrong);
        let essiv = match spec.essiv_hash()? {
            Some(hash) => Some(cipher(hash.digest(&[key]).expose())?),
            None => None,
        };
        let tweak = if spec.mode == CipherMode::Xts { Some(cipher(second)?) } else { None };
        Ok(Self { spec, sector_bytes, data: cipher(first)?, essiv, tweak })
    }

    fn run(&self, data: &mut [u8], sector: u64, direction: Direction) {
        match (self.spec.mode, direction) {
            (CipherMode::Xts, _) => self.xts(data, sector, direction),
            (CipherMode::Cbc, Direction::Encrypt) => self.cbc_encrypt(data, sector),
            (CipherMode::Cbc, Direction::Decrypt) => self.cbc_decrypt(data, sector),
            (CipherMode::Ecb, _) => self.data.run(blocks::blocks(data), direction),
            (CipherMode::Ctr, _) => self.ctr(data, sector),
        }
    }

    /// Fills `vectors` with those of the sectors from number `sector` on. XTS's come encrypted
    /// with the second key, ready to be tweaks.
    fn vectors(&self, vectors: &mut [Block], sector: u64) {
        let step = num::to_u64(self.sector_bytes) / SECTOR_BYTES;
        let mut number = sector;
        for vector in vectors.iter_mut() {
            *vector = u128::from(self.spec.vector_number(number)).to_le_bytes().into();
            number = number.wrapping_add(step);
        }
        for cipher in [&self.essiv, &self.tweak].into_iter().flatten() {
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
