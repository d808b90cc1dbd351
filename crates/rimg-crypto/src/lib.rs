#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod af;
mod cipher;
mod error;
mod hash;
pub mod luks1;
pub mod luks2;
mod pbkdf;
mod random;
#[cfg(test)]
mod test;

pub use cipher::{
    CipherAlgorithm, CipherMode, CipherSpec, IvGenerator, SectorCipher, decrypt_aes_cbc,
};
pub use error::CipherError;
pub use hash::{Hash, Hasher};
pub use pbkdf::iterations_per_second;
pub use random::{OsRandom, RandomSource};
