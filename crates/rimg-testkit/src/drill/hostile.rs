//! Images with wrong bytes and missing ends: an error or a result, in little time and memory.

use super::{Drill, Op, apply};
use crate::{MemoryStorage, PlainImage, Rng};
use core::ops::Range;
use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, ExtentKind, FormatDriver, Limits, NewSnapshot,
    OpenOptions, Preallocation, RawOptions, Repair, Result, SnapshotSelector, Storage,
    StorageWrite as _, num,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What these tests may allocate, for [`bounds::under_memory_limit`](crate::bounds), in bytes.
pub const MEMORY_BYTES: u64 = 256 << 20;

const TIME: Duration = Duration::from_secs(1);

/// What is read of a disk at most, in bytes: a wrong size must not make a test endless.
const MOST_READ: u64 = 512 << 10;

/// How much of the metadata is looked at together: where one byte of it is set, its neighbours
/// mean something, too.
const LINE_BYTES: u64 = 64;

/// Numbers that break sums, each put at every place in both byte orders.
const EXTREMES: &[u64] = &[
    0,
    1,
    0x200,
    u64::MAX,
    1 << 63,
    0x7fff_ffff_ffff_ffff,
    0x7fff_ffff_0000_0000,
    0xffff_ffff_0000_0000,
    0x0000_0000_ffff_ffff,
    0xffff_fffe_ffff_fffe,
    0x00ff_ffff_ffff_fe00,
];

impl Drill {
    /// `count` times, one byte of the metadata is another. What can be done with an image is done
    /// with each: nothing panics, hangs, or blames the caller. Returns how many still opened.
    ///
    /// # Panics
    /// When anything else happens, with the byte.
    #[must_use]
    pub fn any_wrong_byte(&self, count: u64) -> u64 {
        let sample = self.sample();
        let mut rng = Rng::new(0x5eed);
        let mut opened = 0;
        for turn in 0..count {
            let (at, byte) = sample.pick(&mut rng);
            let patched = sample.storage.clone();
            patched.write_all_at(&[byte], at).unwrap();
            // Everything else is done every time; writing only sometimes, as it takes longest.
            let what = format!("{byte:#04x} at {at:#x}: {self:?}");
            opened += u64::from(self.survive_it(&what, &patched, turn % 4 == 0));
        }
        opened
    }

    /// The file ends at each border of its metadata, and shortly before and behind it.
    ///
    /// # Panics
    /// As [`any_wrong_byte`](Self::any_wrong_byte).
    pub fn any_missing_end(&self) {
        let sample = self.sample();
        let mut lengths: Vec<u64> = (0..=600).collect();
        for range in &sample.metadata {
            for edge in [range.start, range.end] {
                lengths.extend([edge.saturating_sub(1), edge, edge + 1, edge + 8, edge + 511]);
            }
        }
        lengths.extend((1..=600).map(|less| sample.len.saturating_sub(less)));
        lengths.sort_unstable();
        lengths.dedup();
        for len in lengths.into_iter().filter(|len| *len < sample.len) {
            let shortened = sample.storage.clone();
            shortened.set_len_bytes(len).unwrap();
            self.survive_it(&format!("{len:#x} bytes: {self:?}"), &shortened, true);
        }
    }

    /// At every fourth byte of the metadata that means something stands a number that breaks
    /// sums, in either byte order.
    ///
    /// # Panics
    /// As [`any_wrong_byte`](Self::any_wrong_byte).
    pub fn any_extreme_field(&self) {
        let sample = self.sample();
        let mut places = 0;
        for range in &sample.metadata {
            let end = range.end.min(range.start + 1024);
            for at in (range.start..end).step_by(4) {
                places += 1;
                for word in EXTREMES {
                    for bytes in [word.to_be_bytes(), word.to_le_bytes()] {
                        let patched = sample.storage.clone();
                        patched.write_all_at(&bytes, at).unwrap();
                        let what = format!("{bytes:x?} at {at:#x}: {self:?}");
                        self.survive_it(&what, &patched, places % 4 == 0);
                    }
                }
            }
        }
        assert!(places > 16, "hardly any metadata");
    }

    fn survive_it(&self, what: &str, storage: &MemoryStorage, all: bool) -> bool {
        survive(what, self.drivers[0], storage, &self.open, all)
    }

    /// An image with some of everything, and where its metadata is.
    fn sample(&self) -> Sample {
        let dir = self.dir();
        let mut model = self.make(&dir);
        let image = self.opened(&dir, true);
        let mut rng = Rng::new(1);
        for _ in 0..12 {
            let op = Op::random(&mut rng, self.size_bytes, self.step_bytes);
            if !matches!(op, Op::Resize { .. }) {
                apply(&op, image.as_ref(), &mut model, "sample");
            }
        }
        image.close().unwrap();
        let image = self.opened(&dir, false);
        let file = dir.file("disk");
        let len = file.len_bytes().unwrap();
        let bytes = {
            let mut bytes = vec![0; num::to_usize(len).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let data = data_ranges(image.as_ref());
        let is_data = |at: u64| data.iter().any(|range| range.contains(&at));
        let lines = bytes.chunks(num::to_usize(LINE_BYTES).unwrap());
        let mut metadata: Vec<Range<u64>> = Vec::new();
        for (nth, line) in (0..).zip(lines) {
            let at = nth * LINE_BYTES;
            let end = (at + LINE_BYTES).min(len);
            if is_data(at) || rimg_core::zeroes::is_zero(line) {
                continue;
            }
            match metadata.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => metadata.push(at..end),
            }
        }
        assert!(!metadata.is_empty(), "{self:?} has no metadata");
        let storage = MemoryStorage::from(bytes);
        Sample { storage, len, metadata }
    }
}

/// Where guest data lies in the image's own file.
fn data_ranges(image: &dyn BlockImage) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < image.size_bytes() {
        let extent = image.extent_at(at..image.size_bytes()).unwrap();
        match extent.kind {
            ExtentKind::Data(place) if place.file == 0 => {
                found.push(place.host.0..place.host.0 + extent.len_bytes);
            }
            ExtentKind::Encoded { at, len_bytes, .. } if at.file == 0 => {
                found.push(at.host.0..at.host.0 + len_bytes);
            }
            _ => {}
        }
        at += extent.len_bytes;
    }
    found
}

/// An image, and which of its bytes are metadata.
struct Sample {
    storage: MemoryStorage,
    len: u64,
    metadata: Vec<Range<u64>>,
}

impl Sample {
    /// A byte of metadata, and another value for it.
    fn pick(&self, rng: &mut Rng) -> (u64, u8) {
        let which = rng.below(num::to_u64(self.metadata.len()));
        let range = &self.metadata[usize::try_from(which).unwrap()];
        let at = range.start + rng.below(range.end - range.start);
        let mut old = [0; 1];
        self.storage.read_exact_at(&mut old, at).unwrap();
        let [old] = old;
        let byte = match rng.below(3) {
            0 => old ^ (1 << rng.below(8)),
            1 => !old,
            _ => old.wrapping_add(1 + u8::try_from(rng.below(255)).unwrap()),
        };
        (at, byte)
    }
}

/// Does with an image what can be done, writing as well if `all`; whether it opened.
///
/// # Panics
/// With `what`, when anything panics, takes longer than a second, or blames the caller.
pub fn survive(
    what: &str,
    driver: &dyn FormatDriver,
    storage: &MemoryStorage,
    options: &RawOptions,
    all: bool,
) -> bool {
    survive_within(&Limits::default(), what, driver, storage, options, all)
}

/// As [`survive`], within tighter limits: for numbers that cost what they say, as those of the
/// iterations of a key do.
///
/// # Panics
/// As [`survive`].
pub fn survive_within(
    limits: &Limits,
    what: &str,
    driver: &dyn FormatDriver,
    storage: &MemoryStorage,
    options: &RawOptions,
    all: bool,
) -> bool {
    let victim = Victim { driver, storage, options, limits };
    let run = || catch_unwind(AssertUnwindSafe(|| victim.use_it(all)));
    // Other programs may have the processor meanwhile, but not for ever.
    let (start, busy) = (Instant::now(), processor_time());
    let opened = run().unwrap_or_else(|_| panic!("{what}: panic"));
    let busy = processor_time().saturating_sub(busy);
    assert!(busy <= TIME && start.elapsed() <= TIME * 30, "{what}: {busy:?} {:?}", start.elapsed());
    opened
}

/// How long this thread has been at work.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

struct Victim<'a> {
    driver: &'a dyn FormatDriver,
    storage: &'a MemoryStorage,
    options: &'a RawOptions,
    limits: &'a Limits,
}

impl Victim<'_> {
    fn use_it(&self, all: bool) -> bool {
        if all && let Some(image) = not_misused(self.open(false, true)) {
            not_misused(image.info());
            check(image.as_ref(), Repair::Nothing);
            // Each on a copy of its own: what comes next wants the damage.
            for repair in [Repair::Leaks, Repair::All] {
                if let Some(image) = not_misused(self.open(true, true)) {
                    check(image.as_ref(), repair);
                    not_misused(image.close());
                }
            }
        }
        let Some(image) = not_misused(self.open(false, false)) else { return false };
        not_misused(image.info());
        read(image.as_ref());
        check(image.as_ref(), Repair::Nothing);
        read_snapshots(image.as_ref());
        if all && let Some(image) = not_misused(self.open(true, false)) {
            change(image.as_ref());
            not_misused(image.close());
        }
        true
    }

    fn open(&self, writable: bool, inspect_only: bool) -> Result<Box<dyn BlockImage>> {
        let (limits, options) = (*self.limits, self.options);
        let how = OpenOptions { writable, inspect_only, limits, gate: &Blank, options };
        self.driver.open(Arc::new(self.storage.clone()), &how)
    }
}

/// Writes, and everything else that changes an image.
fn change(image: &dyn BlockImage) {
    let Some(writer) = image.writer() else { return };
    let last = image.size_bytes().saturating_sub(1).min(MOST_READ);
    if last < image.size_bytes() {
        not_misused(writer.write_at(&[1], last));
    }
    not_misused(writer.discard_at(0..last.min(4096)));
    not_misused(writer.write_zeroes_at(0..last.min(100)));
    if image.size_bytes() >= 700 {
        not_misused(writer.write_at(&[2; 700], 0));
    }
    not_misused(writer.flush());
    edit_bitmaps(image);
    edit_snapshots(image);
    if let Some(resizer) = image.resizer() {
        let half = image.size_bytes() / 1024 * 512;
        not_misused(resizer.resize(half, Preallocation::Off));
        not_misused(resizer.resize(half.saturating_add(1 << 20), Preallocation::Off));
    }
    if let Some(amender) = image.amender() {
        let options = RawOptions::new().with("refcount_bits", "64");
        not_misused(amender.amend(&options, false, &mut |_, _| {}));
    }
}

fn edit_snapshots(image: &dyn BlockImage) {
    let Some(snapshots) = image.snapshots() else { return };
    let (Some(list), Some(editor)) = (not_misused(snapshots.list()), snapshots.editor()) else {
        return;
    };
    not_misused(editor.create(&NewSnapshot { name: "new", ..NewSnapshot::default() }));
    for snapshot in list.iter().take(2) {
        let wanted = SnapshotSelector::IdOrName(&snapshot.id);
        not_misused(editor.apply(&wanted));
        not_misused(editor.delete(&wanted));
    }
}

fn edit_bitmaps(image: &dyn BlockImage) {
    let Some(bitmaps) = image.bitmaps() else { return };
    let Some(list) = not_misused(bitmaps.list()) else { return };
    let size = image.size_bytes();
    for bitmap in list.iter().take(4) {
        let mut at = 0;
        for _ in 0..100 {
            let Ok(Some(run)) = bitmaps.dirty_run(&bitmap.name, at..size) else { break };
            assert!(at <= run.start && run.start < run.end && run.end <= size, "{run:?}");
            at = run.end;
        }
        if let Some(editor) = bitmaps.editor() {
            not_misused(editor.add("new", None));
            not_misused(editor.clear(&bitmap.name));
            not_misused(editor.remove(&bitmap.name));
        }
    }
}

fn read_snapshots(image: &dyn BlockImage) {
    if let Some(snapshots) = image.snapshots()
        && let Some(list) = not_misused(snapshots.list())
    {
        for snapshot in list.iter().take(4) {
            let wanted = SnapshotSelector::IdOrName(&snapshot.id);
            if let Some(Some(disk)) = not_misused(snapshots.open(&wanted)) {
                read(disk.as_ref());
            }
        }
    }
}

/// What came of it; `None` for an error. Bytes of an image are never a mistake of the caller.
#[track_caller]
fn not_misused<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Misuse(what)) => panic!("the caller is blamed: {what}"),
        Err(_) => None,
    }
}

fn check(image: &dyn BlockImage, repair: Repair) {
    if let Some(checker) = image.checker() {
        let mut findings = 0_u64;
        not_misused(checker.check(repair, &mut |_| findings += 1));
        assert!(findings < 10_000_000, "endless findings");
    }
}

/// Reads the disk, or the beginning and the end of a large one, and walks its extents.
fn read(image: &dyn BlockImage) {
    let size = image.size_bytes();
    let mut buf = vec![0; 64 << 10];
    for part in [0..size.min(MOST_READ), size.saturating_sub(128 << 10).max(MOST_READ)..size] {
        let mut at = part.start;
        while at < part.end {
            let piece = usize::try_from((part.end - at).min(64 << 10)).unwrap();
            not_misused(image.read_at(&mut buf[..piece], at));
            at += num::to_u64(piece);
        }
    }
    let mut at = 0;
    for _ in 0..200 {
        if at == size {
            break;
        }
        let Some(extent) = not_misused(image.extent_at(at..size)) else { break };
        assert!(extent.len_bytes > 0 && extent.len_bytes <= size - at, "{extent:?}");
        at += extent.len_bytes;
    }
}

/// Every other file that an image names holds zeroes.
struct Blank;

impl DependencyGate for Blank {
    fn open_file(&self, _: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(MemoryStorage::with_len(1 << 20)))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Ok(Some(Arc::new(PlainImage::new(self.open_file(wanted)?)?)))
    }
}
