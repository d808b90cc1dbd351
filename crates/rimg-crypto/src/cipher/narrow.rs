//! CAST-128 (RFC 2144), whose blocks have 8 bytes: too short for XTS, and for disks of many
//! gigabytes. It is here to read what there is, one block at a time.

use super::{CipherMode, CipherSpec, Direction, SECTOR_BYTES};
use crate::CipherError;
use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use cast5::Cast5;
use rimg_core::num;

const BLOCK_BYTES: usize = 8;

/// CAST-128 with its key.
pub(super) struct Narrow {
    spec: CipherSpec,
    sector_bytes: usize,
    data: Box<Cast5>,
    /// What encrypts sector numbers with ESSIV.
    essiv: Option<Box<Cast5>>,
}

impl Narrow {
    pub(super) fn new(
        spec: CipherSpec,
        sector_bytes: usize,
        key: &[u8],
    ) -> Result<Self, CipherError> {
        let wrong = |_| CipherError::KeyLength { needed: spec.key_bytes(), given: key.len() };
        let cipher = |key: &[u8]| Cast5::new_from_slice(key).map(Box::new).map_err(wrong);
        let essiv = match spec.essiv_hash()? {
            Some(hash) => Some(cipher(hash.digest(&[key]).expose())?),
            None => None,
        };
        Ok(Self { spec, sector_bytes, data: cipher(key)?, essiv })
    }

    pub(super) fn run(&self, data: &mut [u8], sector: u64, direction: Direction) {
        let step = num::to_u64(self.sector_bytes) / SECTOR_BYTES;
        let mut number = sector;
        for bytes in data.chunks_exact_mut(self.sector_bytes) {
            self.run_sector(bytes, number, direction);
            number = number.wrapping_add(step);
        }
    }

    fn run_sector(&self, bytes: &mut [u8], sector: u64, direction: Direction) {
        // What the block before leaves to the next one: numbers are little-endian.
        let mut carried = self.vector(sector);
        for block in bytes.as_chunks_mut::<BLOCK_BYTES>().0 {
            let from = u64::from_le_bytes(*block);
            let to = match (self.spec.mode, direction) {
                (CipherMode::Cbc, Direction::Encrypt) => {
                    carried = encrypt(&self.data, from ^ carried);
                    carried
                }
                (CipherMode::Cbc, Direction::Decrypt) => {
                    let plain = decrypt(&self.data, from) ^ carried;
                    carried = from;
                    plain
                }
                (CipherMode::Ctr, _) => {
                    let mask = encrypt(&self.data, carried);
                    carried = carried.swap_bytes().wrapping_add(1).swap_bytes();
                    from ^ mask
                }
                (CipherMode::Ecb | CipherMode::Xts, Direction::Encrypt) => {
                    encrypt(&self.data, from)
                }
                (CipherMode::Ecb | CipherMode::Xts, Direction::Decrypt) => {
                    decrypt(&self.data, from)
                }
            };
            *block = to.to_le_bytes();
        }
    }

    fn vector(&self, sector: u64) -> u64 {
        let number = self.spec.vector_number(sector);
        self.essiv.as_ref().map_or(number, |cipher| encrypt(cipher, number))
    }
}

fn encrypt(cipher: &Cast5, block: u64) -> u64 {
    let mut bytes = block.to_le_bytes().into();
    cipher.encrypt_block(&mut bytes);
    u64::from_le_bytes(bytes.into())
}

fn decrypt(cipher: &Cast5, block: u64) -> u64 {
    let mut bytes = block.to_le_bytes().into();
    cipher.decrypt_block(&mut bytes);
    u64::from_le_bytes(bytes.into())
}
