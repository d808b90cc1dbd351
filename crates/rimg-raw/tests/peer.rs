//! Both directions with qemu-img and qemu-io.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, ExtentKind, FormatDriver, Limits, OpenOptions,
    Preallocation, RawOptions, Result, Storage, TargetFiles,
};
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::peer::Peer;
use rimg_testkit::{ModelDisk, Rng};
use std::path::Path;
use std::sync::Arc;

#[test]
fn qemu_img_sees_the_same_sizes_and_holes() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for len in [0, 1, 511, 512, 513, 100_000, (1 << 20) + 7] {
        let _ = std::fs::remove_file(&path);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(len).unwrap();
        let image = open(&path, true).unwrap();
        let mut rng = Rng::new(len);
        for _ in 0..4 {
            let at = rng.below(image.size_bytes() / 4096 + 1) * 4096;
            let len = rng.below(9_000).min(image.size_bytes().saturating_sub(at));
            let buf = vec![7; usize::try_from(len).unwrap()];
            if !buf.is_empty() {
                image.writer().unwrap().write_at(&buf, at).unwrap();
            }
        }
        image.close().unwrap();

        let image = open(&path, false).unwrap();
        let map = json(&qemu_img, ["map", "--output=json", "-f", "raw"], &path);
        let info = json(&qemu_img, ["info", "--output=json", "-f", "raw"], &path);
        assert_eq!(info["virtual-size"].as_u64(), Some(image.size_bytes()), "length {len}");
        let theirs: Vec<_> = map
            .as_array()
            .unwrap()
            .iter()
            .filter(|run| run["length"].as_u64() != Some(0))
            .map(|run| {
                let number = |field: &str| run[field].as_u64().unwrap();
                (number("start"), number("length"), run["data"].as_bool().unwrap())
            })
            .collect();
        assert_eq!(runs(image.as_ref()), theirs, "length {len}");
    }
}

#[test]
fn qemu_io_reads_what_was_written_and_the_other_way_round() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let name = path.to_str().unwrap();
    qemu_img.ok(["create", "-q", "-f", "raw", name, "1000001"]);
    let image = open(&path, true).unwrap();
    let mut model = ModelDisk::new(1_000_448);
    assert_eq!(image.size_bytes(), model.size_bytes());
    image.writer().unwrap().write_at(&[0x11; 3_000], 999_000 - 2_000).unwrap();
    model.write(&[0x11; 3_000], 999_000 - 2_000);
    image.close().unwrap();

    let out = qemu_io.ok(["-f", "raw", "-c", "read -P 0x11 997000 3000", name]);
    assert!(!out.contains("verification failed"), "{out}");
    qemu_io.ok(["-f", "raw", "-c", "write -P 0x22 5000 7000", "-c", "write -z 998000 512", name]);
    model.write(&[0x22; 7_000], 5_000);
    model.zero(998_000..998_512);
    model.assert_same(open(&path, false).unwrap().as_ref(), "after qemu-io");
}

#[test]
fn creation_and_resizing_take_as_much_space_as_qemu_img_does() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    for mode in [Preallocation::Off, Preallocation::Falloc, Preallocation::Full] {
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        let option = format!("preallocation={}", mode.name());
        let their_name = theirs.to_str().unwrap();
        qemu_img.ok(["create", "-q", "-f", "raw", "-o", &option, their_name, "1000001"]);
        create(&ours, 1_000_001, &RawOptions::new().with("preallocation", mode.name())).unwrap();
        assert_eq!(usage(&ours), usage(&theirs), "create {mode:?}");

        let flag = format!("--preallocation={}", mode.name());
        qemu_img.ok(["resize", "-q", "-f", "raw", &flag, their_name, "3000001"]);
        let image = open(&ours, true).unwrap();
        image.resizer().unwrap().resize(3_000_001, mode).unwrap();
        image.close().unwrap();
        assert_eq!(usage(&ours), usage(&theirs), "resize {mode:?}");
    }
}

#[test]
fn creation_is_refused_in_the_same_words() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let name = path.to_str().unwrap();
    for (option, value, size) in [
        ("preallocation", "metadata", "512"),
        ("preallocation", "bogus", "512"),
        ("extent_size_hint", "5242880000", "512"),
        ("nocow", "x", "512"),
        ("nocow", "off", "9223372036854775296"),
    ] {
        let theirs = qemu_img.run([
            "create",
            "-q",
            "-f",
            "raw",
            "-o",
            &format!("{option}={value}"),
            name,
            size,
        ]);
        let options = RawOptions::new().with(option, value);
        let ours = create(&path, size.parse().unwrap(), &options).unwrap_err();
        assert_eq!(theirs.stderr, format!("qemu-img: {name}: {ours}\n"));
    }
}

fn json(peer: &Peer, args: [&str; 4], path: &Path) -> serde_json::Value {
    let args = args.into_iter().chain([path.to_str().unwrap()]);
    serde_json::from_str(&peer.ok(args)).unwrap()
}

/// Starts, lengths, and whether they are data, merged.
fn runs(image: &dyn BlockImage) -> Vec<(u64, u64, bool)> {
    let mut runs: Vec<(u64, u64, bool)> = Vec::new();
    let mut at = 0;
    while at < image.size_bytes() {
        let extent = image.extent_at(at..image.size_bytes()).unwrap();
        let is_data = matches!(extent.kind, ExtentKind::Data(_));
        match runs.last_mut() {
            Some((_, len, last)) if *last == is_data => *len += extent.len_bytes,
            _ => runs.push((at, extent.len_bytes, is_data)),
        }
        at += extent.len_bytes;
    }
    runs
}

/// The length and the space taken, in bytes.
fn usage(path: &Path) -> (u64, Option<u64>) {
    let file = FileStorage::open(path, FileOptions::read()).unwrap();
    (file.len_bytes().unwrap(), file.allocated_bytes().unwrap())
}

fn open(path: &Path, writable: bool) -> Result<Box<dyn BlockImage>> {
    let options = if writable { FileOptions::write() } else { FileOptions::read() };
    let file = Arc::new(FileStorage::open(path, options).unwrap());
    let how = OpenOptions {
        writable,
        inspect_only: false,
        limits: Limits::default(),
        gate: &NoGate,
        options: RawOptions::NONE,
    };
    rimg_raw::DRIVER.open(file, &how)
}

fn create(path: &Path, size: u64, options: &RawOptions) -> Result<()> {
    let file = FileStorage::open(path, FileOptions::create()).unwrap();
    rimg_raw::DRIVER.create(&OneFile(Arc::new(file)), size, options)
}

struct OneFile(Arc<dyn Storage>);

impl TargetFiles for OneFile {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.0
    }

    fn sibling(&self, name: &str) -> Result<Arc<dyn Storage>> {
        Err(Error::Denied(name.to_owned()))
    }
}

struct NoGate;

impl DependencyGate for NoGate {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        Err(Error::Denied(wanted.name.to_owned()))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Err(Error::Denied(wanted.name.to_owned()))
    }
}
