//! Where keys, salts and fillings come from.

use rimg_core::{Error, Result};
use std::io;

/// A source of random bytes.
pub trait RandomSource {
    /// Fills `buf`.
    ///
    /// # Errors
    /// What the source says.
    fn fill(&mut self, buf: &mut [u8]) -> Result<()>;
}

/// The operating system's source, fit for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl RandomSource for OsRandom {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let wrong = |error: getrandom::Error| {
            error
                .raw_os_error()
                .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
        };
        getrandom::fill(buf).map_err(|error| Error::io("get random bytes", 0)(wrong(error)))
    }
}

/// A random UUID (RFC 9562, version 4) as text.
pub(crate) fn uuid(random: &mut dyn RandomSource) -> Result<String> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    let number = u128::from_be_bytes(bytes);
    let version = (number & !(0xf << 76)) | (4 << 76);
    let number = (version & !(0b11 << 62)) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Counting;

    #[test]
    fn uuids_say_that_they_are_random() {
        let text = uuid(&mut Counting::default()).unwrap();
        assert_eq!(text, "00010203-0405-4607-8809-0a0b0c0d0e0f");
    }

    #[test]
    fn the_system_gives_bytes() {
        let mut bytes = [0; 64];
        OsRandom.fill(&mut bytes).unwrap();
        assert_ne!(bytes, [0; 64]);
    }
}
