//! Backing chains: what is opened, what is refused, what is read.
#![cfg(feature = "qcow2")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DISK_BYTES, full, qcow2, write_qcow2};
use rimg::{
    BlockImage, ChainExtents, Dependency, Error, ExtentKind, Grant, Limits, ListedFiles,
    LocalFiles, MemoryStorage, Opener, RawOptions, WithinDirectory,
};
use std::path::Path;
use std::sync::Arc;

fn byte_at(image: &dyn BlockImage, at: u64) -> u8 {
    let mut byte = [0xA5];
    image.read_at(&mut byte, at).unwrap();
    byte[0]
}

#[test]
fn nothing_is_opened_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    write_qcow2(dir.path().join("base"), None, Some(7));
    write_qcow2(&top, Some(("base", Some("qcow2"))), None);
    let error = Opener::new().open(&top).unwrap_err();
    assert!(matches!(error.source, Error::Denied(_)), "{error:?}");
    assert!(full(&error).contains("backing file 'base'"), "{}", full(&error));

    let alone = Opener::new().backing(false).open(&top).unwrap();
    assert!(alone.backing().is_none());
    assert_eq!(
        alone.extent_at(0..DISK_BYTES).unwrap().kind,
        ExtentKind::Backing { allocation: None }
    );
    assert!(alone.read_at(&mut [0; 16], 0).is_err());
    assert_eq!(alone.layers().len(), 1);
}

#[test]
fn policies_open_what_they_allow() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let top = dir.path().join("top");
    write_qcow2(&base, None, Some(7));
    write_qcow2(&top, Some(("base", Some("qcow2"))), None);
    let allowed = [
        Opener::new().policy(LocalFiles),
        Opener::new().policy(WithinDirectory::new(dir.path()).unwrap()),
        Opener::new().policy(ListedFiles::new([&base]).unwrap()),
    ];
    for opener in allowed {
        let image = opener.open(&top).unwrap();
        assert_eq!(byte_at(&*image, 100), 7);
        assert_eq!(byte_at(&*image, 512), 0);
        let layers: Vec<_> =
            image.layers().iter().map(|layer| (layer.format.name, layer.probed)).collect();
        assert_eq!(layers, [("qcow2", true), ("qcow2", false)]);
        assert_eq!(
            image.layers()[1].path.as_ref().unwrap().canonicalize().unwrap(),
            base.canonicalize().unwrap()
        );
    }
    for opener in [
        Opener::new().policy(WithinDirectory::new(elsewhere.path()).unwrap()),
        Opener::new().policy(ListedFiles::new([&top]).unwrap()),
    ] {
        let error = opener.open(&top).unwrap_err();
        assert!(matches!(error.source, Error::Denied(_)), "{error:?}");
    }
}

#[test]
fn names_with_a_protocol_are_denied() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    for name in [r#"json:{"driver":"null-co"}"#, "nbd://localhost/x", "nbd:localhost:1", "x:y"] {
        write_qcow2(&top, Some((name, Some("raw"))), None);
        let error = Opener::new().policy(LocalFiles).open(&top).unwrap_err();
        assert!(matches!(&error.source, Error::Denied(text) if text.contains(name)), "{error:?}");
    }
}

#[test]
fn terminals_and_pipes_are_denied() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    write_qcow2(&top, Some(("/dev/zero", Some("raw"))), None);
    let error = Opener::new().policy(LocalFiles).open(&top).unwrap_err();
    assert!(matches!(error.source, Error::Denied(_)), "{error:?}");
}

#[test]
fn a_missing_hint_means_probing() {
    let dir = tempfile::tempdir().unwrap();
    let opener = Opener::new().policy(LocalFiles);
    write_qcow2(dir.path().join("base"), None, Some(7));
    std::fs::write(dir.path().join("plain"), [9; 1000]).unwrap();
    for (name, format, byte) in [("base", "qcow2", 7), ("plain", "raw", 9)] {
        let top = dir.path().join("top");
        write_qcow2(&top, Some((name, None)), None);
        let image = opener.open(&top).unwrap();
        assert_eq!(byte_at(&*image, 0), byte);
        assert_eq!(image.layers()[1].format.name, format);
        assert!(image.layers()[1].probed && !image.layers()[1].guarded);
    }
    // A hint is believed: this base is read as the bytes that it is.
    write_qcow2(dir.path().join("top"), Some(("base", Some("raw"))), None);
    let image = opener.open(dir.path().join("top")).unwrap();
    assert_eq!(byte_at(&*image, 0), b'Q');
}

#[test]
fn shorter_and_longer_backing_images() {
    let dir = tempfile::tempdir().unwrap();
    let opener = Opener::new().policy(LocalFiles);
    for len in [1000, 100_000] {
        std::fs::write(dir.path().join("base"), vec![9; len]).unwrap();
        write_qcow2(dir.path().join("top"), Some(("base", Some("raw"))), None);
        let image = opener.open(dir.path().join("top")).unwrap();
        let mut bytes = vec![1; usize::try_from(DISK_BYTES).unwrap()];
        image.read_at(&mut bytes, 0).unwrap();
        let end = bytes.len();
        assert!(bytes.iter().take(len).all(|&byte| byte == 9));
        assert!(bytes[len.min(end)..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn loops_are_found_whatever_they_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let opener = Opener::new().policy(LocalFiles);
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    std::os::unix::fs::symlink("a", dir.path().join("alias")).unwrap();
    write_qcow2(&a, Some(("b", Some("qcow2"))), None);
    write_qcow2(&b, Some(("alias", Some("qcow2"))), None);
    for error in [opener.open(&a).unwrap_err(), opener.open_each(&a).unwrap_err()] {
        let text = full(&error);
        assert!(text.contains("creates an infinite loop"), "{text}");
    }
    write_qcow2(&a, Some(("a", None)), None);
    assert!(full(&opener.open(&a).unwrap_err()).contains("creates an infinite loop"));
    assert!(full(&opener.clone().writable(true).open(&a).unwrap_err()).contains("infinite loop"));
    // Opened alone, it can still be looked at.
    let image = opener.backing(false).open(&a).unwrap();
    assert_eq!(image.layers()[0].backing, Some(("a".to_owned(), None)));
}

#[test]
fn a_file_that_the_caller_names_again_is_no_loop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    write_qcow2(&path, None, Some(5));
    let mut options = RawOptions::new();
    options.set("backing.file.filename", path.to_str().unwrap());
    let opener = Opener::new().policy(LocalFiles);
    let image = opener.clone().options(&options).open(&path).unwrap();
    assert_eq!(image.layers().len(), 2);
    assert_eq!(byte_at(&*image, 0), 5);
    // What the file itself names is held against both.
    write_qcow2(&path, Some(("a", Some("qcow2"))), None);
    let error = opener.options(&options).open(&path).unwrap_err();
    assert!(full(&error).contains("creates an infinite loop"), "{}", full(&error));
}

#[test]
fn a_policy_that_returns_the_same_storage_for_ever_ends_too() {
    let store = Arc::new(MemoryStorage::from(qcow2(Some(("me", None)), None)));
    let granted = Arc::clone(&store);
    let policy = move |_: &Dependency<'_>, _: Option<&Path>| Ok(Grant::Storage(granted.clone()));
    let error = Opener::new().policy(policy).open_storage(store).unwrap_err();
    assert!(full(&error).contains("infinite loop"), "{}", full(&error));

    // A new one each time is stopped by the depth.
    let policy = |_: &Dependency<'_>, _: Option<&Path>| {
        let again = MemoryStorage::from(qcow2(Some(("me", None)), None));
        Ok(Grant::Storage(Arc::new(again)))
    };
    let store = Arc::new(MemoryStorage::from(qcow2(Some(("me", None)), None)));
    let error = Opener::new().policy(policy).open_storage(store).unwrap_err();
    assert!(full(&error).contains("needs 201, more than the limit of 200"), "{}", full(&error));
}

#[test]
fn the_depth_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let name = |depth: u32| format!("layer-{depth}");
    write_qcow2(dir.path().join(name(5)), None, Some(7));
    for depth in 0..5 {
        let below = name(depth + 1);
        write_qcow2(dir.path().join(name(depth)), Some((&below, Some("qcow2"))), None);
    }
    let mut limits = Limits::default();
    for (depth, fits) in [(6, true), (5, false), (1, false)] {
        limits.chain_depth = depth;
        let opener = Opener::new().policy(LocalFiles).limits(limits);
        let path = dir.path().join(name(0));
        assert_eq!(opener.open(&path).is_ok(), fits, "{depth}");
        assert_eq!(opener.open_each(&path).is_ok(), fits, "{depth}");
    }
    let image = Opener::new().policy(LocalFiles).open(dir.path().join(name(0))).unwrap();
    assert_eq!(byte_at(&*image, 0), 7);
    assert_eq!(image.layers().len(), 6);
    let each = Opener::new().policy(LocalFiles).open_each(dir.path().join(name(0))).unwrap();
    assert_eq!(each.len(), 6);
    assert!(each.iter().all(|image| image.backing().is_none()));
}

#[test]
fn the_longest_chain_opens_reads_and_closes_on_a_small_stack() {
    let dir = tempfile::tempdir().unwrap();
    let name = |depth: u32| format!("layer-{depth}");
    let last = Limits::default().chain_depth - 1;
    write_qcow2(dir.path().join(name(last)), None, Some(7));
    for depth in 0..last {
        let below = name(depth + 1);
        write_qcow2(dir.path().join(name(depth)), Some((&below, Some("qcow2"))), None);
    }
    let image = Opener::new().policy(LocalFiles).open(dir.path().join(name(0))).unwrap();
    assert_eq!(byte_at(&*image, 0), 7);
    let depths: Vec<_> = ChainExtents::new(&*image).map(|extent| extent.unwrap().depth).collect();
    assert_eq!(depths, [199, 199]);
    image.close().unwrap();
}

#[test]
fn errors_name_every_file_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    let opener = Opener::new().policy(LocalFiles);
    write_qcow2(&top, Some(("middle", Some("qcow2"))), None);
    write_qcow2(dir.path().join("middle"), Some(("missing", Some("qcow2"))), None);
    let text = full(&opener.open(&top).unwrap_err());
    let places = ["top'", "'middle'", "'missing'", "No such file"].map(|word| text.find(word));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");

    write_qcow2(&top, Some(("middle", Some("bogus"))), None);
    let text = full(&opener.open(&top).unwrap_err());
    assert!(text.ends_with("Unknown driver 'bogus'"), "{text}");
}
