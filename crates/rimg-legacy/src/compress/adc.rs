//! Apple Data Compression: runs of plain bytes, and copies of what was decoded before, in two forms.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// Fills `decoded`; `None` when the stream ends early, refers to what is before the start, or goes
/// on when `decoded` is full.
pub(super) fn decode(encoded: &[u8], decoded: &mut [u8]) -> Option<()> {
    let mut rest = encoded;
    let mut at = 0_usize;
    while at < decoded.len() {
        let (&control, after) = rest.split_first()?;
        let low = usize::from(control & 0x3f);
        let (len, distance) = if control & 0x80 != 0 {
            let len = usize::from(control & 0x7f).checked_add(1)?;
            let (bytes, after) = after.split_at_checked(len)?;
            decoded.get_mut(at..)?.get_mut(..len)?.copy_from_slice(bytes);
            rest = after;
            at = at.checked_add(len)?;
            continue;
        } else if control & 0x40 != 0 {
            let (bytes, after) = after.split_first_chunk::<2>()?;
            rest = after;
            (low.checked_add(4)?, usize::from(u16::from_be_bytes(*bytes)))
        } else {
            let (&byte, after) = after.split_first()?;
            rest = after;
            let high = usize::from(control & 3) << 8;
            ((low >> 2).checked_add(3)?, high | usize::from(byte))
        };
        // A copy may reach into what it makes.
        let from = at.checked_sub(distance)?.checked_sub(1)?;
        let end = at.checked_add(len)?;
        if end > decoded.len() {
            return None;
        }
        for (source, target) in (from..).zip(at..end) {
            let byte = *decoded.get(source)?;
            *decoded.get_mut(target)? = byte;
        }
        at = end;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        decode(encoded, &mut out).map(|()| out)
    }

    #[test]
    fn runs_and_copies() {
        assert_eq!(decoded(&[0x82, b'a', b'b', b'c'], 3).unwrap(), b"abc");
        // Three bytes from one before; seven from three before, in the long form.
        assert_eq!(decoded(&[0x80, b'x', 0x00, 0x00], 4).unwrap(), b"xxxx");
        let long = [0x82, b'a', b'b', b'c', 0x43, 0x00, 0x02];
        assert_eq!(decoded(&long, 10).unwrap(), b"abcabcabca");
        let mut far = vec![0xff; 1];
        far.extend([b'q'; 128]);
        far.extend([0x3c, 0x7f]);
        assert_eq!(decoded(&far, 146).unwrap(), [b'q'; 146]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (encoded, len) in [
            (&[][..], 1),
            (&[0x82, b'a'], 3),
            (&[0x82, b'a', b'b', b'c'], 2),
            (&[0x00, 0x00], 3),
            (&[0x80, b'x', 0x00, 0x01], 4),
            (&[0x80, b'x', 0x00, 0x00], 3),
            (&[0x80, b'x', 0x40, 0x00], 5),
        ] {
            assert_eq!(decoded(encoded, len), None, "{encoded:?}");
        }
    }
}
