//! Any bytes as an image.

use crate::{MemoryStorage, PlainImage, Rng};
use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, ExtentKind, FormatDriver, Limits, Match,
    OpenOptions, Preallocation, ProbeWindow, RawOptions, Repair, Result, SnapshotSelector, Storage,
    num, zeroes,
};
use std::ops::Range;
use std::sync::Arc;

/// Enough to see every kind of run that the input has room for.
const MAX_EXTENTS: usize = 500;
const MAX_SNAPSHOTS: usize = 4;
const READ_BYTES: u64 = 100_000;

/// Opens `bytes` as an image in all ways, reads what it says, and changes it a little.
///
/// # Panics
/// When `driver` does; when it blames its caller for what stands in the image; when reads and
/// extents contradict each other; and when changes to an image that a check finds clean are not
/// there afterwards, or leave it corrupt.
pub fn open(driver: &dyn FormatDriver, bytes: &[u8]) {
    let _: Match = driver.probe(&ProbeWindow {
        head: &bytes[..bytes.len().min(ProbeWindow::HEAD_BYTES)],
        name: None,
        len_bytes: num::to_u64(bytes.len()),
    });
    let file = MemoryStorage::from(bytes);
    let gate = AnyName::new();

    let inspect = how(&gate, false, true);
    if let Some(image) = blameless(driver.open(Arc::new(file.clone()), &inspect)) {
        blameless(image.info());
        check(image.as_ref());
        blameless(image.close());
    }

    let Some(image) = blameless(driver.open(Arc::new(file.clone()), &how(&gate, false, false)))
    else {
        assert!(
            blameless(driver.open(Arc::new(file), &how(&gate, true, false))).is_none(),
            "an image that cannot be read can be written"
        );
        return;
    };
    look_around(image.as_ref());
    look_at_snapshots(image.as_ref());
    let verdict = check(image.as_ref());
    blameless(image.close());

    change(driver, file, verdict);
}

pub(super) fn how(gate: &AnyName, writable: bool, inspect_only: bool) -> OpenOptions<'_> {
    let mut limits = Limits::default();
    limits.metadata_bytes = 16 << 20;
    OpenOptions { writable, inspect_only, limits, gate, options: RawOptions::NONE }
}

/// Whatever an image names is there: what it holds is not what is tried here.
pub(super) struct AnyName {
    file: Arc<dyn Storage>,
}

impl AnyName {
    pub(super) fn new() -> Self {
        let mut bytes = vec![0; 100_000];
        Rng::new(1).fill(&mut bytes[..50_000]);
        Self { file: Arc::new(MemoryStorage::from(bytes)) }
    }
}

impl DependencyGate for AnyName {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        if wanted.name.is_empty() {
            return Err(Error::Denied("a file without a name".to_owned()));
        }
        Ok(Arc::clone(&self.file))
    }

    /// Of one's own: an image below does not change when a data file does.
    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Ok(Some(Arc::new(PlainImage::new(Self::new().open_file(wanted)?)?)))
    }
}

/// The value; `None` for an error that may be the image's fault.
#[track_caller]
pub(super) fn blameless<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Misuse(what)) => panic!("the caller is blamed: {what}"),
        Err(_) => None,
    }
}

/// What a check says in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clean,
    Leaks,
    Corrupt,
}

/// `None` where the format has no check, or it cannot be finished.
fn check(image: &dyn BlockImage) -> Option<Verdict> {
    let mut findings = 0_u64;
    let summary = blameless(image.checker()?.check(Repair::Nothing, &mut |_| findings += 1))?;
    let wrong = summary.check_errors + summary.corruptions;
    assert_eq!(findings == 0, wrong + summary.leaks == 0, "{findings} findings: {summary:?}");
    Some(match (wrong, summary.leaks) {
        (0, 0) => Verdict::Clean,
        (0, _) => Verdict::Leaks,
        _ => Verdict::Corrupt,
    })
}

fn look_around(image: &dyn BlockImage) {
    let size = image.size_bytes();
    if let Some(info) = blameless(image.info()) {
        assert_eq!(info.virtual_size_bytes, size, "the image and what it says of itself");
    }
    let mut at = 0;
    for _ in 0..MAX_EXTENTS {
        if at == size {
            break;
        }
        let Some(extent) = blameless(image.extent_at(at..size)) else { break };
        assert!(extent.len_bytes > 0 && extent.len_bytes <= size - at, "{at:#x}: {extent:?}");
        // The beginning and the end of a run are where it might be wrong.
        let end = at + extent.len_bytes;
        for part in [at..end.min(at.saturating_add(600)), end - 1..end] {
            compare(image, extent.kind.advanced(part.start - at), part);
        }
        at = end;
    }
    for start in [0, size / 3, size.saturating_sub(READ_BYTES)] {
        read(image, start..start.saturating_add(READ_BYTES).min(size));
    }
}

/// Compares what a range reads as with what its extent says.
fn compare(image: &dyn BlockImage, kind: ExtentKind, range: Range<u64>) {
    let Some(found) = read(image, range.clone()) else { return };
    let place = match kind {
        ExtentKind::Data(place) => place,
        ExtentKind::Zero { .. } => {
            assert!(zeroes::is_zero(&found), "{range:#x?} is said to be zeroes");
            return;
        }
        ExtentKind::Backing { .. } if image.backing().is_none() => {
            assert!(zeroes::is_zero(&found), "{range:#x?} is nowhere, and not zeroes");
            return;
        }
        _ => return,
    };
    let file = image.file(place.file).unwrap_or_else(|| panic!("{place:?} is in no file"));
    let mut stored = vec![0; found.len()];
    if file.read_exact_at(&mut stored, place.host.0).is_ok() {
        assert!(found == stored, "{range:#x?} is not what lies at {place:?}");
    }
}

fn read(image: &dyn BlockImage, range: Range<u64>) -> Option<Vec<u8>> {
    let mut buf = vec![0; usize::try_from(range.end - range.start).unwrap()];
    blameless(image.read_at(&mut buf, range.start))?;
    Some(buf)
}

fn look_at_snapshots(image: &dyn BlockImage) {
    let Some(snapshots) = image.snapshots() else { return };
    let Some(list) = blameless(snapshots.list()) else { return };
    for entry in list.iter().take(MAX_SNAPSHOTS) {
        let wanted = SnapshotSelector::Fields { id: Some(&entry.id), name: None };
        if let Some(opened) = blameless(snapshots.open(&wanted)) {
            let snapshot = opened.unwrap_or_else(|| panic!("'{}' is only listed", entry.id));
            look_around(snapshot.as_ref());
            blameless(snapshot.close());
        }
    }
}

/// Changes an image. Of one that was clean, the changes must be there afterwards; of any other,
/// that nothing breaks is all that can be asked.
fn change(driver: &dyn FormatDriver, file: MemoryStorage, before: Option<Verdict>) {
    let gate = AnyName::new();
    let was_clean = before == Some(Verdict::Clean);
    let file: Arc<dyn Storage> = Arc::new(file);
    let open = |writable| blameless(driver.open(Arc::clone(&file), &how(&gate, writable, false)));
    let Some(image) = open(true) else { return };
    let size = image.size_bytes();
    let ranges = [0..70_000, size / 2 + 1..size / 2 + 5000, size.saturating_sub(40_000)..size]
        .map(|range| range.start.min(size)..range.end.min(size));
    for range in &ranges {
        change_range(image.as_ref(), range, was_clean);
    }
    if let Some(resizer) = image.resizer() {
        let grown = size.saturating_add(1 << 20) / 512 * 512;
        blameless(resizer.resize(grown, Preallocation::Off));
    }
    look_around(image.as_ref());
    let held = ranges.clone().map(|range| read(image.as_ref(), range));
    blameless(image.close());
    let Some(image) = open(false) else {
        assert!(!was_clean, "cannot be opened after it was changed");
        return;
    };
    look_around(image.as_ref());
    if !was_clean {
        return;
    }
    for (range, held) in ranges.iter().zip(held) {
        assert!(read(image.as_ref(), range.clone()) == held, "{range:#x?} differs when reopened");
    }
    // Leaks are allowed here: extensions that a write makes void, as dirty bitmaps, leave some.
    assert_ne!(check(image.as_ref()), Some(Verdict::Corrupt), "changes left corruption behind");
}

/// Writes, zeroes and discards in a range; `None` where something failed.
fn change_range(image: &dyn BlockImage, range: &Range<u64>, was_clean: bool) -> Option<()> {
    let writer = image.writer()?;
    let len = range.end - range.start;
    let mut data = vec![0; usize::try_from(len).unwrap()];
    Rng::new(len).fill(&mut data);
    let (zeroed, discarded) = (len / 4..len / 2, len / 4 * 3..len);
    let host = |part: &Range<u64>| range.start + part.start..range.start + part.end;
    let index = |part: &Range<u64>| -> Range<usize> {
        usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap()
    };
    blameless(writer.write_at(&data, range.start))?;
    blameless(writer.write_zeroes_at(host(&zeroed)))?;
    blameless(writer.discard_at(host(&discarded)))?;
    blameless(writer.flush())?;
    // Clusters of a corrupt image may lie on top of each other: then anything may show.
    if was_clean {
        let mut found = read(image, range.clone()).unwrap_or_else(|| panic!("{range:#x?} is lost"));
        data[index(&zeroed)].fill(0);
        for (found, written) in found[index(&discarded)].iter_mut().zip(&data[index(&discarded)]) {
            assert!(*found == 0 || found == written, "a discard brought up other bytes");
            *found = *written;
        }
        assert!(found == data, "{range:#x?} is not what was written");
    }
    Some(())
}
