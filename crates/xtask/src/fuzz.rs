//! Keeps the fuzz targets compiling. Their seed corpora replay in the ordinary tests.

use crate::{Result, run};

/// `cargo xtask fuzz`: builds every target as a check, which a stable toolchain can do.
pub(crate) fn run(_: &[String]) -> Result {
    let manifest = run::root().join("fuzz").join("Cargo.toml");
    run::cargo(&["check", "--all-targets", "--manifest-path", &manifest.to_string_lossy()])
}
