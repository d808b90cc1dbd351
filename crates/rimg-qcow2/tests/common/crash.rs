//! What a crash may leave of an image: of one file, or of two that go down together.

use super::{DRIVERS, Kind, Op, apply, create};
use rimg_core::{
    BlockImage, Finding, Preallocation, Repair, SnapshotInfo, SnapshotSelector, Storage, num,
};
use rimg_testkit::{CrashState, MemoryDir, MemoryStorage, ModelDisk, RecordingStorage, Rng};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// With every so many records more, one state of a crash more is passed over: a workload in tiny
/// clusters would take as much time as all others.
const MANY_RECORDS: usize = 50;

/// One in so many states is changed further.
const GOING_ON: u64 = 6;

/// An image whose files remember what is done to them.
pub(crate) struct Recorded {
    pub(crate) dir: MemoryDir,
    recording: Arc<RecordingStorage>,
    kind: Kind,
    /// What was durable at first: how many records.
    start: usize,
}

impl Recorded {
    /// A new image, which is durable, and the disk that it should be.
    pub(crate) fn new(kind: &Kind) -> (Self, ModelDisk) {
        let dir = MemoryDir::new(DRIVERS);
        let recording = Arc::new(RecordingStorage::new());
        dir.put("disk", recording.clone());
        if kind.data_file {
            dir.put("data", Arc::new(recording.beside(MemoryStorage::new())));
        }
        let model = create(&dir, kind);
        recording.writer().unwrap().sync().unwrap();
        if kind.data_file {
            dir.file("data").writer().unwrap().sync().unwrap();
        }
        let start = recording.position();
        (Self { dir, recording, kind: kind.clone(), start }, model)
    }

    /// What the disk is now; `flushed` says whether that is durable.
    pub(crate) fn moment(&self, flushed: bool, model: &ModelDisk) -> Moment {
        let names = model.snapshot_names().into_iter().map(str::to_owned);
        let kept = (0..).map(|place| bytes(&model.snapshot(place)));
        let snapshots = names.zip(kept).collect();
        Moment { position: self.recording.position(), flushed, disk: bytes(model), snapshots }
    }

    /// What the disk may be while it shrinks to what it is `after`. What is behind its new end
    /// goes first: it may be nothing, or what lies below.
    pub(crate) fn while_it_shrinks(&self, before: &ModelDisk, after: &ModelDisk) -> Vec<Moment> {
        let (size, end) = (before.size_bytes(), after.size_bytes());
        if end >= size {
            return Vec::new();
        }
        let mut zeroed = before.clone();
        zeroed.zero(end..size);
        let mut below = zeroed.clone();
        if self.kind.backing_bytes > end {
            let base = self.dir.file("base");
            let stop = self.kind.backing_bytes.min(size);
            let mut bytes = vec![0; usize::try_from(stop - end).unwrap()];
            base.read_exact_at(&mut bytes, end).unwrap();
            below.write(&bytes, end);
        }
        vec![self.moment(false, &zeroed), self.moment(false, &below)]
    }

    /// Calls `look` with what a crash could have left, opened for writing: some of it where there
    /// are many records. Then somebody goes on with it, now and then.
    pub(crate) fn after_each_crash(
        &self,
        snapshots_change: bool,
        mut look: impl FnMut(&Crashed<'_>),
    ) {
        let records = self.recording.position() - self.start;
        let step = 1 + records / MANY_RECORDS;
        let states = self.recording.crash_states(3, 1).step_by(step);
        for (number, state) in (0_u64..).zip(states.skip_while(|s| s.prefix < self.start)) {
            let what = format!("after {} records, {:?}", state.prefix, state.fates);
            self.dir.put("disk", state.storage.clone());
            if self.kind.data_file {
                self.dir.put("data", state.beside[0].clone());
            }
            let image = self.dir.open("disk", "qcow2", true).expect(&what);
            let crashed =
                Crashed { image, state: &state, kind: &self.kind, snapshots_change, what };
            look(&crashed);
            if number % GOING_ON == 0 {
                self.go_on(crashed, &mut Rng::new(number));
            }
        }
    }

    /// What is written to what a crash left stays, and what the disk gains is zeroes.
    fn go_on(&self, crashed: Crashed<'_>, rng: &mut Rng) {
        let seen = crashed.read();
        let end = num::to_u64(seen.len());
        let mut model = ModelDisk::new(end);
        model.write(&seen, 0);
        let size = end + (1 + rng.below(300)) * 512;
        let mut changed = Vec::new();
        let how = [Preallocation::Off, Preallocation::Metadata, Preallocation::Full];
        let how = how[num::to_usize(rng.below(3)).unwrap()];
        match crashed.image.resizer().unwrap().resize(size, how) {
            Ok(()) => {
                model.resize(size);
                changed.push(end..size);
            }
            Err(error) => {
                let message = error.to_string();
                let known = message == "Can't resize a v2 image which has snapshots"
                    || message.contains("is inconsistent and cannot be used");
                assert!(known, "{message}: {}", crashed.what);
            }
        }
        for _ in 0..4 {
            let at = rng.below(model.size_bytes());
            let len = 1 + rng.below(100_000);
            let stop = model.size_bytes().min(at + len);
            let op = match rng.below(3) {
                0 => Op::Zero { at, len },
                1 => Op::Discard { at, len },
                _ => Op::Write { at, len, seed: rng.next_u64() },
            };
            apply(&op, crashed.image.as_ref(), &mut model);
            if !matches!(op, Op::Discard { .. }) {
                changed.push(at..stop);
            }
        }
        crashed.image.close().expect(&crashed.what);
        let what = format!("{}, then {changed:?}", crashed.what);
        let image = self.dir.open("disk", "qcow2", true).expect(&what);
        model.assert_same(image.as_ref(), &what);
        if self.kind.data_file_raw {
            for range in changed {
                let mut raw = vec![0; num::to_usize(range.end - range.start).unwrap()];
                self.dir.file("data").read_exact_at(&mut raw, range.start).expect(&what);
                assert!(raw == model.read(range), "the data file {what}");
            }
        }
        Crashed { image, what, ..crashed }.assert_harmless();
    }
}

/// What the disk was when so many records were in the log.
pub(crate) struct Moment {
    position: usize,
    /// Whether everything was made durable then.
    flushed: bool,
    disk: Vec<u8>,
    /// Names, and the disks that the snapshots keep.
    snapshots: Vec<(String, Vec<u8>)>,
}

/// What a crash left.
pub(crate) struct Crashed<'a> {
    pub(crate) image: Box<dyn BlockImage>,
    state: &'a CrashState,
    kind: &'a Kind,
    snapshots_change: bool,
    /// Which crash, for messages.
    pub(crate) what: String,
}

impl Crashed<'_> {
    /// The moments that the image may be of: from the last that was durable on.
    pub(crate) fn possible(&self, moments: &[Moment]) -> Range<usize> {
        let first = moments
            .iter()
            .rposition(|moment| moment.flushed && moment.position <= self.state.synced)
            .unwrap_or(0);
        let next = moments.iter().map(|moment| moment.position).find(|p| *p >= self.state.prefix);
        let last = moments.iter().rposition(|moment| Some(moment.position) == next);
        first..last.unwrap_or(moments.len() - 1).max(first) + 1
    }

    /// Leaks; and where snapshots come and go, COPIED flags that keep somebody from writing in
    /// place, or that are on a cluster of which only leaked references say that others use it.
    pub(crate) fn assert_harmless(&self) {
        let what = &self.what;
        let mut leaked = BTreeSet::new();
        let mut flags = Vec::new();
        let mut found = |finding: &Finding| {
            let message = finding.message.clone();
            if let Some(rest) = message.strip_prefix("Leaked cluster ") {
                leaked.insert(rest.split(' ').next().unwrap().parse::<u64>().unwrap());
            } else if self.snapshots_change && message.starts_with("ERROR OFLAG_COPIED") {
                flags.push(message);
            } else {
                panic!("{message}: {what}");
            }
        };
        self.image.checker().unwrap().check(Repair::Nothing, &mut found).unwrap();
        for message in flags {
            let entry = message.split("_entry=").nth(1).unwrap().split(' ').next().unwrap();
            let entry = u64::from_str_radix(entry, 16).unwrap();
            let cluster = (entry & 0x00ff_ffff_ffff_fe00) >> self.kind.cluster_bits;
            assert!(entry >> 63 == 0 || leaked.contains(&cluster), "{message}: {what}");
        }
    }

    /// Every sector is what it was at one of the moments; those of a raw data file as well.
    pub(crate) fn assert_between(&self, moments: &[Moment]) {
        let seen = self.read();
        let has_size = moments.iter().any(|moment| moment.disk.len() == seen.len());
        assert!(has_size, "size {}: {}", seen.len(), self.what);
        assert_sectors(&seen, moments, &self.what);
        if self.kind.data_file_raw {
            let mut raw = vec![0; seen.len()];
            let place = format!("the data file {}", self.what);
            self.state.beside[0].read_exact_at(&mut raw, 0).expect(&place);
            assert_sectors(&raw, moments, &place);
        }
    }

    /// The snapshots are those of one of the moments, and hold what they held then.
    pub(crate) fn assert_snapshots(&self, moments: &[Moment]) {
        let what = &self.what;
        let snapshots = self.image.snapshots().unwrap();
        let kept = |info: &SnapshotInfo| {
            let disk = snapshots.open(&SnapshotSelector::IdOrName(&info.id)).expect(what).unwrap();
            let mut bytes = vec![0; usize::try_from(disk.size_bytes()).unwrap()];
            disk.read_at(&mut bytes, 0).expect(what);
            (info.name.clone(), bytes)
        };
        let seen: Vec<(String, Vec<u8>)> = snapshots.list().unwrap().iter().map(kept).collect();
        let known = moments.iter().any(|moment| moment.snapshots == seen);
        assert!(known, "{} snapshots are what they never were: {what}", seen.len());
    }

    /// The whole disk.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut seen = vec![0; usize::try_from(self.image.size_bytes()).unwrap()];
        self.image.read_at(&mut seen, 0).expect(&self.what);
        seen
    }
}

/// Disks write whole sectors: of two writes to one sector, the second takes the first along. The
/// recording knows bytes only, so writes are made to cover whole sectors.
pub(crate) fn whole_sectors(op: &Op) -> Op {
    let round = |at: u64, len: u64| (at / 512 * 512, len.next_multiple_of(512));
    match *op {
        Op::Write { at, len, seed } => {
            let (at, len) = round(at, len);
            Op::Write { at, len, seed }
        }
        Op::Zero { at, len } => {
            let (at, len) = round(at, len);
            Op::Zero { at, len }
        }
        ref other => other.clone(),
    }
}

fn assert_sectors(seen: &[u8], moments: &[Moment], what: &str) {
    // Mostly it is one of them as a whole.
    if moments.iter().any(|moment| moment.disk == seen) {
        return;
    }
    for (sector, bytes) in seen.chunks(512).enumerate() {
        let place = sector * 512..sector * 512 + bytes.len();
        let known = moments.iter().any(|moment| moment.disk.get(place.clone()) == Some(bytes));
        assert!(known, "sector {sector} is what it never was: {what}");
    }
}

fn bytes(disk: &ModelDisk) -> Vec<u8> {
    disk.read(0..disk.size_bytes())
}
