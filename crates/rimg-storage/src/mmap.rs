//! A file mapped for reading.

use rimg_core::{Storage, StorageRun, num};
use std::fs::File;
use std::io;

/// A file mapped into memory, read-only and as long as it was when it was mapped.
///
/// # Hazard
/// When somebody else shortens the file, reading what was cut off ends the process with `SIGBUS`;
/// no error can be returned. When somebody writes to it, reads see old bytes, new ones, or a
/// mixture. Use it only for files that nobody changes.
#[derive(Debug)]
pub struct MmapStorage {
    map: memmap2::Mmap,
    file: File,
}

impl MmapStorage {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// What the operating system says.
    #[expect(unsafe_code, reason = "a mapping's contents can change under a shared reference")]
    pub fn map(file: File) -> io::Result<Self> {
        // SAFETY: the bytes of the mapping are only ever copied out, by `read_exact_at`, never
        // lent out, so that nobody relies on their staying the same. That nobody shortens the
        // file is the caller's part, said above; then the process ends, and memory stays sound.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map, file })
    }
}

impl Storage for MmapStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(num::to_u64(self.map.len()))
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let found = usize::try_from(at).ok().and_then(|at| self.map.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        crate::file::run_at(&self.file, at, num::to_u64(self.map.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_core::StorageWrite;

    #[test]
    fn a_map_reads_as_its_file() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("disk");
        let file = crate::FileStorage::open(&path, crate::FileOptions::create())?;
        file.write_all_at(b"abc", 1 << 20)?;
        file.set_len_bytes(3 << 20)?;
        let map = MmapStorage::map(File::open(&path)?)?;
        assert_eq!(map.len_bytes()?, 3 << 20);
        let mut found = [9; 5];
        map.read_exact_at(&mut found, (1 << 20) - 1)?;
        assert_eq!(&found, b"\0abc\0");
        for at in [0, 1 << 20, 2 << 20] {
            assert_eq!(map.run_at(at)?, file.run_at(at)?);
        }
        assert!(map.writer().is_none());
        for at in [(3 << 20) - 4, 3 << 20, u64::MAX] {
            let error = map.read_exact_at(&mut found, at).map_err(|error| error.kind());
            assert_eq!(error, Err(io::ErrorKind::UnexpectedEof));
        }
        Ok(())
    }

    #[test]
    fn an_empty_file_can_be_mapped() -> io::Result<()> {
        let map = MmapStorage::map(tempfile::tempfile()?)?;
        assert_eq!(map.len_bytes()?, 0);
        map.read_exact_at(&mut [], 0)
    }
}
