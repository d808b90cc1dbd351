//! What the unit tests share.

use crate::RandomSource;
use rimg_core::Result;

/// The bytes that hexadecimal digits stand for.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        digits.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// No randomness at all: 0, 1, 2 and so on.
#[derive(Debug, Default)]
pub(crate) struct Counting(u8);

impl RandomSource for Counting {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        for byte in buf {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}
