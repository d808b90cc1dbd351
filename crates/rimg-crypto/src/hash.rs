//! Hashes by the names of LUKS, and what is made of them.

use core::fmt;
use md5::Md5;
use rimg_core::Secret;
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::digest::{Digest, DynDigest};
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sm3::Sm3;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hash {
    /// SHA-1 (FIPS 180-4).
    Sha1,
    /// SHA-224 (FIPS 180-4).
    Sha224,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// RIPEMD-160.
    Ripemd160,
    /// MD5 (RFC 1321). Broken; QEMU has it.
    Md5,
    /// SM3 (GB/T 32905).
    Sm3,
}

/// Calls a function with the type that a [`Hash`] stands for.
macro_rules! with_type {
    ($hash:expr, $function:ident($($argument:expr),*)) => {
        match $hash {
            Hash::Sha1 => $function::<Sha1>($($argument),*),
            Hash::Sha224 => $function::<Sha224>($($argument),*),
            Hash::Sha256 => $function::<Sha256>($($argument),*),
            Hash::Sha384 => $function::<Sha384>($($argument),*),
            Hash::Sha512 => $function::<Sha512>($($argument),*),
            Hash::Ripemd160 => $function::<Ripemd160>($($argument),*),
            Hash::Md5 => $function::<Md5>($($argument),*),
            Hash::Sm3 => $function::<Sm3>($($argument),*),
        }
    };
}

impl Hash {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Ripemd160,
        Self::Md5,
        Self::Sm3,
    ];

    /// The name in headers and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Ripemd160 => "ripemd160",
            Self::Md5 => "md5",
            Self::Sm3 => "sm3",
        }
    }

    /// The hash with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// How long its digests are, in bytes.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 | Self::Ripemd160 => 20,
            Self::Sha224 => 28,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `parts`, one behind the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> Secret {
        with_type!(self, digest_of(parts))
    }

    /// For bytes that come piece by piece.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        Hasher { state: with_type!(self, hasher_of()), digest_bytes: self.digest_bytes() }
    }

    /// PBKDF2 with HMAC (RFC 8018, section 5.2): `len_bytes` bytes from a password and a salt,
    /// with so many iterations. 0 iterations are as 1.
    #[must_use]
    pub fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32, len_bytes: usize) -> Secret {
        let mut key = Secret::zeroed(len_bytes);
        with_type!(self, derive(password, salt, iterations, key.expose_mut()));
        key
    }
}

/// A hash of what has come so far.
pub struct Hasher {
    state: Box<dyn DynDigest + Send>,
    digest_bytes: usize,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let mut digest = vec![0; self.digest_bytes];
        // The length is the hash's own, which is all that can be wrong.
        let _ = self.state.finalize_into_reset(&mut digest);
        digest
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("digest_bytes", &self.digest_bytes).finish_non_exhaustive()
    }
}

fn hasher_of<D: Digest + DynDigest + Send + 'static>() -> Box<dyn DynDigest + Send> {
    Box::new(<D as Digest>::new())
}

fn digest_of<D: Digest>(parts: &[&[u8]]) -> Secret {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    Secret::from(hash.finalize().as_slice())
}

fn derive<D: pbkdf2::hmac::EagerHash>(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    key: &mut [u8],
) {
    pbkdf2::pbkdf2_hmac::<D>(password, salt, iterations, key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::hex;

    #[test]
    fn digests_of_abc() {
        // FIPS 180-4, the RIPEMD-160 paper, RFC 1321, GB/T 32905.
        let expected = [
            "a9993e364706816aba3e25717850c26c9cd0d89d",
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
            "900150983cd24fb0d6963f7d28e17f72",
            "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
        ];
        for (hash, expected) in Hash::ALL.into_iter().zip(expected) {
            assert_eq!(hash.digest(&[b"a", b"", b"bc"]).expose(), hex(expected), "{hash:?}");
            let mut hasher = hash.hasher();
            [&b"ab"[..], b"", b"c"].into_iter().for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), hex(expected), "{hash:?}");
            assert_eq!(hash.digest_bytes() * 2, expected.len());
            assert_eq!(Hash::from_name(hash.name()), Some(hash));
        }
        assert_eq!(Hash::from_name("whirlpool"), None);
    }

    #[test]
    fn key_derivation_by_rfc_6070() {
        for (password, salt, iterations, expected) in [
            ("password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
            ("password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
            ("password", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1"),
            (
                "passwordPASSWORDpassword",
                "saltSALTsaltSALTsaltSALTsaltSALTsalt",
                4096,
                "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038",
            ),
            ("pass\0word", "sa\0lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3"),
        ] {
            let expected = hex(expected);
            let (password, salt) = (password.as_bytes(), salt.as_bytes());
            let key = Hash::Sha1.pbkdf2(password, salt, iterations, expected.len());
            assert_eq!(key.expose(), expected, "{iterations}");
        }
    }
}
