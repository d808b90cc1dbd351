//! Opening and probing.
#![cfg_attr(feature = "qcow2", expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

#[cfg(feature = "qcow2")]
mod common;

#[cfg(feature = "qcow2")]
use common::{full, qcow2};
use rimg::{
    BlockImage, Error, FormatDriver, FormatInfo, Match, MemoryStorage, Opener, Preallocation,
    RawOptions, Result, Storage,
};
use std::sync::Arc;

/// A format whose magic is not at the start.
#[derive(Debug)]
struct Later;

static LATER: FormatInfo = FormatInfo {
    name: "later",
    description: "Test",
    amend_options: &[],
    create_options: &[],
    writable: false,
    backing: false,
    compresses: false,
    extra_options: &[],
};

impl FormatDriver for Later {
    fn format(&self) -> &'static FormatInfo {
        &LATER
    }

    fn probe(&self, window: &rimg_core::ProbeWindow<'_>) -> Match {
        if window.head.get(1024..).is_some_and(|rest| rest.starts_with(b"conectix")) {
            Match::Sure
        } else {
            Match::No
        }
    }

    fn open(
        &self,
        _file: Arc<dyn Storage>,
        _how: &rimg_core::OpenOptions<'_>,
    ) -> Result<Box<dyn BlockImage>> {
        Err(Error::WrongFormat { format: "later" })
    }

    fn create(
        &self,
        _target: &dyn rimg_core::TargetFiles,
        _size_bytes: u64,
        _options: &RawOptions,
    ) -> Result<()> {
        Err(Error::Misuse("test"))
    }
}

#[cfg(feature = "qcow2")]
static FORMATS: rimg::Formats = &[&rimg_qcow2::DRIVER, &Later, &rimg_raw::DRIVER];
#[cfg(not(feature = "qcow2"))]
static FORMATS: rimg::Formats = &[&Later, &rimg_raw::DRIVER];

fn with_magic(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[1024..1032].copy_from_slice(b"conectix");
    bytes
}

fn store(bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::from(bytes))
}

#[test]
fn files_of_any_length_are_probed() {
    for len in [0, 1, 511, 512, 2047, 2048, 5000] {
        let image = Opener::new().formats(FORMATS).open_storage(store(vec![3; len])).unwrap();
        assert_eq!(image.format().name, "raw");
        assert!(image.is_probed());
        assert!(image.path().is_none());
    }
}

#[test]
#[cfg(feature = "qcow2")]
fn a_file_that_two_formats_claim_needs_a_word() {
    let polyglot = with_magic(qcow2(None, Some(1)));
    let opener = Opener::new().formats(FORMATS);
    let error = opener.open_storage(store(polyglot.clone())).unwrap_err();
    assert!(matches!(error.source, Error::Denied(_)));
    assert!(full(&error).contains("qcow2 or later"), "{}", full(&error));
    let image = opener.format("qcow2").open_storage(store(polyglot)).unwrap();
    assert!(!image.is_probed());
}

#[test]
fn unknown_formats_and_missing_files() {
    let error = Opener::new().format("nope").open_storage(store(vec![0; 512])).unwrap_err();
    assert_eq!(error.source.to_string(), "Unknown driver 'nope'");
    let error = Opener::new().open("/nonexistent/disk").unwrap_err();
    assert_eq!(error.path, std::path::Path::new("/nonexistent/disk"));
    let kind = error.source.as_io().map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::NotFound));
    assert!(Opener::new().open(std::env::temp_dir()).is_err());
}

#[test]
fn an_image_in_use_is_not_opened_for_writing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let opener = Opener::new().format("raw");
    let writer = opener.clone().writable(true).open(file.path()).unwrap();
    let error = opener.open(file.path()).unwrap_err();
    let conflict = rimg::LockConflict::of(error.source.as_io().unwrap());
    assert!(conflict.is_some(), "{error:?}");
    assert!(opener.clone().force_share(true).open(file.path()).is_ok());
    writer.close().unwrap();
    assert!(opener.writable(true).open(file.path()).is_ok());
}

#[test]
fn a_guessed_raw_image_cannot_become_another_format() {
    let size: u64 = 1 << 20;
    let open = |format: Option<&str>| {
        let mut opener = Opener::new().formats(FORMATS).writable(true);
        if let Some(format) = format {
            opener = opener.format(format);
        }
        opener.open_storage(Arc::new(MemoryStorage::with_len(size))).unwrap()
    };
    let guessed = open(None);
    let writer = guessed.writer().unwrap();
    assert!(guessed.layers()[0].guarded);
    assert!(guessed.file(0).unwrap().writer().is_none());
    for (bytes, at) in [
        (b"conectix".to_vec(), 1024),
        (with_magic(vec![1; 4096]), 0),
        #[cfg(feature = "qcow2")]
        (qcow2(None, None), 0),
        #[cfg(feature = "qcow2")]
        (qcow2(None, None)[..512].to_vec(), 0),
    ] {
        let error = writer.write_at(&bytes, at).unwrap_err();
        assert_eq!(error.as_io().and_then(std::io::Error::raw_os_error), Some(1), "{error:?}");
    }
    // Piece by piece does not help.
    writer.write_at(b"conec", 1024).unwrap();
    assert!(writer.write_at(b"tix", 1024 + 5).is_err());
    // Growing the file over what lies behind its end does not, either: that is nothing.
    guessed.resizer().unwrap().resize(512, Preallocation::Off).unwrap();
    guessed.resizer().unwrap().resize(size, Preallocation::Off).unwrap();
    writer.write_at(b"tix", 1024 + 5).unwrap();
    // Everything else goes.
    writer.write_at(b"boot sector", 0).unwrap();
    writer.write_zeroes_at(0..512).unwrap();
    writer.discard_at(0..8192).unwrap();
    guessed.close().unwrap();

    let told = open(Some("raw"));
    assert!(!told.layers()[0].guarded);
    told.writer().unwrap().write_at(b"conectix", 1024).unwrap();
}

#[test]
#[cfg(feature = "qed")]
fn what_an_image_is_found_to_be_on_opening_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.qed");
    rimg::Creator::new("qed").size(1 << 20).create(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Nobody closed it, and a cluster at its end belongs to nobody.
    bytes[16] |= 2;
    bytes.resize(bytes.len() + 65536, 7);
    std::fs::write(&path, bytes).unwrap();
    let image = Opener::new().format("qed").writable(true).open(&path).unwrap();
    let repaired = &image.layers()[0].repaired;
    let kinds: Vec<_> = repaired.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [rimg::FindingKind::Leak]);
    image.close().unwrap();
    let image = Opener::new().format("qed").writable(true).open(&path).unwrap();
    assert!(image.layers()[0].repaired.is_empty());
}
