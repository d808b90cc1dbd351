//! Creating: sizes, backing files, and what is left when it fails.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::full;
use rimg::{
    BlockImage, Creator, Error, FormatDriver, FormatInfo, Match, MemoryStorage, Opener, RawOptions,
    Result, Storage, StorageRun, StorageWrite, Zeroing,
};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A format that fails after it has written something, and has backing files.
#[derive(Debug)]
struct Failing;

static FAILING: FormatInfo = FormatInfo {
    name: "failing",
    description: "Test",
    amend_options: &[],
    create_options: &[
        option("backing_file"),
        option("backing_fmt"),
        option("second"),
        rimg::OptionSpec { kind: rimg::OptionKind::Bool, ..option("fail") },
    ],
    writable: true,
    backing: true,
    compresses: false,
    extra_options: &[],
};

const fn option(name: &'static str) -> rimg::OptionSpec {
    rimg::OptionSpec { name, kind: rimg::OptionKind::Text, help: "", default: None }
}

impl FormatDriver for Failing {
    fn format(&self) -> &'static FormatInfo {
        &FAILING
    }

    fn probe(&self, _window: &rimg_core::ProbeWindow<'_>) -> Match {
        Match::No
    }

    fn open(
        &self,
        _file: Arc<dyn Storage>,
        _how: &rimg_core::OpenOptions<'_>,
    ) -> Result<Box<dyn BlockImage>> {
        Err(Error::WrongFormat { format: "failing" })
    }

    fn create(
        &self,
        target: &dyn rimg_core::TargetFiles,
        size_bytes: u64,
        options: &RawOptions,
    ) -> Result<()> {
        let main = target.main();
        assert_eq!(main.len_bytes().unwrap(), 0);
        if let Some(name) = options.value("second") {
            target.sibling(name)?.writer().unwrap().write_all_at(b"second", 0).unwrap();
        }
        match options.value("fail") {
            None => {
                main.writer().unwrap().write_all_at(&size_bytes.to_be_bytes(), 0).unwrap();
                Ok(())
            }
            Some("off") => Err(Error::Misuse("before writing")),
            _ => {
                main.writer().unwrap().write_all_at(b"half of it", 0).unwrap();
                Err(Error::Misuse("after writing"))
            }
        }
    }
}

static FORMATS: rimg::Formats = &[&Failing, &rimg_raw::DRIVER];

fn failing() -> Creator {
    Creator::new("failing").formats(FORMATS)
}

fn reason(created: Result<rimg::Plan, rimg::FileError>) -> String {
    created.unwrap_err().source.to_string()
}

#[test]
fn a_failed_creation_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let creator = failing().size(512).option("second", "other");
    assert!(creator.clone().option("fail", "on").create(&path).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    creator.create(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), 512_u64.to_be_bytes());
    assert_eq!(std::fs::read(dir.path().join("other")).unwrap(), b"second");
}

#[test]
fn an_existing_file_survives_a_mistake_and_never_looks_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, b"precious").unwrap();
    for creator in [
        failing().size(512).option("fail", "off"),
        failing().size(512).option("bla", "x"),
        failing(),
        Creator::new("nope").size(512),
        Creator::new("raw").size(512).option("preallocation", "metadata"),
        Creator::new("raw").size(1 << 63),
    ] {
        assert!(creator.create(&path).is_err(), "{creator:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious", "{creator:?}");
    }
    assert!(failing().size(512).option("fail", "on").create(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"");

    std::fs::write(&path, b"precious").unwrap();
    Creator::new("raw").size(0).create(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn an_image_in_use_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    Creator::new("raw").size(4096).create(&path).unwrap();
    let user = Opener::new().format("raw").open(&path).unwrap();
    assert!(Creator::new("raw").size(512).create(&path).is_err());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096);
    drop(user);
    Creator::new("raw").size(512).create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 512);
}

#[test]
fn mistakes_are_told_in_the_words_of_qemu_img() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(dir.path().join("base"), [0; 3000]).unwrap();
    let base = || failing().option("backing_file", "base");
    for (creator, expected) in [
        (Creator::new("nope").size(1), "Unknown file format 'nope'"),
        (Creator::new("raw"), "Image creation needs a size parameter"),
        (Creator::new("raw").size(1).option("bla", "x"), "Invalid parameter 'bla'"),
        (
            Creator::new("raw").size(1).option("size", "2M"),
            "The image size must be specified only once",
        ),
        (
            Creator::new("raw").size(1).backing("base", "raw"),
            "Backing file not supported for file format 'raw'",
        ),
        (base(), "Backing file specified without backing format\nDetected format of raw."),
        (base().size(1).open_backing(false), "Backing file specified without backing format"),
        (
            failing().size(1).option("backing_fmt", "raw"),
            "Backing format cannot be used without backing file",
        ),
        (base().option("backing_fmt", "nope"), "Unknown driver 'nope'"),
        (failing().backing("", "raw"), "Expected backing file name, got empty string"),
        (
            failing().backing("disk", "raw").open_backing(false),
            "could not open backing file 'disk'",
        ),
        (
            failing().backing("base", "raw").open_backing(false),
            "Image creation needs a size parameter",
        ),
    ] {
        if expected.starts_with("could not open") {
            // Its own backing file: it has to be there to be the same.
            std::fs::write(&path, b"").unwrap();
            let text = reason(creator.create(&path));
            assert!(text.ends_with("the same filename as the backing file"), "{text}");
            std::fs::remove_file(&path).unwrap();
            continue;
        }
        assert_eq!(reason(creator.create(&path)), expected);
    }
    assert!(!path.exists());
}

#[test]
fn the_size_comes_from_the_backing_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(dir.path().join("base"), [0; 3000]).unwrap();
    let plan = failing().backing("base", "raw").create(&path).unwrap();
    assert_eq!(plan.size_bytes, 3072);
    assert_eq!(std::fs::read(&path).unwrap(), 3072_u64.to_be_bytes());
    let plan = failing().backing("base", "raw").size(512).create(&path).unwrap();
    assert_eq!(plan.size_bytes, 512);

    let missing = failing().backing("missing", "raw").size(512);
    let error = missing.create(&path).unwrap_err();
    assert!(full(&error).contains("could not open backing file 'missing': open"), "{error:?}");
    missing.open_backing(false).create(&path).unwrap();
}

#[test]
fn planning_writes_nothing() {
    let plan = Creator::new("raw").option("size", "1.5M").plan(Path::new("/nonexistent/x"));
    assert_eq!(plan.unwrap().size_bytes, 3 << 19);
}

#[test]
#[cfg(feature = "qcow2")]
fn qcow2_images_over_others_and_with_data_files() {
    let dir = tempfile::tempdir().unwrap();
    let [base, top] = ["base", "top"].map(|name| dir.path().join(name));
    Creator::new("qcow2").size(3 << 20).option("cluster_size", "4k").create(&base).unwrap();
    let image = Opener::new().writable(true).open(&base).unwrap();
    image.writer().unwrap().write_at(&[7; 10_000], 1 << 20).unwrap();
    image.close().unwrap();

    let creator = Creator::new("qcow2").backing("base", "qcow2").option("data_file", "data.raw");
    assert_eq!(creator.create(&top).unwrap().size_bytes, 3 << 20);
    // The default policy opens neither.
    assert!(matches!(Opener::new().open(&top).unwrap_err().source, Error::Denied(_)));
    let opener = Opener::new().policy(rimg::WithinDirectory::new(dir.path()).unwrap());
    let image = opener.clone().writable(true).open(&top).unwrap();
    image.writer().unwrap().write_at(&[9; 10], (1 << 20) + 5).unwrap();
    image.close().unwrap();

    let image = opener.open(&top).unwrap();
    let mut bytes = [0; 20];
    image.read_at(&mut bytes, 1 << 20).unwrap();
    assert_eq!(bytes, [[7; 5], [9; 5], [9; 5], [7; 5]].concat()[..]);
    assert_eq!(image.layers()[0].files.len(), 1);
    assert!(dir.path().join("data.raw").exists());

    let mut base = [0; 20];
    image.backing().unwrap().read_at(&mut base, 1 << 20).unwrap();
    assert_eq!(base, [7; 20]);
}

#[test]
fn a_storage_that_was_in_use_shows_nothing_of_it() {
    let formats: &[(&str, &str, &str)] = &[
        ("raw", "preallocation", "off"),
        #[cfg(feature = "qcow2")]
        ("qcow2", "preallocation", "metadata"),
        #[cfg(feature = "vhd")]
        ("vpc", "subformat", "fixed"),
    ];
    for (format, option, value) in formats {
        let file: Arc<dyn Storage> = Arc::new(MemoryStorage::from(vec![0xff; 4 << 20]));
        let creator = Creator::new(*format).size(1 << 20).option(*option, *value);
        creator.plan("disk").unwrap().carry_out_in(Arc::clone(&file)).unwrap();
        let image = Opener::new().writable(true).format(*format).open_storage(file).unwrap();
        // Who asks takes all that was not written for zeroes.
        assert!(image.writer().unwrap().is_zero_initialised(), "{format}");
        let mut bytes = vec![1; 1 << 20];
        image.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{format}");
    }
}

/// A device: as long as it is, and full of what its last user left.
#[derive(Debug)]
struct Device(MemoryStorage);

impl Storage for Device {
    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun::data(self.0.len_bytes()? - at))
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }
}

impl StorageWrite for Device {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        assert!(at + u64::try_from(buf.len()).unwrap() <= self.0.len_bytes()?, "behind the end");
        self.0.write_all_at(buf, at)
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        assert!(range.end <= self.0.len_bytes()?, "behind the end");
        self.0.write_zeroes_at(range, how)
    }

    fn discard_at(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        match len <= self.0.len_bytes()? {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_on_a_device_never_shows_in_an_image_that_says_it_is_zero() {
    let formats: &[(&str, &[(&str, &str)])] = &[
        ("raw", &[]),
        #[cfg(feature = "qcow2")]
        ("qcow2", &[]),
        #[cfg(feature = "qcow2")]
        ("qcow2", &[("preallocation", "metadata")]),
        #[cfg(feature = "vhd")]
        ("vpc", &[]),
        #[cfg(feature = "vhdx")]
        ("vhdx", &[]),
        #[cfg(feature = "vhdx")]
        ("vhdx", &[("subformat", "fixed")]),
        #[cfg(feature = "vdi")]
        ("vdi", &[]),
        #[cfg(feature = "vdi")]
        ("vdi", &[("static", "on")]),
        #[cfg(feature = "parallels")]
        ("parallels", &[]),
    ];
    let mut wrong = Vec::new();
    for (format, options) in formats {
        let what = format!("{format} {options:?}");
        let memory = MemoryStorage::from(vec![0xff; 48 << 20]);
        let device: Arc<dyn Storage> = Arc::new(Device(memory));
        let mut creator = Creator::new(*format).size(4 << 20);
        for (name, value) in *options {
            creator = creator.option(*name, *value);
        }
        if let Err(error) = creator.plan("disk").unwrap().carry_out_in(Arc::clone(&device)) {
            wrong.push(format!("{what}: {}", full(&error)));
            continue;
        }
        let opened = Opener::new().writable(true).format(*format).open_storage(device);
        let image = match opened {
            Ok(image) => image,
            Err(error) => {
                wrong.push(format!("{what}: {}", full(&error)));
                continue;
            }
        };
        let size = usize::try_from(image.size_bytes()).unwrap();
        let mut expected = vec![0; size];
        let writer = image.writer().unwrap();
        if !writer.is_zero_initialised() {
            writer.write_zeroes_at(0..image.size_bytes()).unwrap();
        }
        expected[100_000..300_000].fill(7);
        writer.write_at(&expected[100_000..300_000], 100_000).unwrap();
        let mut bytes = vec![1; size];
        image.read_at(&mut bytes, 0).unwrap();
        if let Some(at) = (0..size).find(|at| bytes[*at] != expected[*at]) {
            wrong.push(format!("{what}: {} at {at}", bytes[at]));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
