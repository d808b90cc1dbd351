//! The table of the README is true.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, options};
use rimg_core::RawOptions;
use rimg_testkit::capability::{self, Kind};

#[test]
fn the_readme_tells_the_truth() {
    let another = RawOptions::new()
        .with("state", "active")
        .with("new-secret", "t")
        .with("iter-time", "0")
        .with_secret("t", "other".into());
    let luks1 = Kind::created("LUKS1", DRIVERS)
        .with("key-secret", "s")
        .with("iter-time", "0")
        .opened_with(options(""))
        .amended_with(another);
    capability::hold_to_truth(include_str!("../README.md"), &[luks1, luks2()]);
}

/// The volume of rimg-crypto's tests, which another program made.
fn luks2() -> Kind {
    let volume = include_bytes!("../../rimg-crypto/tests/luks2.img").to_vec();
    let disk = (0..8192_u32).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    let passphrase = RawOptions::new().with("key-secret", "s").with_secret("s", "pbkdf2".into());
    Kind::given("LUKS2", "luks", DRIVERS, &[("volume", volume)], disk).opened_with(passphrase)
}
