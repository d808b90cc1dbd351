//! Telling how far the work is, and what went wrong without ending it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// Is told how the work goes, by whichever thread did some of it; calls never overlap. Beginning
/// and end are reported to those who watch then.
pub trait Observer: Sync {
    /// Whether progress is of interest now. Asked again and again; what there is to do is counted
    /// when it first is.
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
    /// Nobody could say what lies there: it was read as data.
    #[error("error while reading block status at offset {at}")]
    UnknownStatus {
        /// The guest offset of the sector in bytes, counted over all sources.
        at: u64,
        /// Why.
        source: rimg_core::Error,
    },
    /// A sector could not be read and became zeroes.
    #[error("error while reading offset {at}")]
    UnreadableSector {
        /// The guest offset of the sector in bytes, counted over all sources.
        at: u64,
        /// Why.
        source: rimg_core::Error,
    },
}

impl Warning {
    /// The guest offset in bytes, counted over all sources.
    #[must_use]
    pub fn at(&self) -> u64 {
        match self {
            Self::UnknownStatus { at, .. } | Self::UnreadableSector { at, .. } => *at,
        }
    }
}

/// Counts what is done and reports it, when somebody wants to know.
pub(crate) struct Meter<'a> {
    observer: &'a dyn Observer,
    count: Box<dyn Fn() -> u64 + Send + Sync + 'a>,
    total: OnceLock<u64>,
    done: AtomicU64,
    reported: Mutex<u64>,
}

impl<'a> Meter<'a> {
    /// `count` says how much there is to do, in bytes. It is asked once at most.
    pub(crate) fn new(
        observer: &'a dyn Observer,
        count: impl Fn() -> u64 + Send + Sync + 'a,
    ) -> Self {
        let meter = Self {
            observer,
            count: Box::new(count),
            total: OnceLock::new(),
            done: AtomicU64::new(0),
            reported: Mutex::new(0),
        };
        if observer.is_watching() {
            observer.progress(0, meter.total());
        }
        meter
    }

    fn total(&self) -> u64 {
        *self.total.get_or_init(&self.count)
    }

    /// Counts `bytes` and reports, unless another thread is reporting now.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        // Loading under the lock keeps what is reported from going backwards.
        if let Ok(mut reported) = self.reported.try_lock() {
            if !self.observer.is_watching() {
                return;
            }
            let done = self.done.load(Ordering::Relaxed);
            // The end is reported by `finish`, once the target is complete.
            let total = self.total();
            if done > *reported && done < total {
                *reported = done;
                self.observer.progress(done, total);
            }
        }
    }

    pub(crate) fn finish(&self) {
        if self.observer.is_watching() {
            self.observer.progress(self.total(), self.total());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
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
        let meter = Meter::new(&log, || 8000);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| meter.add(1)));
            }
        });
        meter.finish();
        drop(meter);
        let log = log.0.into_inner().unwrap();
        assert!(log.is_sorted_by(|a, b| a < b), "{log:?}");
        assert_eq!(log.first(), Some(&0));
        assert_eq!(log.last(), Some(&8000));
    }

    #[test]
    fn what_there_is_to_do_is_counted_when_somebody_asks() {
        #[derive(Default)]
        struct Asked(AtomicBool, Log);

        impl Observer for Asked {
            fn is_watching(&self) -> bool {
                self.0.swap(false, Ordering::Relaxed)
            }

            fn progress(&self, done_bytes: u64, total_bytes: u64) {
                self.1.progress(done_bytes, total_bytes);
            }
        }

        let (asked, counted) = (Asked::default(), AtomicU64::new(0));
        let meter = Meter::new(&asked, || {
            counted.fetch_add(1, Ordering::Relaxed);
            10
        });
        meter.add(2);
        assert_eq!(counted.load(Ordering::Relaxed), 0);
        asked.0.store(true, Ordering::Relaxed);
        meter.add(3);
        meter.add(1);
        asked.0.store(true, Ordering::Relaxed);
        meter.add(1);
        meter.finish();
        assert_eq!(counted.load(Ordering::Relaxed), 1);
        assert_eq!(*asked.1.0.lock().unwrap(), [5, 7]);
    }
}
