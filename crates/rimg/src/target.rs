//! The files of an image that is being created.
//!
//! Until it is complete, nothing that looks like an image is left behind: a file that was made for
//! it goes away again when creation fails. A file that was there before keeps its contents until
//! the first byte is written, so that a mistake in the options costs nothing, and is left empty
//! when creation fails later. One that was empty goes away, too.

use crate::policy::resolve_name;
use core::ops::Range;
use rimg_core::{
    Error, ImageInfo, Result, Storage, StorageRun, StorageWrite, TargetFiles, Zeroing, op,
};
use rimg_storage::{Creation, FileOptions, FileStorage};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The files of one new image.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where the image's own file is, if it is a local one.
    path: Option<PathBuf>,
    options: FileOptions,
    main: Arc<dyn Storage>,
    backing: Option<ImageInfo>,
    files: Mutex<Vec<Arc<NewFile>>>,
}

impl Target {
    /// `backing` is what the image below says of itself, if it was opened.
    pub(crate) fn new(
        path: &Path,
        options: FileOptions,
        backing: Option<ImageInfo>,
    ) -> Result<Self> {
        let main = Arc::new(NewFile::open(path, options)?);
        let files = Mutex::new(vec![Arc::clone(&main)]);
        Ok(Self { path: Some(path.to_owned()), options, main, backing, files })
    }

    /// As [`new`](Self::new), in a storage as it is: nothing is made, emptied or removed.
    pub(crate) fn in_storage(
        main: Arc<dyn Storage>,
        options: FileOptions,
        backing: Option<ImageInfo>,
    ) -> Self {
        Self { path: None, options, main, backing, files: Mutex::default() }
    }

    /// Takes back what was done: after an error.
    pub(crate) fn undo(&self) {
        for file in self.files.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            file.undo();
        }
    }

    /// Where the files are, the image's own first.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().map(|file| file.path.clone()).collect()
    }

    /// Empties what has not been written to: an image may be an empty file.
    pub(crate) fn finish(&self) -> Result<()> {
        for file in self.files.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            file.begin().map_err(Error::io("empty the file", 0))?;
        }
        Ok(())
    }
}

impl TargetFiles for Target {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.main
    }

    /// Names mean what they will mean when the image is opened, but have no protocol.
    fn sibling(&self, name: &str) -> Result<Arc<dyn Storage>> {
        let path = resolve_name(self.path.as_deref(), name)?;
        let file = Arc::new(NewFile::open(&path, self.options)?);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&file));
        Ok(file)
    }

    fn main_name(&self) -> Option<&str> {
        self.path.as_ref()?.file_name()?.to_str()
    }

    fn backing_info(&self) -> Option<&ImageInfo> {
        self.backing.as_ref()
    }
}

/// A file that counts as empty, and is emptied when the first change comes.
#[derive(Debug)]
struct NewFile {
    path: PathBuf,
    file: FileStorage,
    /// It was not there before, or a file of no bytes: nothing is lost with it.
    is_new: bool,
    /// It holds what it is meant to hold. Once set, it stays set.
    begun: Mutex<bool>,
}

impl NewFile {
    fn open(path: &Path, options: FileOptions) -> Result<Self> {
        let open = |creation| FileStorage::open(path, FileOptions { creation, ..options });
        let (file, is_new) = match open(Creation::Existing) {
            Ok(file) => {
                let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
                let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
                (file, is_file && len == 0)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (open(Creation::CreateNew).map_err(Error::io(op::CREATE, 0))?, true)
            }
            Err(error) => return Err(Error::io(op::OPEN, 0)(error)),
        };
        // A device keeps its contents: what is written to it counts, nothing else.
        let begun = Mutex::new(is_new || file.is_device());
        Ok(Self { path: path.to_owned(), file, is_new, begun })
    }

    fn has_begun(&self) -> bool {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> io::Result<()> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !*begun {
            self.file.set_len_bytes(0)?;
            *begun = true;
        }
        Ok(())
    }

    /// The first error is the one that counts, so there are none here.
    fn undo(&self) {
        if self.is_new {
            let _ = fs::remove_file(&self.path);
        } else if self.has_begun() && !self.file.is_device() {
            let _ = self.file.set_len_bytes(0);
        }
    }
}

impl Storage for NewFile {
    fn len_bytes(&self) -> io::Result<u64> {
        if self.has_begun() { self.file.len_bytes() } else { Ok(0) }
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        if self.has_begun() || buf.is_empty() {
            self.file.read_exact_at(buf, at)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        if self.has_begun() {
            self.file.run_at(at)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn align_bytes(&self) -> u32 {
        self.file.align_bytes()
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.file.allocated_bytes()
    }
}

impl StorageWrite for NewFile {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.begin()?;
        self.file.write_all_at(buf, at)
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        self.begin()?;
        self.file.write_zeroes_at(range, how)
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        self.begin()?;
        self.file.discard_at(range)
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.begin()?;
        self.file.set_len_bytes(len)
    }

    fn is_zero_where_unwritten(&self) -> bool {
        self.file.is_zero_where_unwritten()
    }

    fn sync(&self) -> io::Result<()> {
        self.begin()?;
        self.file.sync()
    }
}
