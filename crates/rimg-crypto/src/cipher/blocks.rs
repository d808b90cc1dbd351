//! Block ciphers with blocks of 16 bytes, on many blocks at a time.

use super::{CipherAlgorithm, Direction};
use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use serpent::Serpent;
use twofish::Twofish;

/// 16 bytes.
pub(super) type Block = Array<u8, U16>;

/// A key that is ready for use. It is overwritten when dropped.
pub(super) enum BlockCipher {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
    Serpent(Box<Serpent>),
    Twofish(Box<Twofish>),
}

impl BlockCipher {
    /// The cipher that `algorithm` is of, with a key of any of its lengths. `None` for a length
    /// that there is not, and for ciphers of other blocks.
    pub(super) fn new(algorithm: CipherAlgorithm, key: &[u8]) -> Option<Self> {
        match algorithm.luks_name() {
            "aes" => Self::aes(key),
            "serpent" => Some(Self::Serpent(Box::new(Serpent::new_from_slice(key).ok()?))),
            "twofish" => Some(Self::Twofish(Box::new(Twofish::new_from_slice(key).ok()?))),
            _ => None,
        }
    }

    /// AES; `None` for a length that it does not have.
    pub(super) fn aes(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Self::Aes128(Box::new(Aes128::new_from_slice(key).ok()?)),
            24 => Self::Aes192(Box::new(Aes192::new_from_slice(key).ok()?)),
            32 => Self::Aes256(Box::new(Aes256::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    /// Each block by itself.
    pub(super) fn run(&self, blocks: &mut [Block], direction: Direction) {
        match self {
            Self::Aes128(key) => run(key.as_ref(), blocks, direction),
            Self::Aes192(key) => run(key.as_ref(), blocks, direction),
            Self::Aes256(key) => run(key.as_ref(), blocks, direction),
            Self::Serpent(key) => run(key.as_ref(), blocks, direction),
            Self::Twofish(key) => run(key.as_ref(), blocks, direction),
        }
    }
}

fn run<C>(cipher: &C, blocks: &mut [Block], direction: Direction)
where
    C: BlockCipherEncrypt<BlockSize = U16> + BlockCipherDecrypt,
{
    match direction {
        Direction::Encrypt => cipher.encrypt_blocks(blocks),
        Direction::Decrypt => cipher.decrypt_blocks(blocks),
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
