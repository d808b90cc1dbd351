//! `--verify`: whether the target holds what the sources hold.

use crate::class::Class;
use crate::commands::checksum::hex;
use crate::commands::watch::Watch;
use crate::images::{self, How, ImageName};
use crate::message::{Stop, chain};
use rimg::{BlockImage, CacheMode};
use rimg_convert::{ChecksumOptions, ConvertError, Silent, checksum};
use rimg_crypto::Hash;
use std::sync::atomic::AtomicBool;
use std::thread;

/// Reads the sources, and the target as it is found now, at the same time and compares hashes.
///
/// # Errors
/// What cannot be read, or that the hashes differ.
pub(super) fn verify(
    sources: &[&dyn BlockImage],
    size_bytes: u64,
    (name, how): (&ImageName, How),
    salvage: bool,
    watch: &Watch<'_>,
    cancel: &AtomicBool,
) -> Result<(), Stop> {
    let how = How { writable: false, shares_raw: false, cache: CacheMode::Writeback, ..how };
    let target = images::open(name, &how)?;
    let mut options = ChecksumOptions::default();
    options.salvage = salvage;
    let mut target_options = ChecksumOptions::default();
    target_options.max_bytes = Some(size_bytes);
    let hash = Hash::Sha256;
    let (read, written) = thread::scope(|scope| {
        let written =
            scope.spawn(|| checksum(&[target.disk()], hash, &target_options, &Silent, cancel));
        let read = checksum(sources, hash, &options, watch, cancel);
        (read, written.join())
    });
    let failed = |what: &str, error: &ConvertError| match error {
        ConvertError::Cancelled => Stop::interrupted(),
        other => {
            Stop::failed(format!("Cannot verify the {what}: {}", chain(other))).of(Class::of(other))
        }
    };
    let read = read.map_err(|error| failed("source", &error))?;
    let written = match written {
        Ok(written) => written.map_err(|error| failed("target", &error))?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if read == written {
        return Ok(());
    }
    let (read, written) = (hex(&read), hex(&written));
    let message = format!("Verification failed: SHA-256 of source {read}, of target {written}");
    Err(Stop::failed(message).of(Class::Mismatch))
}
