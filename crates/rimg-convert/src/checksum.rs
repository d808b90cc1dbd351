//! The hash of what the guest sees.

use crate::convert::{Part, convert_part};
use crate::error::ConvertError;
use crate::forward::{Forward, Sink};
use crate::options::ConvertOptions;
use crate::progress::Observer;
use crate::source::Source;
use core::num::NonZeroUsize;
use rimg_core::{BlockImage, Error, Result, num};
use rimg_crypto::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

/// How to hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChecksumOptions {
    /// How many threads read and decode, the calling one included; `None` for one per available
    /// core. One of them hashes at a time.
    pub threads: Option<NonZeroUsize>,
    /// So many bytes are hashed, from the start; all unless given.
    pub max_bytes: Option<u64>,
    /// Data that cannot be read counts as zeroes, with a [`Warning`](crate::Warning) for each
    /// sector.
    pub salvage: bool,
}

/// The digest of all guest bytes of `sources`, one behind the other: that of the file which
/// converting them to raw would give, whatever their formats.
///
/// What a source knows to be zero is hashed without being read. Memory is bounded as for
/// [`convert`](crate::convert).
///
/// # Errors
/// [`ConvertError::Map`], [`ConvertError::Read`] and [`ConvertError::Cancelled`].
pub fn checksum(
    sources: &[&dyn BlockImage],
    hash: Hash,
    options: &ChecksumOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<Vec<u8>, ConvertError> {
    let source = Source::new(sources).up_to(options.max_bytes);
    let size = source.size_bytes();
    let sink = HashSink { hasher: hash.hasher(), next: 0, cancel };
    let target = Forward::new(sink, size);
    let plain = ConvertOptions {
        threads: options.threads,
        salvage: options.salvage,
        // Zeroes in data are as good as any other bytes here: a look at them would be for nothing.
        copy_offload: !options.salvage,
        ..ConvertOptions::default()
    };
    let all = Part { shared_from: None, zero_from: 0 };
    convert_part(&source, &target, all, &plain, observer, cancel)?;
    let mut sink = target.into_sink();
    sink.zeroes_to(size).map_err(|_| ConvertError::Cancelled)?;
    Ok(sink.hasher.finish())
}

struct HashSink<'a> {
    hasher: Hasher,
    /// The first byte that has not come.
    next: u64,
    cancel: &'a AtomicBool,
}

/// Zeroes to hash.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl HashSink<'_> {
    fn zeroes_to(&mut self, end: u64) -> Result<()> {
        while self.next < end {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let now = end.saturating_sub(self.next).min(num::to_u64(ZEROES.len()));
            self.hasher.update(ZEROES.get(..num::to_usize(now)?).unwrap_or_default());
            self.next = self.next.saturating_add(now);
        }
        Ok(())
    }
}

impl Sink for HashSink<'_> {
    fn data(&mut self, bytes: &[u8], at: u64) -> Result<()> {
        self.zeroes_to(at)?;
        self.hasher.update(bytes);
        self.next = at.saturating_add(num::to_u64(bytes.len()));
        Ok(())
    }
}
