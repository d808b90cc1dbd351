//! Encrypted images: secrets beside options, for each layer of a chain its own.
#![cfg(feature = "qcow2")]

use rimg::{Creator, LocalFiles, Opener, Secret};

const KEY: &str = "encrypt.key-secret";

#[test]
fn each_layer_has_its_own_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let (base, top) = (folder.path().join("base"), folder.path().join("top"));
    let new = |format: &str| Creator::new("qcow2").option("encrypt.format", format);
    new("luks")
        .option(KEY, "s")
        .option("encrypt.iter-time", "0")
        .secret("s", Secret::from("below"))
        .size(1 << 20)
        .create(&base)
        .unwrap();
    // Its size can be seen without its key.
    let overlay = new("aes").option(KEY, "s").secret("s", Secret::from("above"));
    overlay.backing("base", "qcow2").create(&top).unwrap();

    let opener = || {
        let opener = Opener::new().format("qcow2").policy(LocalFiles);
        opener.secret("a", Secret::from("above")).secret("b", Secret::from("below"))
    };
    let image = opener().option(KEY, "b").writable(true).open(&base).unwrap();
    image.writer().unwrap().write_at(&[7; 1000], 500).unwrap();
    image.close().unwrap();
    let both = || opener().option(KEY, "a").option("backing.encrypt.key-secret", "b");
    let image = both().writable(true).open(&top).unwrap();
    image.writer().unwrap().write_at(&[8; 100], 600).unwrap();
    image.close().unwrap();

    let image = both().open(&top).unwrap();
    let mut read = [0; 1600];
    image.read_at(&mut read, 0).unwrap();
    let mut wanted = [0; 1600];
    wanted[500..1500].fill(7);
    wanted[600..700].fill(8);
    assert!(read == wanted);
    assert!(image.info().unwrap().encrypted);

    let reason = |opener: Opener| {
        let error = opener.open(&top).unwrap_err();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        cause.to_string()
    };
    let missing = "Parameter 'encrypt.key-secret' is required for cipher";
    assert_eq!(reason(opener()), missing);
    assert_eq!(reason(opener().option(KEY, "a")), missing);
    let wrong = opener().option(KEY, "a").option("backing.encrypt.key-secret", "a");
    assert_eq!(reason(wrong), "Invalid password, cannot unlock any keyslot");
    let unknown = opener().option(KEY, "a").option("backing.encrypt.key-secret", "c");
    assert_eq!(reason(unknown), "No secret with id 'c'");
}
