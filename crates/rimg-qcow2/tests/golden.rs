//! Every qcow2 image of `testdata/` reads as its manifest says, or is refused as it says.

use rimg_core::RawOptions;
use rimg_qcow2::DRIVER;
use rimg_testkit::golden;

#[test]
fn images_read_as_the_manifest_says() {
    golden::read_all(&DRIVER);
}

#[test]
fn encrypted_images_need_their_passphrase() {
    let mut found = 0;
    golden::for_each("qcow2", |golden| {
        if golden.passphrase.is_some() {
            found += 1;
            let error = golden::open_with(&DRIVER, &golden.path(), RawOptions::NONE).unwrap_err();
            let expected = "Parameter 'encrypt.key-secret' is required for cipher";
            assert_eq!(error.to_string(), expected, "{}", golden.file);
        }
    });
    assert!(found > 1, "{found} images");
}

/// All of them can be looked at, whatever may be read of them.
#[test]
fn images_describe_themselves() {
    golden::for_each("qcow2", |golden| {
        if golden.refused.is_some() {
            return;
        }
        let info = golden::open(&DRIVER, golden).unwrap().info().unwrap();
        assert_eq!(info.format, "qcow2");
        assert_eq!(Some(info.virtual_size_bytes), golden.virtual_size_bytes);
        let names: Vec<&str> = info.snapshots.iter().map(|s| s.name.as_str()).collect();
        let wanted: Vec<&str> = golden.snapshots.keys().map(String::as_str).collect();
        assert_eq!(names.len(), wanted.len(), "{}", golden.file);
        assert!(wanted.iter().all(|name| names.contains(name)), "{}: {names:?}", golden.file);
    });
}
