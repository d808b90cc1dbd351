//! How many iterations take how long.

use crate::Hash;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A measurement shorter than this says little.
const LEAST: Duration = Duration::from_millis(100);
/// So many iterations are tried first.
const FIRST: u32 = 1 << 14;

/// How many iterations of PBKDF2 with `hash` this machine does in a second, for keys of
/// `key_bytes`. Takes about a fifth of a second to find out.
#[must_use]
pub fn iterations_per_second(hash: Hash, key_bytes: usize) -> u64 {
    let mut iterations = FIRST;
    loop {
        let start = Instant::now();
        black_box(hash.pbkdf2(b"password", b"salt of some bytes", iterations, key_bytes));
        let taken = start.elapsed();
        if taken >= LEAST || iterations > u32::MAX / 2 {
            let nanos = taken.as_nanos().max(1);
            let per_second = u128::from(iterations).saturating_mul(1_000_000_000) / nanos;
            return u64::try_from(per_second).unwrap_or(u64::MAX);
        }
        iterations = iterations.saturating_mul(2);
    }
}
