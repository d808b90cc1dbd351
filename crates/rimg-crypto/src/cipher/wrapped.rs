//! Data that was encrypted as a whole, as QEMU's wrapped secrets are.

use super::blocks::{self, Block, BlockCipher, block, number};
use super::{BLOCK_BYTES, Direction};
use crate::CipherError;
use rimg_core::Secret;

/// Decrypts `data`, encrypted as a whole with AES-CBC (NIST SP 800-38A, section 6.2). The last
/// block's padding, whatever it is, stays.
///
/// # Errors
/// [`CipherError::KeyLength`] for a key that is none of AES's, or data that is no whole blocks.
pub fn decrypt_aes_cbc(
    key: &[u8],
    vector: &[u8; BLOCK_BYTES],
    data: &[u8],
) -> Result<Secret, CipherError> {
    let cipher =
        BlockCipher::aes(key).ok_or(CipherError::KeyLength { needed: 32, given: key.len() })?;
    if !data.len().is_multiple_of(BLOCK_BYTES) {
        return Err(CipherError::KeyLength { needed: BLOCK_BYTES, given: data.len() });
    }
    let mut plain = Secret::from(data);
    let blocks = blocks::blocks(plain.expose_mut());
    let before: Vec<Block> =
        core::iter::once((*vector).into()).chain(blocks.iter().copied()).collect();
    cipher.run(blocks, Direction::Decrypt);
    for (place, before) in blocks.iter_mut().zip(&before) {
        *place = block(number(place) ^ number(before));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::hex;

    #[test]
    fn by_nist() {
        // SP 800-38A, F.2.6.
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let vector = *hex("000102030405060708090a0b0c0d0e0f").first_chunk().unwrap();
        let data = hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d");
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        assert_eq!(decrypt_aes_cbc(&key, &vector, &data).unwrap().expose(), plain);
        assert!(decrypt_aes_cbc(&key[..31], &vector, &data).is_err());
        assert!(decrypt_aes_cbc(&key, &vector, &data[..31]).is_err());
    }
}
