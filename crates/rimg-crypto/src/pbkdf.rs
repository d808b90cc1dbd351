//! How many iterations take how long.

use crate::Hash;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A measurement shorter than this says little.
const LEAST: Duration = Duration::from_millis(50);
/// So many iterations are tried first.
const FIRST: u32 = 1 << 12;
/// A first try is not to be trusted with more than this.
const MOST_AT_ONCE: u128 = 64;

/// How many iterations of PBKDF2 with `hash` this machine does in a second, for a key that is no
/// longer than a digest: each further digest's length takes as long again (RFC 8018, 5.2). Takes
/// less than a tenth of a second to find out.
#[must_use]
pub fn iterations_per_second(hash: Hash) -> u64 {
    let mut iterations = FIRST;
    loop {
        let start = Instant::now();
        black_box(hash.pbkdf2(b"password", b"salt of some bytes", iterations, 1));
        let nanos = start.elapsed().as_nanos().max(1);
        if nanos >= LEAST.as_nanos() || iterations > u32::MAX / 2 {
            let per_second = u128::from(iterations).saturating_mul(1_000_000_000) / nanos;
            return u64::try_from(per_second).unwrap_or(u64::MAX);
        }
        // A quarter more, so that one more time is enough.
        let factor = LEAST.as_nanos().saturating_mul(5).div_ceil(nanos.saturating_mul(4));
        let factor = u32::try_from(factor.clamp(2, MOST_AT_ONCE)).unwrap_or(2);
        iterations = iterations.saturating_mul(factor);
    }
}
