//! SHA-256 of whatever holds bytes, in lower-case hexadecimal.

use rimg_core::{BlockImage, Storage};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const BUFFER_BYTES: u64 = 1 << 20;

/// Of bytes in memory.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// Of everything that a reader gives.
///
/// # Errors
/// The reader's.
pub fn of_reader(mut reader: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; usize::try_from(BUFFER_BYTES).unwrap()];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(hash)),
            Ok(len) => hash.update(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Of a file.
///
/// # Errors
/// What the operating system says.
pub fn of_file(path: impl AsRef<Path>) -> io::Result<String> {
    of_reader(File::open(path)?)
}

/// Of a storage.
///
/// # Errors
/// The storage's.
pub fn of_storage(storage: &dyn Storage) -> io::Result<String> {
    of_pieces(storage.len_bytes()?, |buf, at| storage.read_exact_at(buf, at))
}

/// Of the disk as the guest sees it.
///
/// # Errors
/// The image's.
pub fn of_guest(image: &dyn BlockImage) -> rimg_core::Result<String> {
    of_pieces(image.size_bytes(), |buf, at| image.read_at(buf, at))
}

fn of_pieces<E>(
    len: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<String, E> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; usize::try_from(len.min(BUFFER_BYTES)).unwrap()];
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(BUFFER_BYTES);
        let buf = &mut buffer[..usize::try_from(piece).unwrap()];
        read(buf, at)?;
        hash.update(buf);
        at += piece;
    }
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_storage::MemoryStorage;

    #[test]
    fn all_ways_agree() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_bytes(b"abc"), abc);
        assert_eq!(of_reader(&b"abc"[..]).unwrap(), abc);
        assert_eq!(of_storage(&MemoryStorage::from(&b"abc"[..])).unwrap(), abc);
    }
}
