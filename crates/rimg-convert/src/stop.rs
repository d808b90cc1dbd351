//! Ending the work of all threads early.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether to go on, and the first failure in the order of the work.
///
/// Units are handed out in order, so when one fails all before it are taken; they are finished,
/// which makes the failure that is reported the first one whatever the number of threads.
pub(crate) struct Stop<'a, E> {
    cancel: &'a AtomicBool,
    halted: AtomicBool,
    first: Mutex<Option<(u64, E)>>,
}

impl<'a, E> Stop<'a, E> {
    pub(crate) fn new(cancel: &'a AtomicBool) -> Self {
        Self { cancel, halted: AtomicBool::new(false), first: Mutex::new(None) }
    }

    /// No more units are to be begun.
    pub(crate) fn is_requested(&self) -> bool {
        self.halted.load(Ordering::Relaxed) || self.is_cancelled()
    }

    /// Whatever is under way is to be dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    /// Remembers that unit `seq` failed, unless one before it did.
    pub(crate) fn fail(&self, seq: u64, error: E) {
        let mut first = lock(&self.first);
        if first.as_ref().is_none_or(|&(earlier, _)| seq < earlier) {
            *first = Some((seq, error));
        }
        self.halt();
    }

    /// Whether something failed that comes before unit `seq`.
    pub(crate) fn failed_before(&self, seq: u64) -> bool {
        self.halted.load(Ordering::Relaxed)
            && lock(&self.first).as_ref().is_some_and(|&(failed, _)| failed < seq)
    }

    /// How it ended, once all threads are gone: cancelled, or with the first failure, if any.
    pub(crate) fn into_outcome(self) -> Result<Option<E>, Cancelled> {
        let first = self.first.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Cancelled);
        }
        Ok(first.map(|(_, error)| error))
    }
}

/// The work was cancelled from outside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cancelled;

/// Locks, whatever happened to a thread that held the lock: a panic ends the whole work anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_in_order_wins() {
        let cancel = AtomicBool::new(false);
        let stop = Stop::new(&cancel);
        assert!(!stop.is_requested());
        for seq in [7, 3, 5] {
            stop.fail(seq, seq);
        }
        assert!(stop.is_requested());
        assert!(!stop.is_cancelled());
        assert_eq!(stop.into_outcome(), Ok(Some(3)));
    }
}
