//! What a disk should hold.

use core::ops::Range;
use rimg_core::{BlockImage, SnapshotSelector, Storage, StorageWrite, Zeroing, num};
use rimg_storage::MemoryStorage;

/// A disk that is certainly right: plain bytes, of which only those that were written take
/// memory. Does what a test did to an image, and is then compared with it.
#[derive(Debug, Clone, Default)]
pub struct ModelDisk {
    bytes: MemoryStorage,
    snapshots: Vec<(String, MemoryStorage)>,
}

impl ModelDisk {
    /// A disk of zeroes.
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        Self { bytes: MemoryStorage::with_len(size_bytes), snapshots: Vec::new() }
    }

    /// The size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len_bytes().unwrap()
    }

    /// Writes `buf` at `at`.
    ///
    /// # Panics
    /// Past the end.
    pub fn write(&mut self, buf: &[u8], at: u64) {
        assert!(at + num::to_u64(buf.len()) <= self.size_bytes(), "write past the end");
        self.bytes.write_all_at(buf, at).unwrap();
    }

    /// Makes `range` zeroes.
    ///
    /// # Panics
    /// Past the end.
    pub fn zero(&mut self, range: Range<u64>) {
        assert!(range.end <= self.size_bytes(), "zeroes past the end");
        self.bytes.write_zeroes_at(range, Zeroing::MayPunch).unwrap();
    }

    /// Changes the size; new bytes are zeroes.
    pub fn resize(&mut self, size_bytes: u64) {
        self.bytes.set_len_bytes(size_bytes).unwrap();
    }

    /// Keeps the disk as it is now.
    pub fn take_snapshot(&mut self, name: impl Into<String>) {
        self.snapshots.push((name.into(), self.bytes.clone()));
    }

    /// Makes the disk what it was, its size included.
    ///
    /// # Panics
    /// When there is no such snapshot.
    pub fn apply_snapshot(&mut self, place: usize) {
        self.bytes = self.snapshots[place].1.clone();
    }

    /// Drops a snapshot.
    ///
    /// # Panics
    /// When there is no such snapshot.
    pub fn delete_snapshot(&mut self, place: usize) {
        self.snapshots.remove(place);
    }

    /// The names of the snapshots, in the order in which they were taken.
    #[must_use]
    pub fn snapshot_names(&self) -> Vec<&str> {
        self.snapshots.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The disk as a snapshot keeps it.
    ///
    /// # Panics
    /// When there is no such snapshot.
    #[must_use]
    pub fn snapshot(&self, place: usize) -> Self {
        Self { bytes: self.snapshots[place].1.clone(), snapshots: Vec::new() }
    }

    /// Compares the snapshots, and the disks that they are of, with an image's.
    ///
    /// # Panics
    /// As [`assert_same`](Self::assert_same).
    #[track_caller]
    pub fn assert_same_snapshots(&self, image: &dyn BlockImage, what: &str) {
        let Some(snapshots) = image.snapshots() else {
            assert!(self.snapshots.is_empty(), "{what}: no snapshots");
            return;
        };
        let listed = snapshots.list().unwrap();
        let names: Vec<&str> = listed.iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, self.snapshot_names(), "{what}: names of snapshots");
        for (place, info) in listed.iter().enumerate() {
            let name = &info.name;
            let selector = SnapshotSelector::Fields { id: Some(&info.id), name: Some(name) };
            let disk = snapshots.open(&selector).unwrap().unwrap();
            self.snapshot(place).assert_same(disk.as_ref(), &format!("{what}: snapshot {name}"));
        }
    }

    /// The bytes in `range`.
    ///
    /// # Panics
    /// Past the end.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut buf = vec![0; usize::try_from(range.end - range.start).unwrap()];
        self.bytes.read_exact_at(&mut buf, range.start).unwrap();
        buf
    }

    /// Compares sizes and all bytes with an image's.
    ///
    /// # Panics
    /// At the first byte that differs, and when the image cannot be read; with `what`.
    #[track_caller]
    pub fn assert_same(&self, image: &dyn BlockImage, what: &str) {
        assert_eq!(image.size_bytes(), self.size_bytes(), "{what}: size");
        self.assert_reads(what, |buf, at| image.read_at(buf, at).map_err(|e| e.to_string()));
    }

    /// As [`assert_same`](Self::assert_same), with a storage.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn assert_same_storage(&self, storage: &dyn Storage, what: &str) {
        assert_eq!(storage.len_bytes().unwrap(), self.size_bytes(), "{what}: length");
        self.assert_reads(what, |buf, at| {
            storage.read_exact_at(buf, at).map_err(|e| e.to_string())
        });
    }

    #[track_caller]
    fn assert_reads(&self, what: &str, read: impl Fn(&mut [u8], u64) -> Result<(), String>) {
        const STEP_BYTES: u64 = 1 << 20;
        let size = self.size_bytes();
        let mut at = 0;
        while at < size {
            let end = (at + STEP_BYTES).min(size);
            let wanted = self.read(at..end);
            let mut found = vec![0xA5; wanted.len()];
            if let Err(error) = read(&mut found, at) {
                panic!("{what}: reading {at:#x}..{end:#x}: {error}");
            }
            // Compared at once first: going byte by byte takes most of a test's time.
            if wanted != found
                && let Some(i) = (0..wanted.len()).find(|&i| wanted[i] != found[i])
            {
                let at = at + num::to_u64(i);
                panic!("{what}: byte {at:#x} is {:#x}, not {:#x}", found[i], wanted[i]);
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_equal() {
        let mut model = ModelDisk::new(3 << 20);
        model.write(b"abc", 1 << 20);
        model.zero((1 << 20) + 1..(1 << 20) + 2);
        let mut bytes = vec![0; 3 << 20];
        bytes[1 << 20] = b'a';
        bytes[(1 << 20) + 2] = b'c';
        model.assert_same_storage(&MemoryStorage::from(bytes), "storage");
    }

    #[test]
    #[should_panic(expected = "storage: byte 0x100000 is 0x0, not 0x7")]
    fn the_first_difference_is_named() {
        let mut model = ModelDisk::new(3 << 20);
        model.write(&[7, 7], 1 << 20);
        model.assert_same_storage(&MemoryStorage::with_len(3 << 20), "storage");
    }
}
