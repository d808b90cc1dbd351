//! Choices out of bytes.

/// Reads choices from the front of an input; past its end everything is zero.
///
/// Deliberately plain: a byte more in the middle of an input moves what follows, and nothing
/// else, so that inputs stay what they are and can be written by hand.
#[derive(Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was not read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    /// A number of `bytes` bytes, little end first.
    pub(super) fn number(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |number, place| number | u64::from(self.byte()) << (8 * place))
    }

    /// A part of `0..size` that is `max` long at most: start and length.
    pub(super) fn range(&mut self, size: u64, max: u64) -> std::ops::Range<u64> {
        // Starts and ends at sectors and pages are what formats treat in their own ways.
        let shape = self.byte();
        let align = [1, 512, 4096, 65536][usize::from(shape % 4)];
        let start = (self.number(3) * if shape & 0x80 == 0 { 1 } else { align }) % size.max(1);
        let start = start / align * align;
        let len = (self.number(2) + 1) * align.min(512);
        start..start.saturating_add(len.min(max)).min(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_end_in_zeroes() {
        let mut input = Input::new(&[1, 2, 3]);
        assert_eq!(input.byte(), 1);
        assert_eq!(input.number(4), 0x302);
        assert!(input.is_empty());
    }

    #[test]
    fn ranges_are_within_the_disk() {
        let mut rng = crate::Rng::new(7);
        for _ in 0..1000 {
            let bytes = rng.next_u64().to_le_bytes();
            let range = Input::new(&bytes).range(10_000, 3000);
            assert!(range.start < range.end && range.end <= 10_000, "{range:?}");
            assert!(range.end - range.start <= 3000);
        }
        assert_eq!(Input::new(&[9; 9]).range(0, 3000), 0..0);
    }
}
