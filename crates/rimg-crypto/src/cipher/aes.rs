//! AES with keys of any of its lengths, on many blocks at a time.

use super::Direction;
use ::aes::cipher::array::Array;
use ::aes::cipher::consts::U16;
use ::aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use ::aes::{Aes128, Aes192, Aes256};

/// 16 bytes.
pub(super) type Block = Array<u8, U16>;

/// A key that is ready for use. It is overwritten when dropped.
pub(super) enum Aes {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

impl Aes {
    /// `None` for a length that AES does not have.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Self::Aes128(Box::new(Aes128::new_from_slice(key).ok()?)),
            24 => Self::Aes192(Box::new(Aes192::new_from_slice(key).ok()?)),
            32 => Self::Aes256(Box::new(Aes256::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    /// Each block by itself.
    pub(super) fn run(&self, blocks: &mut [Block], direction: Direction) {
        match (self, direction) {
            (Self::Aes128(key), Direction::Encrypt) => key.encrypt_blocks(blocks),
            (Self::Aes128(key), Direction::Decrypt) => key.decrypt_blocks(blocks),
            (Self::Aes192(key), Direction::Encrypt) => key.encrypt_blocks(blocks),
            (Self::Aes192(key), Direction::Decrypt) => key.decrypt_blocks(blocks),
            (Self::Aes256(key), Direction::Encrypt) => key.encrypt_blocks(blocks),
            (Self::Aes256(key), Direction::Decrypt) => key.decrypt_blocks(blocks),
        }
    }
}

/// The whole blocks of `data`.
pub(super) fn blocks(data: &mut [u8]) -> &mut [Block] {
    Block::slice_as_chunks_mut(data).0
}

/// A block as a number whose lowest bit is the lowest bit of the first byte.
pub(super) fn number(block: &Block) -> u128 {
    u128::from_le_bytes((*block).into())
}

/// The block that a number stands for.
pub(super) fn block(number: u128) -> Block {
    number.to_le_bytes().into()
}
