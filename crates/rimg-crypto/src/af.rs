//! The anti-forensic splitter (LUKS1 on-disk format, section 2.4): a key blown up to stripes, all
//! of which are needed to get it back, so that destroying a few sectors destroys the key.
#![warn(clippy::indexing_slicing)]

use crate::{Hash, RandomSource};
use rimg_core::{Error, Result, Secret, num};

/// Splits `key` into `stripes` pieces of its length, one behind the other.
pub(crate) fn split(
    key: &Secret,
    stripes: u32,
    hash: Hash,
    random: &mut dyn RandomSource,
) -> Result<Secret> {
    let len = key.len_bytes();
    let all = num::to_usize(num::to_u64(len).saturating_mul(stripes.into()))?;
    let mut split = Secret::zeroed(all);
    let mut block = Secret::zeroed(len);
    let (first, last) = split
        .expose_mut()
        .split_at_mut_checked(all.saturating_sub(len))
        .ok_or(Error::Misuse("no stripes"))?;
    random.fill(first)?;
    for stripe in first.chunks_exact(len.max(1)) {
        xor(block.expose_mut(), stripe);
        diffuse(&mut block, hash);
    }
    last.copy_from_slice(key.expose());
    xor(last, block.expose());
    Ok(split)
}

/// The key that was split into pieces of `key_bytes`.
pub(crate) fn merge(split: &[u8], key_bytes: usize, hash: Hash) -> Secret {
    let mut block = Secret::zeroed(key_bytes);
    let mut stripes = split.chunks_exact(key_bytes.max(1)).peekable();
    while let Some(stripe) = stripes.next() {
        xor(block.expose_mut(), stripe);
        if stripes.peek().is_some() {
            diffuse(&mut block, hash);
        }
    }
    block
}

/// Spreads every bit over the piece of a digest's length that it is in.
fn diffuse(block: &mut Secret, hash: Hash) {
    for (index, piece) in (0_u32..).zip(block.expose_mut().chunks_mut(hash.digest_bytes())) {
        let digest = hash.digest(&[&index.to_be_bytes(), piece]);
        for (to, from) in piece.iter_mut().zip(digest.expose()) {
            *to = *from;
        }
    }
}

fn xor(to: &mut [u8], with: &[u8]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= with;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Counting;

    #[test]
    fn what_was_split_can_be_merged() {
        for hash in Hash::ALL {
            for len in [16, 24, 32, 64] {
                let key = Secret::new((0..len).collect());
                let mut random = Counting::default();
                let split = split(&key, 7, hash, &mut random).unwrap();
                assert_eq!(split.len_bytes(), usize::from(len) * 7);
                let mut bytes = split.expose().to_vec();
                assert_eq!(merge(&bytes, len.into(), hash), key);
                bytes[3] ^= 1;
                assert_ne!(merge(&bytes, len.into(), hash), key);
            }
        }
    }
}
