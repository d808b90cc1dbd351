//! What may stand in a table, and how it is found out.

use super::Kind;
use super::subject::{DISK, Subject, noise, over_base, put_base, same, shows, text, write};
use super::wrong::{Outcome, Wrong, unless};
use crate::{Fate, MemoryDir, RecordingStorage, Rng};
use rimg_core::{
    BlockImage, CheckSummary, ExtentKind, ImageWrite, Match, NewSnapshot, Preallocation,
    ProbeWindow, RawOptions, Repair, Secret, SnapshotSelector, Storage as _, num,
};
use std::sync::Arc;

/// Something that a format may offer.
#[derive(Debug)]
pub struct Capability {
    name: &'static str,
    trial: fn(&Subject<'_>) -> Outcome,
}

impl Capability {
    /// Its name in the tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn try_with(&self, subject: &Subject<'_>) -> Outcome {
        (self.trial)(subject)
    }
}

/// The rows of every table, in their order.
pub const CAPABILITIES: &[Capability] = &[
    // What is there without a name tells what it is, for sure.
    Capability { name: "probe", trial: probe },
    Capability { name: "read", trial: read },
    // Bytes of the guest lie in a file where the image says, as they are.
    Capability { name: "map to places in the file", trial: map },
    Capability { name: "write", trial: write_and_read },
    Capability { name: "write zeroes", trial: write_zeroes },
    // What was discarded reads as zeroes.
    Capability { name: "discard", trial: discard },
    // What was flushed is there after a crash that loses everything else.
    Capability { name: "flush", trial: flush },
    Capability { name: "create", trial: create },
    Capability { name: "resize: grow", trial: grow },
    Capability { name: "resize: shrink", trial: shrink },
    // A sound image is found sound, and wrong bytes are noticed.
    Capability { name: "check", trial: check },
    // Of some wrong bytes nothing is left.
    Capability { name: "repair", trial: repair },
    Capability { name: "measure", trial: measure },
    Capability { name: "write compressed", trial: compress },
    Capability { name: "parent", trial: parent },
    // The image names another parent.
    Capability { name: "parent: rebase", trial: rebase },
    // The image drops all that it holds, which is its parent's from then on.
    Capability { name: "parent: commit", trial: commit },
    Capability { name: "snapshots", trial: snapshots },
    Capability { name: "bitmaps", trial: bitmaps },
    // No byte of the guest stands in the file as it is.
    Capability { name: "encryption", trial: encryption },
    Capability { name: "amend", trial: amend },
];

fn probe(subject: &Subject<'_>) -> Outcome {
    let file = subject.dir().file(DISK);
    let len_bytes = file.len_bytes()?;
    let window = num::to_u64(ProbeWindow::HEAD_BYTES).min(len_bytes);
    let mut head = vec![0; num::to_usize(window)?];
    file.read_exact_at(&mut head, 0)?;
    let found = subject.kind.driver().probe(&ProbeWindow { head: &head, name: None, len_bytes });
    match found {
        Match::Sure => Ok(()),
        other => Err(format!("the answer is {other:?}").into()),
    }
}

fn read(subject: &Subject<'_>) -> Outcome {
    subject.holds(&subject.dir(), &subject.disk)
}

fn map(subject: &Subject<'_>) -> Outcome {
    let image = subject.open(&subject.dir(), false)?;
    let (mut at, mut found) = (0, false);
    while at < image.size_bytes() {
        let extent = image.extent_at(at..image.size_bytes())?;
        if let ExtentKind::Data(place) = extent.kind {
            let file = image.file(place.file).ok_or("an extent is in a file that is not there")?;
            // A disk may go on behind the end of its file, with zeroes.
            let there = file.len_bytes()?.saturating_sub(place.host.0).min(extent.len_bytes);
            let mut bytes = vec![0; num::to_usize(there)?];
            file.read_exact_at(&mut bytes, place.host.0)?;
            let guest = &subject.disk[num::to_usize(at)?..][..bytes.len()];
            unless(bytes == guest, "other bytes are in the file where the map leads to")?;
            found = true;
        }
        at += extent.len_bytes;
    }
    unless(found, "no extent has a place")
}

/// Opens the image, does something to it, closes it and compares it with what it should be then.
fn change(
    subject: &Subject<'_>,
    change: impl FnOnce(&dyn BlockImage, &mut Vec<u8>) -> Outcome,
) -> Outcome {
    let (dir, mut disk) = (subject.dir(), subject.disk.clone());
    let image = subject.open(&dir, true)?;
    change(image.as_ref(), &mut disk)?;
    image.close()?;
    subject.holds(&dir, &disk)
}

fn writer(image: &dyn BlockImage) -> Outcome<&dyn ImageWrite> {
    Ok(image.writer().ok_or("no writing is offered")?)
}

fn write_and_read(subject: &Subject<'_>) -> Outcome {
    change(subject, |image, disk| {
        // Over what there is, and to where nothing was.
        write(writer(image)?, disk, &noise(3001), 100)?;
        write(writer(image)?, disk, &noise(3002), subject.units(12..13).start - 1000)
    })
}

fn write_zeroes(subject: &Subject<'_>) -> Outcome {
    change(subject, |image, disk| {
        let range = 100..subject.units(0..1).end + 1000;
        disk[100..num::to_usize(range.end)?].fill(0);
        Ok(writer(image)?.write_zeroes_at(range)?)
    })
}

fn discard(subject: &Subject<'_>) -> Outcome {
    change(subject, |image, disk| {
        let range = subject.units(0..1);
        disk[..num::to_usize(range.end)?].fill(0);
        Ok(writer(image)?.discard_at(range)?)
    })
}

fn flush(subject: &Subject<'_>) -> Outcome {
    let (dir, files) = subject.dir_of(RecordingStorage::starting_with);
    let image = subject.open(&dir, true)?;
    let mut disk = subject.disk.clone();
    write(writer(image.as_ref())?, &mut disk, &noise(3003), subject.units(12..13).start)?;
    writer(image.as_ref())?.flush()?;
    let crashed = MemoryDir::new(subject.kind.drivers);
    for (name, file) in files {
        let left = file.crash_state(file.position(), |_| Fate::Lost);
        crashed.put(&name, Arc::new(left));
    }
    subject.holds(&crashed, &disk)
}

fn create(subject: &Subject<'_>) -> Outcome {
    let options = subject.kind.create.as_ref().ok_or("no options ask for such an image")?;
    let (dir, options) = room(subject.kind, options)?;
    let size = subject.kind.unit_bytes * 16;
    dir.create(DISK, subject.kind.format, size, &options)?;
    let image = subject.open(&dir, true)?;
    unless(image.size_bytes() >= size, "the image is smaller than asked for")?;
    let blank = vec![0; num::to_usize(image.size_bytes())?];
    let is_blank = writer(image.as_ref())?.is_zero_initialised() && image.backing().is_none();
    if is_blank { same(image.as_ref(), &blank) } else { Ok(()) }
}

/// A folder for a new image, with what will be below it, and the options to make it with.
fn room(kind: &Kind, options: &RawOptions) -> Outcome<(MemoryDir, RawOptions)> {
    let dir = MemoryDir::new(kind.drivers);
    if !kind.is_over_own_format {
        return Ok((dir, options.clone()));
    }
    put_base(&dir, kind, kind.format)?;
    Ok((dir, over_base(options, kind.format)))
}

fn grow(subject: &Subject<'_>) -> Outcome {
    resize(subject, |size| size + subject.units(0..3).end)
}

fn shrink(subject: &Subject<'_>) -> Outcome {
    resize(subject, |_| subject.units(0..9).end)
}

fn resize(subject: &Subject<'_>, size: impl FnOnce(u64) -> u64) -> Outcome {
    change(subject, |image, disk| {
        let (old, new) = (image.size_bytes(), size(image.size_bytes()));
        let resizer = image.resizer().ok_or("no change of size is offered")?;
        resizer.resize(new, Preallocation::Off)?;
        if new > old && !resizer.grows_by_zeroes() {
            writer(image)?.write_zeroes_at(old..new)?;
        }
        disk.resize(num::to_usize(new)?, 0);
        Ok(())
    })
}

/// How many wrong bytes a check may miss, and a repair leave, before it is said to do nothing.
const WRONG_BYTES: usize = 4000;

fn check(subject: &Subject<'_>) -> Outcome {
    unless(is_sound(&summary(subject, &subject.dir(), Repair::Nothing)?), "a sound image is not")?;
    with_wrong_bytes(subject, "no wrong byte is noticed", |dir| {
        Ok(!is_sound(&summary(subject, dir, Repair::Nothing)?))
    })
}

fn repair(subject: &Subject<'_>) -> Outcome {
    summary(subject, &subject.dir(), Repair::Nothing)?;
    with_wrong_bytes(subject, "nothing that is noticed is repaired", |dir| {
        let fixed = |sum: &CheckSummary| sum.corruptions_fixed + sum.leaks_fixed;
        Ok(!is_sound(&summary(subject, dir, Repair::Nothing)?)
            && fixed(&summary(subject, dir, Repair::All)?) > 0
            && is_sound(&summary(subject, dir, Repair::Nothing)?))
    })
}

/// Whether something holds for one of many damaged images.
fn with_wrong_bytes(
    subject: &Subject<'_>,
    otherwise: &str,
    holds: impl Fn(&MemoryDir) -> Outcome<bool>,
) -> Outcome {
    let lines = subject.metadata_lines();
    let mut rng = Rng::new(0x600d);
    for _ in 0..if lines.is_empty() { 0 } else { WRONG_BYTES } {
        let (file, line) = lines[num::to_usize(rng.below(num::to_u64(lines.len())))?];
        let dir = subject.with_wrong_byte(file, line + rng.below(64), &mut rng);
        // What cannot be opened or checked any more is neither noticed nor repaired.
        if holds(&dir).unwrap_or(false) {
            return Ok(());
        }
    }
    Err(otherwise.into())
}

fn summary(subject: &Subject<'_>, dir: &MemoryDir, how: Repair) -> Outcome<CheckSummary> {
    let image = subject.inspect(dir, how != Repair::Nothing)?;
    let checker = image.checker().ok_or("no check is offered")?;
    let summary = checker.check(how, &mut |_| {})?;
    image.close()?;
    Ok(summary)
}

fn is_sound(summary: &CheckSummary) -> bool {
    (summary.corruptions, summary.leaks, summary.check_errors) == (0, 0, 0)
}

fn measure(subject: &Subject<'_>) -> Outcome {
    let kind = subject.kind;
    let options = kind.create.as_ref().ok_or("no options ask for such an image")?;
    let size = num::to_u64(subject.disk.len());
    let measure = kind.driver().measure(size, options)?;
    let mut measure = measure.ok_or("the format does not measure")?;
    let data = [subject.units(0..2), subject.units(8..10)];
    data.iter().cloned().for_each(|range| measure.add_data(range));
    let measured = measure.measured();
    // Disks below are not counted, nor are descriptors that lie beside the data.
    let files = subject.files().map(|file| Ok(file.len_bytes()?)).collect::<Outcome<Vec<u64>>>()?;
    let own = if kind.is_over_own_format { &files[..1] } else { &files[..] };
    let is = own.iter().copied().max().unwrap_or_default();
    let says = format!("{measured:?}, and a file has {is} bytes");
    unless(measured.required_bytes >= is, &says)?;
    unless(measured.fully_allocated_bytes >= measured.required_bytes, &says)
}

fn compress(subject: &Subject<'_>) -> Outcome {
    let dir = subject.dir();
    let image = subject.open(&dir, true)?;
    let compressor = image.compressor().ok_or("no compressed writing is offered")?;
    let cluster = u64::from(compressor.cluster_bytes());
    let at = subject.units(4..5).start.next_multiple_of(cluster);
    let bytes = text(cluster);
    compressor.write_compressed_at(&bytes, at)?;
    let mut disk = subject.disk.clone();
    disk[num::to_usize(at)?..][..bytes.len()].copy_from_slice(&bytes);
    image.close()?;
    subject.holds(&dir, &disk)?;
    let extent = subject.open(&dir, false)?.extent_at(at..at + cluster)?;
    unless(matches!(extent.kind, ExtentKind::Encoded { .. }), "it is stored as it is")
}

fn parent(subject: &Subject<'_>) -> Outcome {
    over_parent(subject).map(|_| ())
}

/// An image over another: the subject itself where it is one, or else a new one over a disk of its
/// own format or a raw one.
fn over_parent(subject: &Subject<'_>) -> Outcome<MemoryDir> {
    let dir = subject.dir();
    if subject.open(&dir, false)?.backing().is_some() {
        subject.holds(&dir, &subject.disk)?;
        return Ok(dir);
    }
    let kind = subject.kind;
    let options = kind.create.as_ref().ok_or("no options ask for such an image")?;
    let mut last = Wrong::from("");
    for format in [kind.format, "raw"] {
        match put_over(subject, options, format) {
            Ok(dir) => return Ok(dir),
            Err(wrong) => last = wrong,
        }
    }
    Err(last)
}

fn put_over(subject: &Subject<'_>, options: &RawOptions, format: &str) -> Outcome<MemoryDir> {
    let kind = subject.kind;
    let dir = MemoryDir::new(kind.drivers);
    let mut disk = put_base(&dir, kind, format)?;
    dir.create(DISK, kind.format, kind.unit_bytes * 16, &over_base(options, format))?;
    let image = subject.open(&dir, true)?;
    unless(image.backing().is_some(), "nothing is below the image")?;
    disk.resize(num::to_usize(image.size_bytes())?, 0);
    same(image.as_ref(), &disk)?;
    write(writer(image.as_ref())?, &mut disk, &noise(3004), 1000)?;
    image.close()?;
    subject.holds(&dir, &disk)?;
    Ok(dir)
}

fn rebase(subject: &Subject<'_>) -> Outcome {
    let dir = over_parent(subject)?;
    dir.put("other", dir.file("base"));
    let image = subject.open(&dir, true)?;
    let format = image.backing().map(|below| below.info()).transpose()?.map(|info| info.format);
    let overlay = image.overlay().ok_or("no change of what lies below is offered")?;
    unless(overlay.can_change_backing(), "the parent cannot be changed")?;
    overlay.change_backing(Some("other"), format)?;
    image.close()?;
    let named = subject.open(&dir, false)?.info()?.backing_file;
    unless(named.as_deref() == Some("other"), "the image names the parent that it had")
}

fn commit(subject: &Subject<'_>) -> Outcome {
    let dir = over_parent(subject)?;
    let image = subject.open(&dir, true)?;
    image.overlay().ok_or("no change of what lies below is offered")?.make_empty()?;
    image.close()?;
    let image = subject.open(&dir, false)?;
    let below = image.backing().ok_or("nothing is below the image any more")?;
    let mut disk = vec![0; num::to_usize(below.size_bytes())?];
    below.read_at(&mut disk, 0)?;
    disk.resize(num::to_usize(image.size_bytes())?, 0);
    same(image.as_ref(), &disk)
}

fn snapshots(subject: &Subject<'_>) -> Outcome {
    let wanted = SnapshotSelector::IdOrName("then");
    change(subject, |image, _| {
        let snapshots = image.snapshots().ok_or("no snapshots are offered")?;
        let editor = snapshots.editor().ok_or("snapshots are only read")?;
        editor.create(&NewSnapshot { name: "then", ..NewSnapshot::default() })?;
        writer(image)?.write_at(&noise(3005), 0)?;
        let then = snapshots.open(&wanted)?.ok_or("the snapshot is not found")?;
        same(then.as_ref(), &subject.disk)?;
        drop(then);
        unless(editor.apply(&wanted)?, "the snapshot cannot be applied")?;
        unless(editor.delete(&wanted)?, "the snapshot cannot be deleted")?;
        unless(snapshots.list()?.is_empty(), "a deleted snapshot is listed")
    })
}

fn bitmaps(subject: &Subject<'_>) -> Outcome {
    let (dir, at) = (subject.dir(), subject.units(12..13).start);
    let image = subject.open(&dir, true)?;
    let bitmaps = image.bitmaps().ok_or("no bitmaps are offered")?;
    bitmaps.editor().ok_or("bitmaps are only read")?.add("since", None)?;
    writer(image.as_ref())?.write_at(&[1; 512], at)?;
    image.close()?;
    let image = subject.open(&dir, true)?;
    let bitmaps = image.bitmaps().ok_or("no bitmaps are offered")?;
    let dirty = bitmaps.dirty_run("since", 0..image.size_bytes())?;
    unless(dirty.is_some_and(|run| run.contains(&at)), "a write was not noted")?;
    bitmaps.editor().ok_or("bitmaps are only read")?.remove("since")?;
    unless(bitmaps.list()?.is_empty(), "a removed bitmap is listed")
}

fn encryption(subject: &Subject<'_>) -> Outcome {
    let dir = subject.dir();
    if subject.open(&dir, false)?.info()?.encrypted {
        return unless(!shows(&dir, &subject.disk)?, "bytes of the guest stand in the file");
    }
    let kind = subject.kind;
    let options = kind.create.as_ref().ok_or("no options ask for such an image")?;
    let mut last = Wrong::from("no option asks for it");
    for format in ["luks", "aes"] {
        if kind.driver().format().create_option("encrypt.format").is_none() {
            break;
        }
        match encrypted(kind, options, format) {
            Ok(()) => return Ok(()),
            Err(wrong) => last = wrong,
        }
    }
    Err(last)
}

fn encrypted(kind: &Kind, options: &RawOptions, format: &str) -> Outcome {
    let key = RawOptions::new()
        .with("encrypt.key-secret", "s")
        .with_secret("s", Secret::from("passphrase"));
    let mut options = options.clone().with("encrypt.format", format);
    options.add(&key);
    if format == "luks" {
        options.set("encrypt.iter-time", "0");
    }
    let dir = MemoryDir::new(kind.drivers);
    dir.create(DISK, kind.format, kind.unit_bytes * 16, &options)?;
    let image = dir.open_with(DISK, kind.format, true, &key)?;
    let mut disk = vec![0; num::to_usize(image.size_bytes())?];
    write(writer(image.as_ref())?, &mut disk, &text(kind.unit_bytes), 0)?;
    image.close()?;
    same(dir.open_with(DISK, kind.format, false, &key)?.as_ref(), &disk)?;
    unless(!shows(&dir, &disk)?, "bytes of the guest stand in the file")
}

fn amend(subject: &Subject<'_>) -> Outcome {
    change(subject, |image, _| {
        let amender = image.amender().ok_or("no change of options is offered")?;
        Ok(amender.amend(&subject.kind.amend, false, &mut |_, _| {})?)
    })
}
