//! What fuzzing does, for every format: the bodies of the targets in `fuzz/`, which the tests of
//! the crates replay over the seed corpora in `fuzz/corpus/`.
//!
//! A body takes any bytes at all and panics when it finds something wrong. The same bytes do the
//! same on every run and machine.

mod codec;
mod input;
mod nbd;
mod open;
mod ops;
mod repair;

pub use codec::{decode, encode};
pub use nbd::nbd;
pub use open::open;
pub use ops::ops;
pub use repair::check_repair;

use crate::bounds;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one input may take: far more than any needs, also without optimisation on a machine
/// that is busy.
const MAX_TIME: Duration = Duration::from_secs(20);

/// How much memory a replay may use in all, in bytes, for [`bounds::under_memory_limit`].
pub const MAX_BYTES: u64 = 256 << 20;

/// Runs `body` on every file of `fuzz/corpus/TARGET/`, also after failures.
///
/// # Panics
/// When there are no files, or `body` panics or takes too long for any, naming all of them.
pub fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    replay_folder(&folder, body);
}

fn replay_folder(folder: &Path, body: fn(&[u8])) {
    let inputs = files(folder);
    assert!(!inputs.is_empty(), "{} has no files", folder.display());
    let fails = |path: &PathBuf| {
        let input = fs::read(path).unwrap();
        let name = path.display().to_string();
        catch_unwind(|| bounds::within(MAX_TIME, &name, move || body(&input))).is_err()
    };
    let failed: Vec<_> = inputs.iter().filter(|path| fails(path)).collect();
    assert!(failed.is_empty(), "failed for {} of {}: {failed:#?}", failed.len(), inputs.len());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "has no files")]
    fn a_corpus_without_files_is_a_failure() {
        replay_folder(tempfile::tempdir().unwrap().path(), |_| {});
    }

    #[test]
    #[should_panic(expected = "failed for 1 of 2")]
    fn every_file_is_replayed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "good").unwrap();
        fs::write(folder.path().join("b"), "bad").unwrap();
        replay_folder(folder.path(), |input| assert_eq!(input, b"good"));
    }
}
