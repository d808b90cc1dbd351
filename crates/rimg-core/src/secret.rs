//! Bytes that nobody else is to see.

use core::fmt;
use zeroize::Zeroize;

/// A passphrase or a key: overwritten in memory when dropped, and never printed.
///
/// ```
/// use rimg_core::Secret;
///
/// let passphrase = Secret::from("swordfish");
/// assert_eq!(passphrase.expose(), b"swordfish");
/// assert_eq!(format!("{passphrase:?}"), "Secret(9 bytes)");
/// ```
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes bytes over. They stay where they are, so that there is no copy to forget.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// `len_bytes` bytes of 0, to be filled.
    #[must_use]
    pub fn zeroed(len_bytes: usize) -> Self {
        Self(vec![0; len_bytes])
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for changing them.
    #[must_use]
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// How many there are.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether `other` is the same, in a time that depends on the length alone.
    #[must_use]
    pub fn is(&self, other: &[u8]) -> bool {
        let same_len = self.0.len() == other.len();
        let differences = self.0.iter().zip(other).fold(0, |seen, (a, b)| seen | (a ^ b));
        same_len && core::hint::black_box(differences) == 0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole() {
        let secret = Secret::from("abc");
        assert_eq!(secret, Secret::from("abc"));
        for other in ["", "ab", "abcd", "abd", "bbc"] {
            assert_ne!(secret, Secret::from(other), "{other}");
        }
    }

    #[test]
    fn debug_shows_no_byte() {
        let text = format!("{:?}", Secret::from("zq"));
        assert_eq!(text, "Secret(2 bytes)");
    }
}
