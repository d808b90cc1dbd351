//! The image's blocks, and who holds them.

use crate::claims::{ClaimId, Claims, Kind};
use crate::readers::{Epoch, Readers};
use crate::{BlockMap, SectorCipher};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rimg_codec::Decoder;
use rimg_core::{BlockImage, Error, Extent, ExtentKind, Result, Storage, StorageWrite};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What an image's blocks are made of.
#[derive(Debug)]
pub struct Setup<M> {
    /// The image's own file.
    pub file: Arc<dyn Storage>,
    /// What lies below.
    pub below: Below,
    /// The format's table.
    pub map: M,
    /// The size of a block in bytes; not 0.
    pub block_bytes: u64,
    /// What guest data is encrypted with.
    pub cipher: Option<Box<dyn SectorCipher>>,
    /// Whether the image was opened for writing.
    pub writable: bool,
}

/// What lies below an image.
#[derive(Debug, Default)]
pub enum Below {
    /// Nothing: what the image has not reads as zeroes.
    #[default]
    Nothing,
    /// An image that was not opened: what this one has not cannot be read.
    LeftOut,
    /// An image.
    Image(Arc<dyn BlockImage>),
}

impl From<Option<Arc<dyn BlockImage>>> for Below {
    fn from(image: Option<Arc<dyn BlockImage>>) -> Self {
        image.map_or(Self::Nothing, Self::Image)
    }
}

/// The guest data of an image, shared between threads: see the [crate](crate) for what it
/// promises.
///
/// Formats wrap it: [`read_at`](Self::read_at) and [`extent_at`](Self::extent_at) are those of
/// [`BlockImage`], and it is an [`ImageWrite`](rimg_core::ImageWrite) itself.
#[derive(Debug)]
pub struct Blocks<M> {
    pub(crate) file: Arc<dyn Storage>,
    pub(crate) below: Below,
    pub(crate) cipher: Option<Box<dyn SectorCipher>>,
    pub(crate) block_bytes: u64,
    writable: bool,
    /// As the map says; here for those who do not want to wait for the lock.
    size_bytes: AtomicU64,
    pub(crate) relaxed: AtomicBool,
    pub(crate) flushing: Mutex<()>,
    state: Mutex<State<M>>,
    /// A claim was given back, or a reader is done.
    somebody_left: Condvar,
    decoders: Mutex<Vec<Decoder>>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State<M> {
    pub(crate) map: M,
    pub(crate) claims: Claims,
    pub(crate) readers: Readers,
    /// How long the file is at least: every place that was handed out is inside.
    pub(crate) len_bytes: u64,
    /// Whether what has to be durable before changes is.
    pub(crate) has_begun: bool,
    /// A change of size failed half way: nobody knows what of it is on disk.
    pub(crate) is_outdated: bool,
}

impl<M: BlockMap> Blocks<M> {
    /// Takes an opened image's parts.
    ///
    /// # Errors
    /// [`Error::Misuse`] for blocks of no size; otherwise what the storage says.
    pub fn new(setup: Setup<M>) -> Result<Self> {
        let Setup { file, below, map, block_bytes, cipher, writable } = setup;
        if block_bytes == 0 {
            return Err(Error::Misuse("blocks of no bytes"));
        }
        let len_bytes = file.len_bytes().map_err(Error::io("find the length of the file", 0))?;
        Ok(Self {
            file,
            below,
            cipher,
            block_bytes,
            writable,
            size_bytes: AtomicU64::new(map.size_bytes()),
            relaxed: AtomicBool::new(false),
            flushing: Mutex::default(),
            state: Mutex::new(State {
                map,
                claims: Claims::default(),
                readers: Readers::default(),
                len_bytes,
                has_begun: false,
                is_outdated: false,
            }),
            somebody_left: Condvar::new(),
            decoders: Mutex::default(),
        })
    }

    /// The size of the disk in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// The size of a block in bytes.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The image's own file.
    pub fn file(&self) -> &Arc<dyn Storage> {
        &self.file
    }

    /// The image below, where there is one and it was opened.
    pub fn below(&self) -> Option<&Arc<dyn BlockImage>> {
        match &self.below {
            Below::Image(image) => Some(image),
            Below::Nothing | Below::LeftOut => None,
        }
    }

    /// Whether the image was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// As [`BlockImage::extent_at`].
    ///
    /// # Errors
    /// As there.
    pub fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        if range.is_empty() || range.end > self.size_bytes() {
            return Err(Error::Misuse("extent of an empty range or behind the end of the disk"));
        }
        let mut extent = self.usable()?.map.extent(range)?;
        if self.cipher.is_some() && matches!(extent.kind, ExtentKind::Data(_)) {
            extent.kind = ExtentKind::Opaque;
        }
        Ok(extent)
    }

    /// Looks at the map, for what a format says of itself. Writers go on meanwhile, outside the
    /// lock.
    pub fn look<R>(&self, look: impl FnOnce(&mut M) -> R) -> R {
        look(&mut self.lock().map)
    }

    /// Lets a check or a repair have the map, and the file, to itself: nobody reads or writes, and
    /// all that was changed is on disk. What `work` changes in the map is flushed after it.
    ///
    /// # Errors
    /// What `work` or the storage says.
    pub fn alone<R>(&self, work: impl FnOnce(&mut M) -> Result<R>) -> Result<R> {
        let claim = self.claim_all();
        let result = self.flush_claimed().and_then(|()| {
            let mut state = self.lock();
            while !state.readers.are_none() {
                state = self.wait(state);
            }
            let result = work(&mut state.map)?;
            self.size_bytes.store(state.map.size_bytes(), Ordering::Release);
            state.len_bytes =
                self.file.len_bytes().map_err(Error::io("find the length of the file", 0))?;
            Ok(result)
        });
        let result = result.and_then(|done| self.flush_claimed().map(|()| done));
        self.give_back(claim);
        result
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<M>> {
        // A panic in a map is a bug that the test of it shows; readers need not suffer for it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`lock`](Self::lock), where the map is that of the file.
    pub(crate) fn usable(&self) -> Result<MutexGuard<'_, State<M>>> {
        let state = self.lock();
        state.refuse_outdated()?;
        Ok(state)
    }

    /// Waits until nobody reads where a place was given back, so that all of them are free.
    pub(crate) fn wait_for_readers(&self) {
        let mut state = self.lock();
        while state.readers.are_waited_for() {
            state = self.wait(state);
        }
    }

    /// Waits until somebody gives a claim back, or is done reading.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State<M>>) -> MutexGuard<'a, State<M>> {
        self.somebody_left.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the whole disk, whatever its size becomes.
    pub(crate) fn claim_all(&self) -> ClaimId {
        let mut state = self.lock();
        while state.claims.stand_against(&(0..u64::MAX), Kind::Exclusive) {
            state = self.wait(state);
        }
        state.claims.add(0..u64::MAX, Kind::Exclusive)
    }

    pub(crate) fn give_back(&self, claim: ClaimId) {
        self.lock().claims.give_back(claim);
        self.somebody_left.notify_all();
    }

    pub(crate) fn storage_writer(&self) -> Result<&dyn StorageWrite> {
        if !self.writable {
            return Err(Error::ReadOnly("it was opened for reading"));
        }
        self.file.writer().ok_or(Error::ReadOnly("its file cannot be written"))
    }

    pub(crate) fn set_size_seen(&self, size_bytes: u64) {
        self.size_bytes.store(size_bytes, Ordering::Release);
    }

    pub(crate) fn end_reading(&self, epoch: Epoch) {
        let mut state = self.lock();
        state.readers.end(epoch);
        state.reuse_what_is_free();
        if state.readers.are_none() || !state.readers.are_waited_for() {
            self.somebody_left.notify_all();
        }
    }

    pub(crate) fn decoder(&self) -> Decoder {
        let idle = self.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_default()
    }

    pub(crate) fn keep_decoder(&self, decoder: Decoder) {
        self.decoders.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
    }

    /// The blocks that `range` touches.
    pub(crate) fn blocks_of(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.block_bytes..range.end.div_ceil(self.block_bytes)
    }

    /// The guest bytes of a block, as far as the disk goes.
    pub(crate) fn range_of(&self, block: u64, size_bytes: u64) -> Range<u64> {
        let start = block.saturating_mul(self.block_bytes);
        start..start.saturating_add(self.block_bytes).min(size_bytes)
    }
}

impl<M: BlockMap> State<M> {
    pub(crate) fn refuse_outdated(&self) -> Result<()> {
        if self.is_outdated {
            let source = std::io::Error::other("open the image again");
            return Err(Error::io("go on after a change of size that failed half way", 0)(source));
        }
        Ok(())
    }

    pub(crate) fn reuse_what_is_free(&mut self) {
        while let Some(freed) = self.readers.next_free() {
            self.map.reuse(freed);
        }
    }
}
