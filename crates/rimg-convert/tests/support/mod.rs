//! Images in memory whose layout, faults and history are in the hands of a test.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(clippy::as_conversions, clippy::unwrap_used, reason = "small numbers in tests")]

use rimg_codec::{Codec, Encoder, Level};
use rimg_core::{
    BlockImage, CompressedWrite, EncodedCluster, Error, Extent, ExtentKind, FileOffset, HostOffset,
    ImageInfo, ImageWrite, Result, Storage, StorageRun,
};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub const CLUSTER: usize = 4096;

/// Bytes in memory that count and refuse reads.
#[derive(Debug, Default)]
pub struct Store {
    bytes: Vec<u8>,
    /// Bytes read.
    pub read: AtomicU64,
    /// No byte in these ranges can be read.
    pub bad: Vec<Range<u64>>,
    /// The read with this number fails, counted from 0.
    pub fail_nth: Option<u64>,
    calls: AtomicU64,
}

impl Store {
    /// Changes a bit of the byte at `at`, if there is one.
    pub fn flip(&mut self, at: u64) {
        if let Some(byte) = self.bytes.get_mut(at as usize) {
            *byte ^= 1;
        }
    }
}

impl Storage for Store {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = at + buf.len() as u64;
        if self.bad.iter().any(|bad| bad.start < end && at < bad.end) {
            return Err(io::Error::from_raw_os_error(5));
        }
        if self.fail_nth.is_some_and(|n| self.calls.fetch_add(1, Ordering::Relaxed) >= n) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let bytes = self
            .bytes
            .get(at as usize..end as usize)
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buf.copy_from_slice(bytes);
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun::data(self.bytes.len() as u64 - at))
    }
}

/// What a run of a [`Disk`] is, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes made from this seed; some of their 512-byte pieces are zero.
    Data(u8),
    /// Data that is all zeroes.
    ZeroData,
    Zero,
    Backing,
    /// Clusters encoded from what `Data` would hold.
    Encoded(u8),
    /// Encoded clusters of zeroes.
    EncodedZero,
    /// An encoded cluster that does not decode.
    Broken,
}

#[derive(Debug, Clone)]
struct Run {
    range: Range<u64>,
    kind: ExtentKind,
    zero: bool,
}

/// An image to read from.
#[derive(Debug)]
pub struct Disk {
    runs: Vec<Run>,
    size: u64,
    pub store: Arc<Store>,
    file: Arc<dyn Storage>,
    backing: Option<Arc<dyn BlockImage>>,
    pub cluster: usize,
    pub codec: Codec,
    /// Of the sectors at these guest offsets nothing is said.
    pub unknown: Vec<u64>,
}

/// The guest bytes that `Data(seed)` holds at `at`, in pieces of a sector.
pub fn pattern(seed: u8, at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64)
        .map(|at| {
            let sector = at / 512 + u64::from(seed) * 7;
            match sector % 13 {
                // Whole 4 KiB pieces of zeroes, and single sectors of them.
                0 => 0,
                _ if (at / 4096 + u64::from(seed)) % 5 == 0 => 0,
                _ => ((sector % 250) as u8).wrapping_add((at % 3) as u8 * (seed % 2)) | 1,
            }
        })
        .collect()
}

impl Disk {
    /// A disk of `size` bytes made of runs of so many clusters each; the last one fills the rest.
    pub fn new(
        size: u64,
        layout: &[(usize, Kind)],
        codec: Codec,
        backing: Option<Arc<dyn BlockImage>>,
    ) -> Self {
        let mut encoder = Encoder::new(codec, Level::Default).unwrap();
        // Something in front, so that host and guest offsets differ.
        let mut bytes = vec![0xee; 1000];
        let mut runs = Vec::new();
        let mut at = 0;
        let mut push = |start: u64, end: u64, kind: Kind, bytes: &mut Vec<u8>| {
            let len = (end - start) as usize;
            let host =
                |bytes: &Vec<u8>| FileOffset { file: 0, host: HostOffset(bytes.len() as u64) };
            let mut encoded = |content: &[u8], bytes: &mut Vec<u8>, broken: bool| {
                let at = host(bytes);
                let mut cluster = content.to_vec();
                cluster.resize(CLUSTER, 0);
                if broken {
                    bytes.extend([0xff; 300]);
                } else if encoder.encode(&cluster, bytes).is_none() {
                    bytes.extend(&cluster);
                    return ExtentKind::Data(at);
                }
                // An upper bound, as formats that count sectors give.
                let len_bytes = bytes.len() as u64 - at.host.0 + 100;
                ExtentKind::Encoded { at, len_bytes, codec }
            };
            let mut zero = false;
            let kind = match kind {
                Kind::Data(seed) => {
                    let at = host(bytes);
                    bytes.extend(pattern(seed, start, len));
                    ExtentKind::Data(at)
                }
                Kind::ZeroData => {
                    let at = host(bytes);
                    bytes.extend(vec![0; len]);
                    ExtentKind::Data(at)
                }
                Kind::Zero => {
                    zero = true;
                    ExtentKind::Zero { allocation: None }
                }
                Kind::Backing => ExtentKind::Backing { allocation: None },
                Kind::Encoded(seed) => encoded(&pattern(seed, start, len), bytes, false),
                Kind::EncodedZero => encoded(&vec![0; len], bytes, false),
                Kind::Broken => encoded(&pattern(1, start, len), bytes, true),
            };
            runs.push(Run { range: start..end, kind, zero });
        };
        for (index, &(clusters, kind)) in layout.iter().enumerate() {
            let last = index + 1 == layout.len();
            let end = if last { size } else { size.min(at + (clusters * CLUSTER) as u64) };
            let single = matches!(kind, Kind::Encoded(_) | Kind::EncodedZero | Kind::Broken);
            while at < end {
                let to = if single { end.min(at + CLUSTER as u64) } else { end };
                push(at, to, kind, &mut bytes);
                at = to;
            }
        }
        let store = Arc::new(Store { bytes, ..Store::default() });
        let unknown = Vec::new();
        Self { runs, size, file: store.clone(), store, backing, cluster: CLUSTER, codec, unknown }
    }

    pub fn edit_store(mut self, edit: impl FnOnce(&mut Store)) -> Self {
        let mut store = Store { bytes: self.store.bytes.clone(), ..Store::default() };
        edit(&mut store);
        self.store = Arc::new(store);
        self.file = self.store.clone();
        self
    }

    fn known_at(&self, range: Range<u64>) -> Extent {
        let index = self.runs.partition_point(|run| run.range.end <= range.start);
        let run = &self.runs[index];
        let kind = run.kind.advanced(range.start - run.range.start);
        Extent { len_bytes: run.range.end.min(range.end) - range.start, kind }
    }

    /// Where in the store the run at `at` begins.
    pub fn host_of(&self, at: u64) -> u64 {
        match self.extent_at(at..self.size).unwrap().kind {
            ExtentKind::Data(place) | ExtentKind::Encoded { at: place, .. } => place.host.0,
            _ => panic!("nothing there"),
        }
    }

    pub fn contents(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        self.read_at(&mut bytes, 0).unwrap();
        bytes
    }
}

impl BlockImage for Disk {
    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at + buf.len() as u64;
        let mut pos = at;
        while pos < end {
            let extent = self.known_at(pos..end);
            let to = pos + extent.len_bytes;
            let part = &mut buf[(pos - at) as usize..(to - at) as usize];
            match extent.kind {
                ExtentKind::Data(place) => self
                    .store
                    .read_exact_at(part, place.host.0)
                    .map_err(Error::io("read data", place.host.0))?,
                ExtentKind::Encoded { at: place, len_bytes, codec } => {
                    let len = len_bytes.min(self.store.bytes.len() as u64 - place.host.0);
                    let mut encoded = vec![0; len as usize];
                    self.store
                        .read_exact_at(&mut encoded, place.host.0)
                        .map_err(Error::io("read cluster", place.host.0))?;
                    let mut cluster = vec![0; self.cluster];
                    rimg_codec::Decoder::new()
                        .decode(codec, &encoded, &mut cluster)
                        .map_err(|e| Error::Decode { codec, host: place.host, source: e.into() })?;
                    let skip = pos as usize % self.cluster;
                    part.copy_from_slice(&cluster[skip..skip + part.len()]);
                }
                ExtentKind::Backing { .. } => match &self.backing {
                    Some(image) => {
                        let below = image.size_bytes().clamp(pos, to) - pos;
                        let (data, rest) = part.split_at_mut(below as usize);
                        if !data.is_empty() {
                            image.read_at(data, pos)?;
                        }
                        rest.fill(0);
                    }
                    None => part.fill(0),
                },
                _ => part.fill(0),
            }
            pos = to;
        }
        Ok(())
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        assert!(range.start < range.end && range.end <= self.size, "{range:?} of {}", self.size);
        let known = self.known_at(range.clone());
        let mut end = range.start + known.len_bytes;
        for &sector in &self.unknown {
            if (sector..sector + 512).contains(&range.start) {
                return Err(Error::Misuse("asked of a sector that nothing is said of"));
            }
            if range.start < sector {
                end = end.min(sector);
            }
        }
        Ok(Extent { len_bytes: end - range.start, ..known })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo {
            format: "disk",
            virtual_size_bytes: self.size,
            cluster_bytes: Some(self.cluster as u64),
            ..ImageInfo::default()
        })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.file)
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.backing.as_ref()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What was done to a [`Sink`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    Write(u64, Vec<u8>),
    Zeroes(Range<u64>),
    Encoded(u64, Vec<u8>),
    Flush,
}

/// An image to write to: remembers what was done, in order.
#[derive(Debug)]
pub struct Sink {
    pub bytes: Mutex<Vec<u8>>,
    pub log: Mutex<Vec<Done>>,
    pub ordered: bool,
    /// What the bytes are said to be in, if anything.
    pub file: Option<Arc<dyn Storage>>,
    pub zero_initialised: bool,
    pub codec: Option<Codec>,
    pub cluster: usize,
    /// The write with this number fails, counted from 0.
    pub fail_nth: Option<usize>,
    /// Calls under way, and the most there ever were.
    busy: AtomicU64,
    pub most_busy: AtomicU64,
    /// Set by the write with this number.
    pub cancel_nth: Option<(usize, Arc<AtomicBool>)>,
}

impl Sink {
    pub fn new(size: u64, ordered: bool) -> Self {
        Self {
            // What was there before can be seen where it was not overwritten.
            bytes: Mutex::new(vec![0; size as usize]),
            log: Mutex::default(),
            ordered,
            file: None,
            zero_initialised: true,
            codec: None,
            cluster: CLUSTER,
            fail_nth: None,
            busy: AtomicU64::new(0),
            most_busy: AtomicU64::new(0),
            cancel_nth: None,
        }
    }

    pub fn with_garbage(self) -> Self {
        self.bytes.lock().unwrap().fill(0xa5);
        Self { zero_initialised: false, ..self }
    }

    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec: Some(codec), ..self }
    }

    pub fn contents(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    pub fn history(&self) -> Vec<Done> {
        self.log.lock().unwrap().clone()
    }

    fn enter(&self, at: u64, what: Done) -> Result<()> {
        let now = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_busy.fetch_max(now, Ordering::SeqCst);
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push(what);
            log.len() - 1
        };
        if let Some((nth, cancel)) = &self.cancel_nth
            && number == *nth
        {
            cancel.store(true, Ordering::SeqCst);
        }
        if self.fail_nth.is_some_and(|nth| number >= nth) {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::io("write", at)(io::Error::from_raw_os_error(28)));
        }
        Ok(())
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        self.bytes.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ImageWrite for Sink {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        assert!(!buf.is_empty());
        self.enter(at, Done::Write(at, buf.to_vec()))?;
        self.put(at, buf);
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        assert!(range.start < range.end);
        self.enter(range.start, Done::Zeroes(range.clone()))?;
        self.put(range.start, &vec![0; (range.end - range.start) as usize]);
        Ok(())
    }

    fn discard_at(&self, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.log.lock().unwrap().push(Done::Flush);
        Ok(())
    }

    fn places_in_order(&self) -> bool {
        self.ordered
    }

    fn is_zero_initialised(&self) -> bool {
        self.zero_initialised
    }
}

impl CompressedWrite for Sink {
    fn codec(&self) -> Codec {
        self.codec.unwrap()
    }

    fn cluster_bytes(&self) -> u32 {
        self.cluster as u32
    }

    fn write_compressed_at(&self, _cluster: &[u8], _at: u64) -> Result<()> {
        unreachable!("the engine encodes by itself")
    }

    fn write_encoded(&self, clusters: &[EncodedCluster<'_>]) -> Result<()> {
        for cluster in clusters {
            assert!(cluster.bytes.len() < self.cluster);
            assert_eq!(cluster.at as usize % self.cluster, 0);
            self.enter(cluster.at, Done::Encoded(cluster.at, cluster.bytes.to_vec()))?;
            let mut decoded = vec![0; self.cluster];
            let measured = rimg_codec::Decoder::new()
                .decode_measured(self.codec(), cluster.bytes, &mut decoded)
                .unwrap();
            assert_eq!(measured, Some(cluster.bytes.len()), "no more than the stream itself");
            decoded.truncate(self.cluster.min((self.size_bytes() - cluster.at) as usize));
            self.put(cluster.at, &decoded);
        }
        Ok(())
    }
}

impl BlockImage for Sink {
    fn size_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let at = at as usize;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        Ok(Extent {
            len_bytes: range.end - range.start,
            kind: ExtentKind::Backing { allocation: None },
        })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo {
            format: "sink",
            cluster_bytes: Some(self.cluster as u64),
            ..ImageInfo::default()
        })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        self.file.as_ref().filter(|_| index == 0)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        Some(self)
    }

    fn compressor(&self) -> Option<&dyn CompressedWrite> {
        self.codec.is_some().then_some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
