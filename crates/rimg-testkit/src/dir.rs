//! A folder in memory: targets for creators, and a gate that opens what images name.

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, Extent, ExtentKind, FileOffset, FormatDriver,
    HostOffset, ImageInfo, Limits, OpenOptions, RawOptions, Result, Storage, TargetFiles, num, op,
};
use rimg_storage::MemoryStorage;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Named storages, with the formats in which images among them may be opened.
///
/// As a [`DependencyGate`] it opens every name that it holds: backing images of format `raw` or
/// none as their plain bytes, others by the driver of that name.
#[derive(Debug)]
pub struct MemoryDir {
    files: Mutex<BTreeMap<String, Arc<dyn Storage>>>,
    drivers: &'static [&'static dyn FormatDriver],
}

impl MemoryDir {
    /// An empty folder.
    #[must_use]
    pub fn new(drivers: &'static [&'static dyn FormatDriver]) -> Self {
        Self { files: Mutex::default(), drivers }
    }

    /// Puts a storage under a name, replacing what was there.
    pub fn put(&self, name: &str, storage: Arc<dyn Storage>) {
        self.files.lock().unwrap().insert(name.into(), storage);
    }

    /// The storage with this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn file(&self, name: &str) -> Arc<dyn Storage> {
        self.find(name).unwrap_or_else(|| panic!("no file '{name}'"))
    }

    /// The names of all storages, in their order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    /// Creates an image under a name. A storage that is there already is used if it is empty.
    ///
    /// # Errors
    /// What the driver says.
    pub fn create(&self, name: &str, format: &str, size: u64, options: &RawOptions) -> Result<()> {
        let main = match self.find(name) {
            Some(main) => main,
            None => {
                let main: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
                self.put(name, Arc::clone(&main));
                main
            }
        };
        let backing = match (options.value("backing_file"), options.value("backing_fmt")) {
            (Some(below), Some(format)) if format != "raw" => {
                Some(self.open(below, format, false)?.info()?)
            }
            _ => None,
        };
        let target = MemoryTarget { dir: self, main, name: name.to_owned(), backing };
        self.driver(format).create(&target, size, options)
    }

    /// Opens an image.
    ///
    /// # Errors
    /// What the driver says.
    pub fn open(&self, name: &str, format: &str, writable: bool) -> Result<Box<dyn BlockImage>> {
        self.open_with(name, format, writable, RawOptions::NONE)
    }

    /// Opens an image with run-time options.
    ///
    /// # Errors
    /// What the driver says.
    pub fn open_with(
        &self,
        name: &str,
        format: &str,
        writable: bool,
        options: &RawOptions,
    ) -> Result<Box<dyn BlockImage>> {
        let limits = Limits::default();
        let how = OpenOptions { writable, inspect_only: false, limits, gate: self, options };
        self.driver(format).open(self.file(name), &how)
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Storage>> {
        self.files.lock().unwrap().get(name).cloned()
    }

    fn driver(&self, format: &str) -> &'static dyn FormatDriver {
        let found = self.drivers.iter().find(|driver| driver.format().name == format);
        *found.unwrap_or_else(|| panic!("no format '{format}'"))
    }
}

impl DependencyGate for MemoryDir {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        self.find(wanted.name).ok_or_else(|| {
            Error::io(op::OPEN, 0)(io::Error::new(io::ErrorKind::NotFound, wanted.name.to_owned()))
        })
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        match wanted.format {
            None | Some("raw") => Ok(Some(Arc::new(PlainImage::new(self.open_file(wanted)?)?))),
            Some(format) => {
                self.open_file(wanted)?;
                Ok(Some(Arc::from(self.open(wanted.name, format, false)?)))
            }
        }
    }
}

#[derive(Debug)]
struct MemoryTarget<'a> {
    dir: &'a MemoryDir,
    main: Arc<dyn Storage>,
    name: String,
    backing: Option<ImageInfo>,
}

impl TargetFiles for MemoryTarget<'_> {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.main
    }

    fn sibling(&self, name: &str) -> Result<Arc<dyn Storage>> {
        // One that was put there to be watched, as with `create`.
        let is_empty = |storage: &Arc<dyn Storage>| storage.len_bytes().is_ok_and(|len| len == 0);
        if let Some(storage) = self.dir.find(name).filter(is_empty) {
            return Ok(storage);
        }
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        self.dir.put(name, Arc::clone(&storage));
        Ok(storage)
    }

    fn main_name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn backing_info(&self) -> Option<&ImageInfo> {
        self.backing.as_ref()
    }
}

/// The bytes of a storage as a read-only disk.
#[derive(Debug)]
pub struct PlainImage {
    storage: Arc<dyn Storage>,
    len: u64,
}

impl PlainImage {
    /// A disk as long as the storage is now.
    ///
    /// # Errors
    /// What the storage says.
    pub fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let len = storage.len_bytes().map_err(Error::io("length", 0))?;
        Ok(Self { storage, len })
    }
}

impl BlockImage for PlainImage {
    fn size_bytes(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        if at.saturating_add(num::to_u64(buf.len())) > self.len {
            return Err(Error::Misuse("range past the end of the disk"));
        }
        self.storage.read_exact_at(buf, at).map_err(Error::io("read", at))
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let run = self.storage.run_at(range.start).map_err(Error::io("seek", range.start))?;
        let kind = if run.is_data {
            ExtentKind::Data(FileOffset { file: 0, host: HostOffset(range.start) })
        } else {
            ExtentKind::Zero { allocation: None }
        };
        Ok(Extent { len_bytes: run.len_bytes.min(range.end - range.start), kind })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo { format: "raw", virtual_size_bytes: self.len, ..ImageInfo::default() })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.storage)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
