//! Images with wrong bytes and missing ends: an error or a result, in little time and memory.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, FormatDriver, Limits, NewSnapshot, OpenOptions,
    RawOptions, Result, Storage, StorageWrite as _, op,
};
use rimg_qcow2::DRIVER;
use rimg_storage::MemoryStorage;
use rimg_testkit::{MemoryDir, Rng, bounds, drill, golden};
use std::ops::Range;
use std::sync::Arc;
use std::thread;

/// Images with every kind of metadata, none longer than a few hundred KiB.
const IMAGES: &[&str] = &[
    "qcow2/cluster-512.qcow2",
    "qcow2/snapshots.qcow2",
    "qcow2/compressed-rewritten.qcow2",
    "qcow2/extended-l2.qcow2",
    "qcow2/bitmap.qcow2",
    "qcow2/bitmaps.qcow2",
    "qcow2/refcount-1.qcow2",
    "qcow2/data-file.qcow2",
    "qcow2/overlay.qcow2",
];

/// So many single wrong bytes, over all images together.
const CORRUPTIONS: u64 = 100_000;

#[test]
fn any_wrong_byte_is_survived() {
    bounds::under_memory_limit(drill::MEMORY_BYTES, || {
        let each = CORRUPTIONS.div_ceil(u64::try_from(IMAGES.len()).unwrap());
        let opened: u64 = thread::scope(|scope| {
            let start = |name: &'static &str| scope.spawn(move || corrupt(name, each));
            // All start before the first is waited for.
            let running: Vec<_> = IMAGES.iter().map(start).collect();
            running.into_iter().map(|image| image.join().unwrap()).sum()
        });
        // Most bytes of tables, and many of the header, leave an image that opens.
        assert!(opened > CORRUPTIONS / 2, "{opened} opened");
        assert!(opened < CORRUPTIONS, "nothing was found wrong");
    });
}

/// How many of `count` images with one wrong byte each still open.
fn corrupt(name: &str, count: u64) -> u64 {
    let mut rng = Rng::new(0x5eed);
    let image = Sample::load(name);
    let mut opened = 0;
    for turn in 0..count {
        let (at, byte) = image.pick(&mut rng);
        let patched = image.storage.clone();
        patched.write_all_at(&[byte], at).unwrap();
        // Everything else is done every time; writing only sometimes, as it takes longest.
        let what = format!("{name}: {byte:#04x} at {at:#x}");
        opened += u64::from(use_it(&what, &patched, turn % 4 == 0));
    }
    opened
}

#[test]
fn any_missing_end_is_survived() {
    bounds::under_memory_limit(drill::MEMORY_BYTES, || {
        for name in IMAGES {
            let image = Sample::load(name);
            let mut lengths: Vec<u64> = (0..=768).collect();
            for range in &image.metadata {
                for edge in [range.start, range.end] {
                    lengths.extend([edge.saturating_sub(1), edge, edge + 1, edge + 8, edge + 511]);
                }
            }
            for len in lengths.into_iter().filter(|len| *len < image.len) {
                let shortened = image.storage.clone();
                shortened.set_len_bytes(len).unwrap();
                use_it(&format!("{name}: {len:#x} bytes"), &shortened, true);
            }
        }
    });
}

#[test]
fn any_extreme_field_is_survived() {
    bounds::under_memory_limit(drill::MEMORY_BYTES, || {
        for name in IMAGES {
            let image = Sample::load(name);
            for range in &image.metadata {
                // The fields of the header, and the first entries of each table.
                let end = range.end.min(range.start + if range.start == 0 { 200 } else { 64 });
                for at in (range.start..end).step_by(if range.start == 0 { 4 } else { 8 }) {
                    for word in EXTREMES {
                        let patched = image.storage.clone();
                        patched.write_all_at(&word.to_be_bytes(), at).unwrap();
                        use_it(&format!("{name}: {word:#x} at {at:#x}"), &patched, true);
                    }
                }
            }
        }
    });
}

const EXTREMES: &[u64] = &[
    0,
    1,
    0x200,
    u64::MAX,
    i64::MAX.unsigned_abs(),
    1 << 63,
    0x7fff_ffff_0000_0000,
    0xffff_ffff_0000_0000,
    0x0000_0000_ffff_ffff,
    // Offsets near the end of what an entry can hold, with and without flags.
    0x00ff_ffff_ffff_fe00,
    0x80ff_ffff_ffff_0000,
    0x4000_0000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    // The header's own cluster as a table.
    0x8000_0000_0000_0000,
];

/// What is wrong further on is said when somebody asks for it, and not before.
#[test]
fn what_lies_before_a_wrong_entry_is_told() {
    let image = Sample::load("qcow2/v3.qcow2");
    let l1_at = image.word(40);
    let l2_at = image.word(l1_at) & 0x00ff_ffff_ffff_fe00;
    let whole = open(&image.storage, false).unwrap();
    let cluster = whole.info().unwrap().cluster_bytes.unwrap();
    let run = |image: &dyn BlockImage, at: u64| image.extent_at(at..image.size_bytes());
    let first = run(whole.as_ref(), 0).unwrap();
    assert!(first.len_bytes > cluster, "nothing to cut: {first:?}");
    let patched = image.storage.clone();
    patched.write_all_at(&0x8000_0000_0000_0200_u64.to_be_bytes(), l2_at + 8).unwrap();
    let cut = open(&patched, false).unwrap();
    assert_eq!(run(cut.as_ref(), 0).unwrap().len_bytes, cluster);
    assert!(matches!(run(cut.as_ref(), cluster), Err(Error::Corrupt { .. })));
}

/// Where a field is wrong, and what the error has to name.
#[test]
fn errors_name_structure_and_offset() {
    let image = Sample::load("qcow2/v3.qcow2");
    let l1_at = image.word(40);
    let l2_at = image.word(l1_at) & 0x00ff_ffff_ffff_fe00;
    let cases: &[(u64, u64, &str, u64)] = &[
        (l1_at, 0x8000_0000_0000_0200, "L1 table", l1_at),
        (l2_at, 0x8000_0000_0000_0200, "L2 table", l2_at),
        (40, 0x200, "header", 40),
        (48, 0x200, "header", 48),
        (24, 1 << 45, "header", 36),
        (24, u64::MAX, "header", 24),
    ];
    for (at, word, structure, named) in cases {
        let patched = image.storage.clone();
        patched.write_all_at(&word.to_be_bytes(), *at).unwrap();
        let error = open(&patched, false).and_then(|image| image.read_at(&mut [0; 1], 0));
        match error {
            Err(Error::Corrupt { at: location, .. }) => {
                assert_eq!((location.structure, location.offset.0), (*structure, *named));
            }
            other => panic!("{word:#x} at {at:#x}: {other:?}"),
        }
    }
}

/// An image, and which of its bytes are metadata.
struct Sample {
    storage: MemoryStorage,
    len: u64,
    metadata: Vec<Range<u64>>,
}

impl Sample {
    fn load(name: &str) -> Self {
        let bytes = std::fs::read(golden::testdata().join(name)).unwrap();
        let storage = MemoryStorage::from(bytes);
        let len = storage.len_bytes().unwrap();
        let mut sample = Self { storage, len, metadata: Vec::new() };
        sample.find_metadata();
        assert!(sample.metadata.len() >= 4, "{name}: {:?}", sample.metadata);
        sample
    }

    fn find_metadata(&mut self) {
        let half = |word: u64| word >> 32;
        let cluster = 1_u64 << half(self.word(20));
        let is_offset = |entry: &u64| *entry != 0;
        let mut found: Vec<_> = core::iter::once(0..1024.min(cluster)).collect();
        let refcounts = self.word(48);
        found.push(refcounts..refcounts + 64);
        found.extend(
            self.table(refcounts, 8).into_iter().filter(is_offset).map(|block| block..block + 64),
        );
        let mut l1_tables = vec![(self.word(40), half(self.word(36)))];
        let snapshots = half(self.word(60));
        let mut at = self.word(64);
        for _ in 0..snapshots {
            // Fixed fields, extra data, identifier and name.
            let sizes = self.word(at + 8);
            let texts = (sizes >> 16 & 0xffff) + (sizes & 0xffff);
            let len = 40 + (self.word(at + 32) & 0xffff_ffff) + texts;
            found.push(at..at + len);
            l1_tables.push((self.word(at), half(self.word(at + 8))));
            at = (at + len).next_multiple_of(8);
        }
        if let Some(extension) = self.bitmaps_extension() {
            let (len, at) = (self.word(extension + 8), self.word(extension + 16));
            found.push(at..at + len);
            let (table, entries) = (self.word(at), half(self.word(at + 8)));
            found.push(table..table + entries * 8);
        }
        for (at, entries) in l1_tables {
            found.push(at..at + entries * 8);
            for l2 in self.table(at, entries).into_iter().filter(is_offset) {
                found.push(l2..l2 + 512.min(cluster));
            }
        }
        found.retain(|range| range.end <= self.len);
        found.sort_by_key(|range| range.start);
        found.dedup();
        self.metadata = found;
    }

    /// Where the data of the bitmaps extension is.
    fn bitmaps_extension(&self) -> Option<u64> {
        if self.word(0) & 0xffff_ffff < 3 {
            return None;
        }
        let mut at = self.word(96) & 0xffff_ffff;
        loop {
            let head = self.word(at);
            match head >> 32 {
                0 => return None,
                0x2385_2875 => return Some(at + 8),
                _ => at = (at + 8 + (head & 0xffff_ffff)).next_multiple_of(8),
            }
        }
    }

    /// Table entries, without their flags.
    fn table(&self, at: u64, entries: u64) -> Vec<u64> {
        (0..entries).map(|index| self.word(at + index * 8) & 0x00ff_ffff_ffff_fe00).collect()
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.storage.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    }

    /// A byte of metadata, and another value for it.
    fn pick(&self, rng: &mut Rng) -> (u64, u8) {
        let which = rng.below(u64::try_from(self.metadata.len()).unwrap());
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
fn use_it(what: &str, storage: &MemoryStorage, all: bool) -> bool {
    drill::survive(what, &DRIVER, storage, RawOptions::NONE, all)
}

fn open(storage: &MemoryStorage, writable: bool) -> Result<Box<dyn BlockImage>> {
    open_as(storage, writable, false)
}

fn open_as(
    storage: &MemoryStorage,
    writable: bool,
    inspect_only: bool,
) -> Result<Box<dyn BlockImage>> {
    let how = OpenOptions {
        writable,
        inspect_only,
        limits: Limits::default(),
        gate: &Blank,
        options: RawOptions::NONE,
    };
    DRIVER.open(Arc::new(storage.clone()), &how)
}

/// Every other file that an image names holds zeroes.
struct Blank;

impl DependencyGate for Blank {
    fn open_file(&self, _: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(MemoryStorage::with_len(1 << 20)))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        let below = rimg_testkit::PlainImage::new(self.open_file(wanted)?)?;
        Ok(Some(Arc::new(below)))
    }
}

/// An image of 512-byte clusters with one written cluster: header 0, refcount table 1, refcount
/// block 2, L1 table 3 and on, then the L2 table and the data.
fn small_image() -> (MemoryDir, u64, u64) {
    static DRIVERS: &[&dyn FormatDriver] = &[&DRIVER];
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("cluster_size", "512");
    dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
    let image = dir.open("disk", "qcow2", true).unwrap();
    image.writer().unwrap().write_at(&[7; 512], 0).unwrap();
    image.close().unwrap();
    let disk = dir.file("disk");
    let l1 = number(disk.as_ref(), 40);
    let l2 = number(disk.as_ref(), l1) & 0x00ff_ffff_ffff_fe00;
    (dir, l1, l2)
}

fn number(file: &dyn Storage, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_be_bytes(bytes)
}

fn put_number(file: &dyn Storage, at: u64, number: u64) {
    file.writer().unwrap().write_all_at(&number.to_be_bytes(), at).unwrap();
}

/// Expects that a write to the first cluster is refused because of what stands at `at`, and
/// changes nothing.
fn assert_refused(dir: &MemoryDir, structure: &str, at: u64) {
    let disk = dir.file("disk");
    let len = usize::try_from(disk.len_bytes().unwrap()).unwrap();
    let mut before = vec![0; len];
    disk.read_exact_at(&mut before, 0).unwrap();
    let image = dir.open("disk", "qcow2", true).unwrap();
    match image.writer().unwrap().write_at(&[9; 512], 0) {
        Err(Error::Corrupt { at: place, .. }) => {
            assert_eq!((place.structure, place.offset.0), (structure, at));
        }
        other => panic!("{other:?}"),
    }
    drop(image);
    let mut after = vec![0; len];
    disk.read_exact_at(&mut after, 0).unwrap();
    let differs = before.iter().zip(&after).position(|(a, b)| a != b);
    // Refused for good: the corrupt bit says so.
    assert!(differs.is_none_or(|at| at == 79), "{differs:?}");
}

#[test]
fn guest_data_is_not_written_over_tables() {
    const COPIED: u64 = 1 << 63;
    let (_, l1, l2) = small_image();
    // Offset 0 is no cluster to an entry: the header is out of its reach.
    for target in [512, 1024, l1, l2] {
        let (dir, _, _) = small_image();
        put_number(dir.file("disk").as_ref(), l2, COPIED | target);
        assert_refused(&dir, "L2 table", l2);
    }
}

/// Where the L2 tables of snapshots are is looked up only where that is asked for.
#[test]
fn guest_data_is_not_written_over_tables_of_snapshots() {
    const COPIED: u64 = 1 << 63;
    let (dir, l1, _) = small_image();
    let image = dir.open("disk", "qcow2", true).unwrap();
    let new = NewSnapshot { name: "s", ..NewSnapshot::default() };
    image.snapshots().unwrap().editor().unwrap().create(&new).unwrap();
    let disk = dir.file("disk");
    let kept = number(disk.as_ref(), l1) & 0x00ff_ffff_ffff_fe00;
    image.writer().unwrap().write_at(&[9; 512], 0).unwrap();
    image.close().unwrap();
    let l2 = number(disk.as_ref(), l1) & 0x00ff_ffff_ffff_fe00;
    assert_ne!(l2, kept, "the snapshot has the table to itself");
    put_number(disk.as_ref(), l2, COPIED | kept);
    let table = number(disk.as_ref(), kept);
    let write = |options: RawOptions| {
        let image = dir.open_with("disk", "qcow2", true, &options).unwrap();
        image.writer().unwrap().write_at(&[7; 512], 0)
    };
    let all = || RawOptions::new().with("overlap-check", "all");
    match write(all()) {
        Err(Error::Corrupt { at, .. }) => {
            assert_eq!((at.structure, at.offset.0), ("L2 table", l2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(number(disk.as_ref(), kept), table);
    // The corrupt bit was set.
    disk.writer().unwrap().write_all_at(&[0; 8], 72).unwrap();
    write(RawOptions::new().with("overlap-check", "cached")).unwrap();
    assert_eq!(number(disk.as_ref(), kept), 0x0707_0707_0707_0707);
}

/// Version 2 has no zero flag, so zeroes are written to the cluster that such an entry has.
#[test]
fn a_downgrade_writes_no_zeroes_over_tables() {
    const COPIED_AND_ZERO: u64 = 1 << 63 | 1;
    let (_, l1, l2) = small_image();
    for target in [512, 1024, l1, l2] {
        let (dir, _, _) = small_image();
        let disk = dir.file("disk");
        put_number(disk.as_ref(), l2, COPIED_AND_ZERO | target);
        let before = number(disk.as_ref(), target);
        let image = dir.open("disk", "qcow2", true).unwrap();
        let options = RawOptions::new().with("compat", "0.10");
        let error = image.amender().unwrap().amend(&options, false, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{target:#x}: {error:?}");
        drop(image);
        assert_eq!(number(disk.as_ref(), target), before, "{target:#x}");
    }
}

#[test]
fn tables_that_share_a_cluster_are_not_changed() {
    const COPIED: u64 = 1 << 63;
    for target in [512, 1024] {
        let (dir, l1, _) = small_image();
        put_number(dir.file("disk").as_ref(), l1, COPIED | target);
        assert_refused(&dir, "L1 table", l1);
    }
}

/// The pointer to the LUKS header, and the header itself, with any number in any place.
#[test]
fn wrong_luks_headers_are_survived() {
    let bytes = std::fs::read(golden::testdata().join("qcow2/luks.qcow2")).unwrap();
    let mut key = RawOptions::new().with("encrypt.key-secret", "s");
    key.add_secret("s", "golden".into());
    let limits = {
        let mut limits = Limits::default();
        limits.key_iterations = 100_000;
        limits
    };
    let open = |bytes: Vec<u8>| {
        let storage = Arc::new(MemoryStorage::from(bytes));
        let how = |inspect_only, options| OpenOptions {
            writable: false,
            inspect_only,
            limits,
            gate: &Blank,
            options,
        };
        let looked_at = DRIVER.open(storage.clone(), &how(true, RawOptions::NONE));
        let _ = looked_at.and_then(|image| image.info());
        DRIVER.open(storage, &how(false, &key))
    };
    let pointer = bytes.windows(4).position(|word| word == [0x05, 0x37, 0xbe, 0x77]).unwrap();
    let luks = bytes.windows(6).position(|word| word == b"LUKS\xba\xbe").unwrap();
    open(bytes.clone()).unwrap().read_at(&mut [0; 4096], 0).unwrap();
    let corrupt = |bytes: Vec<u8>, structure: &str, field: &str| match open(bytes) {
        Err(Error::Corrupt { at, .. }) => assert_eq!((at.structure, at.field), (structure, field)),
        other => panic!("{structure}, {field}: {other:?}"),
    };
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    // No pointer; one that is too short, not aligned, beyond all files, to too little.
    corrupt(patched(pointer, &[1, 2, 3, 4]), "header", "crypt_method");
    corrupt(patched(pointer + 4, &[0, 0, 0, 8]), "header", "crypt_method");
    for (at, number) in
        [(8, 0x200_u64), (8, u64::MAX - 4095), (16, u64::MAX), (16, 0), (16, 591), (16, 592)]
    {
        let bytes = patched(pointer + at, &number.to_be_bytes());
        corrupt(bytes, "full disk encryption header", "offset");
    }
    let beyond = patched(pointer + 8, &(1_u64 << 40).to_be_bytes());
    assert!(matches!(open(beyond), Err(Error::Io { op: op::READ_LUKS_HEADER, .. })));
    let elsewhere = patched(pointer + 8, &0_u64.to_be_bytes());
    assert!(matches!(open(elsewhere), Err(Error::WrongFormat { format: "luks" })));

    let (mut refused, mut opened) = (0, 0);
    for at in (luks..luks + 592).step_by(4) {
        for word in [0_u32, 0x8000_0000, u32::MAX] {
            match open(patched(at, &word.to_be_bytes())) {
                Ok(_) => opened += 1,
                Err(Error::Misuse(what)) => panic!("{at:#x} {word:#x}: {what}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 150 && opened > 150, "{refused} {opened}");
    for len in (luks..luks + 600).step_by(7).chain([luks + 4096, luks + 5000]) {
        assert!(open(bytes[..len].to_vec()).is_err(), "{len}");
    }
}
