//! Finding zeroes at memory speed.

/// Whether every byte is zero. True of an empty slice.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // A fixed-size fold is what compilers turn into wide vector code; going block by block lets
    // data that is not zero be recognised after its first block.
    let (blocks, rest) = bytes.as_chunks::<256>();
    blocks.iter().all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

/// The length of the run at the start of `bytes` whose `granule`-sized pieces are alike in being
/// zero or not, and whether they are zero. The last piece may be short; `granule` is at least 1.
///
/// Returns `(0, true)` for an empty slice.
#[must_use]
pub fn run(bytes: &[u8], granule: usize) -> (usize, bool) {
    let mut pieces = bytes.chunks(granule.max(1));
    let Some(first) = pieces.next() else { return (0, true) };
    let zero = is_zero(first);
    let more: usize = pieces.take_while(|piece| is_zero(piece) == zero).map(<[u8]>::len).sum();
    (first.len().saturating_add(more), zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_seen() {
        for len in [1, 255, 256, 257, 4096, 4099] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "length {len}, byte {at}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn runs_alternate_and_cover_everything() {
        let mut bytes = vec![0; 4096 * 3 + 100];
        bytes[4096] = 7;
        assert_eq!(run(&bytes, 4096), (4096, true));
        assert_eq!(run(&bytes[4096..], 4096), (4096, false));
        assert_eq!(run(&bytes[8192..], 4096), (4196, true));
        assert_eq!(run(&[], 4096), (0, true));
    }
}
