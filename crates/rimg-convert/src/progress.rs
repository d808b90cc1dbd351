//! Telling how far the work is, and what went wrong without ending it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Is told how the work goes, by whichever thread did some of it; calls never overlap.
pub trait Observer: Sync {
    /// Whether progress is of interest: what there is to do is then counted before it is done.
    fn is_watching(&self) -> bool {
        true
    }

    /// `done` of `total` bytes of guest data are finished. `done` never decreases, and reaches
    /// `total` once when all went well. Called about once per MiB of data. What is known to be
    /// zero does not count where images are converted or committed.
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        let _ = (done_bytes, total_bytes);
    }

    /// Something was lost. Warnings come in the order of their offsets.
    fn warning(&self, warning: &Warning) {
        let _ = warning;
    }
}

/// Does not want to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn is_watching(&self) -> bool {
        false
    }
}

/// What was lost on the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A sector could not be read and became zeroes.
    #[error("error while reading offset {at}")]
    UnreadableSector {
        /// The guest offset of the sector in bytes, counted over all sources.
        at: u64,
        /// Why.
        source: rimg_core::Error,
    },
}

/// Counts what is done and reports it.
pub(crate) struct Meter<'a> {
    observer: &'a dyn Observer,
    total: u64,
    done: AtomicU64,
    reported: Mutex<u64>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(observer: &'a dyn Observer, total: u64) -> Self {
        observer.progress(0, total);
        Self { observer, total, done: AtomicU64::new(0), reported: Mutex::new(0) }
    }

    /// Counts `bytes` and reports, unless another thread is reporting now.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        // Loading under the lock keeps what is reported from going backwards.
        if let Ok(mut reported) = self.reported.try_lock() {
            let done = self.done.load(Ordering::Relaxed);
            // The end is reported by `finish`, once the target is complete.
            if done > *reported && done < self.total {
                *reported = done;
                self.observer.progress(done, self.total);
            }
        }
    }

    pub(crate) fn finish(&self) {
        self.observer.progress(self.total, self.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[derive(Default)]
    struct Log(Mutex<Vec<u64>>);

    impl Observer for Log {
        fn progress(&self, done_bytes: u64, _total_bytes: u64) {
            self.0.lock().unwrap().push(done_bytes);
        }
    }

    #[test]
    fn never_goes_backwards_and_ends_once() {
        let log = Log::default();
        let meter = Meter::new(&log, 8000);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| meter.add(1)));
            }
        });
        meter.finish();
        let log = log.0.into_inner().unwrap();
        assert!(log.is_sorted_by(|a, b| a < b), "{log:?}");
        assert_eq!(log.first(), Some(&0));
        assert_eq!(log.last(), Some(&8000));
    }
}
