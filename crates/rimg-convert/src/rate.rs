//! Writing no faster than allowed.

use crate::stop::lock;
use core::num::NonZeroU64;
use rimg_core::num::to_u64;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How long nobody looks at a cancellation.
const NAP: Duration = Duration::from_millis(50);

/// Hands out the right to write at a steady rate.
pub(crate) struct Rate {
    bytes_per_second: Option<NonZeroU64>,
    /// When what has been handed out so far is used up.
    free_at: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may be written, or until `give_up`.
    pub(crate) fn wait(&self, bytes: usize, give_up: impl Fn() -> bool) {
        let Some(rate) = self.bytes_per_second else { return };
        let start = {
            let mut free_at = lock(&self.free_at);
            // What was not used in the past is gone: there are no bursts.
            let start = (*free_at).max(Instant::now());
            *free_at = start.checked_add(cost(bytes, rate)).unwrap_or(start);
            start
        };
        while !give_up() {
            match start.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return,
                Some(left) => thread::sleep(left.min(NAP)),
            }
        }
    }
}

fn cost(bytes: usize, rate: NonZeroU64) -> Duration {
    let nanoseconds =
        u128::from(to_u64(bytes)).saturating_mul(1_000_000_000) / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let rate = Rate::new(NonZeroU64::new(10_000_000));
        let start = Instant::now();
        for _ in 0..11 {
            rate.wait(100_000, || false);
        }
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    }

    #[test]
    fn giving_up_ends_the_wait() {
        let rate = Rate::new(NonZeroU64::new(1));
        rate.wait(1_000_000, || false);
        let start = Instant::now();
        rate.wait(1, || true);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
