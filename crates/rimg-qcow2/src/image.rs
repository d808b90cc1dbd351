//! The open image: what is fixed while it is open, and the state behind its lock.

use crate::address::Geometry;
use crate::allocate::Allocator;
use crate::bitmap::BitmapState;
use crate::cache::TableCache;
use crate::crypt::Encryption;
use crate::error::FORMAT;
use crate::flush::DirtyEntries;
use crate::header::Header;
use crate::inflight::{Readers, Writers};
use crate::map::{Place, Run};
use crate::options::OverlapCheck;
use crate::read::DecodePool;
use crate::spec;
use core::ops::Range;
use rimg_core::{
    Amend, Bitmaps, BlockImage, Check, Codec, CompressedWrite, Error, Extent, ExtentKind,
    FileOffset, HostOffset, ImageInfo, ImageWrite, Limits, Overlay, Resize, Result, Snapshots,
    Storage,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// How much memory cached L2 slices take: 3 MiB map 24 GiB with clusters of 64 KiB.
pub(crate) const L2_CACHE_BYTES: u64 = 3 << 20;

/// An open qcow2 image, or one of its snapshots.
#[derive(Debug)]
pub(crate) struct Qcow2Image {
    pub(crate) file: Arc<dyn Storage>,
    /// Where guest data lies, when not in `file`.
    pub(crate) data_file: Option<Arc<dyn Storage>>,
    pub(crate) backing: Option<Arc<dyn BlockImage>>,
    /// The image names a backing file, but the caller did not want it opened.
    pub(crate) backing_left_out: bool,
    /// The size of the disk: the header's, or that of the snapshot which is shown.
    pub(crate) size_bytes: AtomicU64,
    pub(crate) geometry: Geometry,
    pub(crate) codec: Codec,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) state: Mutex<State>,
    pub(crate) writer_done: Condvar,
    pub(crate) readers: Readers,
    /// Shared with the disks of snapshots that are open, to know of them.
    pub(crate) views: Arc<()>,
    /// Held by whoever brings metadata to the disk without holding the lock.
    pub(crate) flushing: Mutex<()>,
    /// Nothing was mapped when the image was opened, and nothing lies below it.
    pub(crate) was_blank: bool,
    pub(crate) decoders: DecodePool,
    /// How guest data is encrypted, where it is.
    pub(crate) encryption: Option<Arc<Encryption>>,
    /// What is looked up before writing, beyond what always is.
    pub(crate) overlap_check: OverlapCheck,
}

/// What may be done with an open image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Metadata only: guest data cannot be made sense of.
    Inspect,
    /// The same, and metadata may be repaired.
    Repair,
    Read,
    Write,
}

impl Access {
    /// Whether guest data is out of reach.
    pub(crate) const fn is_metadata_only(self) -> bool {
        matches!(self, Self::Inspect | Self::Repair)
    }
}

/// What changes while an image is open.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) header: Header,
    /// The L1 table as on disk, in the machine's byte order.
    pub(crate) l1: Vec<u64>,
    /// Entries of the L1 table that are newer than on disk.
    pub(crate) dirty_l1: DirtyEntries,
    pub(crate) l2: TableCache,
    /// Who uses which cluster, when the image is open for writing.
    pub(crate) allocator: Option<Allocator>,
    pub(crate) writers: Writers,
    /// How often the disk was brought to where memory is.
    pub(crate) passes: u64,
    pub(crate) bitmaps: BitmapState,
    /// Where the last new data cluster ends: no file is shorter than its clusters.
    pub(crate) data_end: u64,
    /// Nobody minds losing the whole image before the next flush: see
    /// [`ImageWrite::relax_until_flush`].
    pub(crate) relaxed: bool,
    /// The options of the image were changed: what is known here is not true any more.
    pub(crate) is_outdated: bool,
}

impl State {
    pub(crate) fn new(header: Header, l1: Vec<u64>, allocator: Option<Allocator>) -> Self {
        let l2 = TableCache::new(header.geometry.cluster_bytes(), L2_CACHE_BYTES);
        Self {
            header,
            l1,
            dirty_l1: DirtyEntries::default(),
            l2,
            allocator,
            writers: Writers::default(),
            passes: 0,
            bitmaps: BitmapState::default(),
            data_end: 0,
            relaxed: false,
            is_outdated: false,
        }
    }

    /// Whether refcounts on disk may be behind, which the dirty bit says.
    pub(crate) fn postpones_refcounts(&self) -> bool {
        self.header.has(spec::incompatible::DIRTY)
    }

    /// Whether the next table slice may find no place before the disk has caught up.
    pub(crate) fn has_full_cache(&self) -> bool {
        self.l2.is_full_of_dirty()
            || self.allocator.as_ref().is_some_and(|a| a.blocks.is_full_of_dirty())
    }

    pub(crate) fn allocator_mut(&mut self) -> Result<&mut Allocator> {
        self.allocator.as_mut().ok_or(Error::ReadOnly("it was opened for reading"))
    }
}

impl Qcow2Image {
    /// The state. A thread that panicked while holding it may have left it half changed, so nobody
    /// goes on with it.
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, State>> {
        let state = self
            .state
            .lock()
            .map_err(|_| Error::Misuse("a thread panicked while it held the image"))?;
        if state.is_outdated {
            return Err(Error::Misuse(
                "the image was amended, or a change failed half way: open it again",
            ));
        }
        Ok(state)
    }

    /// Looks up from now on what the caller wants looked up before anything is written.
    pub(crate) fn set_overlap_check(&mut self, overlap_check: OverlapCheck) -> Result<()> {
        self.overlap_check = overlap_check;
        let mut budget = self.limits.metadata_budget();
        let mut state = self.lock()?;
        let State { allocator, header, .. } = &mut *state;
        allocator
            .as_mut()
            .map_or(Ok(()), |it| it.set_overlap_check(overlap_check, header, &mut budget))
    }

    /// The file that holds guest data, and its index among the image's files.
    pub(crate) fn data(&self) -> (&dyn Storage, u16) {
        match &self.data_file {
            Some(file) => (file.as_ref(), 1),
            None => (self.file.as_ref(), 0),
        }
    }

    pub(crate) fn has_data_file(&self) -> bool {
        self.data_file.is_some()
    }

    /// Refuses ranges past the end of the disk, and images whose data cannot be read.
    pub(crate) fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if self.access.is_metadata_only() {
            return Err(Error::Misuse("the image was opened for inspection only"));
        }
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }

    fn extent(&self, run: Run) -> Extent {
        let (_, file) = self.data();
        let at = |host| FileOffset { file, host: HostOffset(host) };
        let kind = match run.place {
            Place::Data { .. } if self.encryption.is_some() => ExtentKind::Opaque,
            Place::Data { host } => ExtentKind::Data(at(host)),
            Place::Compressed { host, len } => {
                ExtentKind::Encoded { at: at(host), len_bytes: len, codec: self.codec }
            }
            Place::Zero { host } => ExtentKind::Zero { allocation: host.map(at) },
            Place::Backing { host } => ExtentKind::Backing { allocation: host.map(at) },
        };
        Extent { len_bytes: run.len, kind }
    }
}

impl BlockImage for Qcow2Image {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.read(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        let run = self.run_at(&mut *self.lock()?, range)?;
        Ok(self.extent(run))
    }

    fn clusters_in_use(&self, most: u64) -> Result<Option<u64>> {
        self.count_in_use(most).map(Some)
    }

    fn info(&self) -> Result<ImageInfo> {
        self.describe()
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        match index {
            0 => Some(&self.file),
            1 => self.data_file.as_ref(),
            _ => None,
        }
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.backing.as_ref()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        (self.access == Access::Write).then_some(self)
    }

    fn compressor(&self) -> Option<&dyn CompressedWrite> {
        let can = !self.has_data_file() && self.encryption.is_none();
        (self.access == Access::Write && can).then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        (self.access == Access::Write).then_some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        Some(self)
    }

    fn overlay(&self) -> Option<&dyn Overlay> {
        (self.access == Access::Write).then_some(self)
    }

    fn amender(&self) -> Option<&dyn Amend> {
        (self.access == Access::Write).then_some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        // After amending all is on disk.
        let is_outdated = self.state.lock().is_ok_and(|state| state.is_outdated);
        if self.access == Access::Write && !is_outdated { self.finish_all() } else { Ok(()) }
    }
}

/// The codec of an image's compressed clusters.
pub(crate) fn codec_of(header: &Header) -> Result<Codec> {
    match header.compression_type {
        spec::compression::ZLIB => Ok(Codec::Deflate),
        spec::compression::ZSTD => Ok(Codec::Zstd),
        other => {
            Err(Error::Unsupported { format: FORMAT, feature: format!("compression type {other}") })
        }
    }
}
