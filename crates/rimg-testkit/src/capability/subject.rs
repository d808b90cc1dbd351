//! An image to try things with, as often as need be.

use super::Kind;
use super::wrong::{Outcome, Wrong};
use crate::{MemoryDir, MemoryStorage, Rng};
use core::ops::Range;
use rimg_core::{
    BlockImage, ImageWrite, Limits, OpenOptions, RawOptions, Storage, StorageWrite as _, num,
};
use std::collections::HashSet;
use std::sync::Arc;

/// The name of the image in its folder.
pub(super) const DISK: &str = "disk";

/// How much of a file is looked at together, in bytes.
const LINE_LEN: usize = 64;

/// An image of a kind with some data in it, and what it holds.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) kind: &'a Kind,
    pub(super) disk: Vec<u8>,
    files: Vec<(String, MemoryStorage)>,
}

impl<'a> Subject<'a> {
    /// # Panics
    /// When a kind that is created cannot be, or what is written to it is not read again.
    pub(super) fn new(kind: &'a Kind) -> Self {
        match Self::make(kind) {
            Ok(subject) => subject,
            Err(wrong) => panic!("{} cannot be made: {wrong}", kind.name()),
        }
    }

    fn make(kind: &'a Kind) -> Outcome<Self> {
        if let Some(given) = &kind.given {
            let files = given.files.iter();
            let files =
                files.map(|(name, bytes)| (name.clone(), MemoryStorage::from(bytes.as_slice())));
            return Ok(Self { kind, disk: given.disk.clone(), files: files.collect() });
        }
        let dir = MemoryDir::new(kind.drivers);
        let mut options = kind.create.clone().unwrap_or_default();
        if kind.is_over_own_format {
            put_base(&dir, kind, kind.format)?;
            options = over_base(&options, kind.format);
        }
        dir.create(DISK, kind.format, kind.unit_bytes * 16, &options)?;
        let image = dir.open_with(DISK, kind.format, true, &kind.open)?;
        let mut disk = vec![0; num::to_usize(image.size_bytes()).unwrap()];
        image.read_at(&mut disk, 0)?;
        let writer = image.writer().ok_or("it offers no writing")?;
        for (unit, bytes) in [(0, text(kind.unit_bytes * 2)), (8, noise(kind.unit_bytes * 2))] {
            write(writer, &mut disk, &bytes, unit * kind.unit_bytes)?;
        }
        image.close()?;
        let files = copies(&dir)?;
        Ok(Self { kind, disk, files })
    }

    /// The guest bytes of some units.
    pub(super) fn units(&self, units: Range<u64>) -> Range<u64> {
        units.start * self.kind.unit_bytes..units.end * self.kind.unit_bytes
    }

    /// A fresh copy of the image and all its files.
    pub(super) fn dir(&self) -> MemoryDir {
        let dir = MemoryDir::new(self.kind.drivers);
        for (index, (name, storage)) in self.files.iter().enumerate() {
            dir.put(if index == 0 { DISK } else { name }, Arc::new(storage.clone()));
        }
        dir
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &MemoryStorage> {
        self.files.iter().map(|(_, storage)| storage)
    }

    /// A copy with a file of its own instead of each.
    pub(super) fn dir_of<S: Storage + 'static>(
        &self,
        wrap: impl Fn(MemoryStorage) -> S,
    ) -> (MemoryDir, Vec<(String, Arc<S>)>) {
        let (dir, mut wrapped) = (MemoryDir::new(self.kind.drivers), Vec::new());
        for (index, (name, storage)) in self.files.iter().enumerate() {
            let name = if index == 0 { DISK } else { name };
            let storage = Arc::new(wrap(storage.clone()));
            dir.put(name, Arc::<S>::clone(&storage));
            wrapped.push((name.to_owned(), storage));
        }
        (dir, wrapped)
    }

    pub(super) fn open(&self, dir: &MemoryDir, writable: bool) -> Outcome<Box<dyn BlockImage>> {
        Ok(dir.open_with(DISK, self.kind.format, writable, &self.kind.open)?)
    }

    /// Opens even what is damaged, to be checked.
    pub(super) fn inspect(&self, dir: &MemoryDir, writable: bool) -> Outcome<Box<dyn BlockImage>> {
        let (limits, options) = (Limits::default(), &self.kind.open);
        let how = OpenOptions { writable, inspect_only: true, limits, gate: dir, options };
        Ok(self.kind.driver().open(dir.file(DISK), &how)?)
    }

    /// The image holds `disk`, as one sees who opens it now.
    pub(super) fn holds(&self, dir: &MemoryDir, disk: &[u8]) -> Outcome {
        same(self.open(dir, false)?.as_ref(), disk)
    }

    /// Where in its files something is that is not the guest's: (file, offset) of all lines of bytes
    /// that are neither zeroes nor those of the disk.
    pub(super) fn metadata_lines(&self) -> Vec<(usize, u64)> {
        let guest: HashSet<&[u8]> = self.disk.chunks(LINE_LEN).collect();
        let mut found = Vec::new();
        for (index, storage) in self.files().enumerate() {
            let bytes = storage.to_vec().unwrap();
            for (at, line) in (0..).step_by(LINE_LEN).zip(bytes.chunks(LINE_LEN)) {
                if !rimg_core::zeroes::is_zero(line) && !guest.contains(line) {
                    found.push((index, at));
                }
            }
        }
        found
    }

    /// A copy in which the byte at `at` of a file, or its last one, is another.
    pub(super) fn with_wrong_byte(&self, file: usize, at: u64, rng: &mut Rng) -> MemoryDir {
        let (name, storage) = &self.files[file];
        let storage = storage.clone();
        let at = at.min(storage.len_bytes().unwrap() - 1);
        let mut byte = [0; 1];
        storage.read_exact_at(&mut byte, at).unwrap();
        byte[0] = byte[0].wrapping_add(1 + u8::try_from(rng.below(255)).unwrap());
        storage.write_all_at(&byte, at).unwrap();
        let dir = self.dir();
        dir.put(if file == 0 { DISK } else { name }, Arc::new(storage));
        dir
    }
}

/// Whether a line of `guest` that is not all zeroes stands in one of the files of `dir` as it is.
pub(super) fn shows(dir: &MemoryDir, guest: &[u8]) -> Outcome<bool> {
    let is_telling = |line: &&[u8]| !rimg_core::zeroes::is_zero(line);
    let lines: HashSet<&[u8]> = guest.chunks_exact(LINE_LEN).filter(is_telling).collect();
    for (_, storage) in copies(dir)? {
        if storage.to_vec()?.chunks(LINE_LEN).any(|line| lines.contains(line)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts `base` into the folder, a disk of text to lie below others.
pub(super) fn put_base(dir: &MemoryDir, kind: &Kind, format: &str) -> Outcome<Vec<u8>> {
    let disk = text(kind.unit_bytes * 16);
    if format == "raw" {
        dir.put("base", Arc::new(MemoryStorage::from(disk.as_slice())));
        return Ok(disk);
    }
    dir.create("base", format, kind.unit_bytes * 16, RawOptions::NONE)?;
    let base = dir.open("base", format, true)?;
    base.writer().ok_or("the base offers no writing")?.write_at(&disk, 0)?;
    base.close()?;
    Ok(disk)
}

/// The options that put an image over `base`.
pub(super) fn over_base(options: &RawOptions, format: &str) -> RawOptions {
    options.clone().with("backing_file", "base").with("backing_fmt", format)
}

/// Writes to the image, and to the disk that it should be.
pub(super) fn write(writer: &dyn ImageWrite, disk: &mut [u8], bytes: &[u8], at: u64) -> Outcome {
    writer.write_at(bytes, at)?;
    let start = usize::try_from(at).unwrap();
    disk[start..start + bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// An image holds this disk and nothing else.
pub(super) fn same(image: &dyn BlockImage, disk: &[u8]) -> Outcome {
    if image.size_bytes() != num::to_u64(disk.len()) {
        return Err(format!("the disk has {} bytes, not {}", image.size_bytes(), disk.len()).into());
    }
    let mut seen = vec![0x5a; disk.len()];
    image.read_at(&mut seen, 0)?;
    match seen.iter().zip(disk).position(|(seen, wanted)| seen != wanted) {
        Some(at) => {
            Err(Wrong::from(format!("byte {at:#x} is {:#04x}, not {:#04x}", seen[at], disk[at])))
        }
        None => Ok(()),
    }
}

/// Bytes that shrink, none of them 0.
pub(super) fn text(len: u64) -> Vec<u8> {
    b"words of the guest, as they are; "
        .iter()
        .copied()
        .cycle()
        .take(num::to_usize(len).unwrap())
        .collect()
}

/// Bytes that do not shrink.
pub(super) fn noise(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; num::to_usize(len).unwrap()];
    Rng::new(len).fill(&mut bytes);
    bytes
}

/// All files of a folder, holes as holes; the image first.
fn copies(dir: &MemoryDir) -> Outcome<Vec<(String, MemoryStorage)>> {
    let mut names = dir.names();
    names.sort_by_key(|name| name != DISK);
    let mut files = Vec::new();
    for name in names {
        let file = dir.file(&name);
        let len = file.len_bytes()?;
        let copy = MemoryStorage::with_len(len);
        let mut at = 0;
        while at < len {
            let run = file.run_at(at)?;
            if run.is_data {
                let mut bytes = vec![0; num::to_usize(run.len_bytes).unwrap()];
                file.read_exact_at(&mut bytes, at)?;
                copy.write_all_at(&bytes, at)?;
            }
            at += run.len_bytes;
        }
        files.push((name, copy));
    }
    Ok(files)
}
