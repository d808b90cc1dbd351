//! A storage that lets operations wait.

use super::{Hook, Hooked, Operation, OperationKind};
use core::ops::Range;
use rimg_core::Storage;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long an operation waits for its release before it fails, so that a wrong test ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// A storage that lets operations wait: for some time, or until they are released. With it a test
/// can prove that one operation does not wait for another one's I/O.
pub type DelayedStorage = Hooked<Delays>;

/// The hook of a [`DelayedStorage`].
#[derive(Debug, Default)]
pub struct Delays {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<(Filter, Delay)>,
    waiting: usize,
}

#[derive(Debug)]
struct Filter {
    kind: OperationKind,
    range: Range<u64>,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// As long as this.
    For(Duration),
    /// Until [`DelayedStorage::release`]; after 20 seconds without it the operation fails with
    /// [`io::ErrorKind::TimedOut`].
    UntilReleased,
}

impl DelayedStorage {
    /// Does what `inner` does, when it does it, until told otherwise.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self::with_hook(inner, Delays::default())
    }

    /// Lets every operation of `kind` wait that touches a byte of `range`; for those without a
    /// range (`Len`, `SetLen`, `Sync`) the range does not matter.
    pub fn delay(&self, kind: OperationKind, range: Range<u64>, delay: Delay) {
        self.hook().state.lock().unwrap().rules.push((Filter { kind, range }, delay));
    }

    /// Lets all go on that wait, and none wait from now on.
    pub fn release(&self) {
        self.hook().state.lock().unwrap().rules.clear();
        self.hook().changed.notify_all();
    }

    /// Waits until `count` operations wait at the same time.
    ///
    /// # Panics
    /// When that does not happen within 20 seconds.
    pub fn until_waiting(&self, count: usize) {
        let hook = self.hook();
        let state = hook.state.lock().unwrap();
        let (state, timeout) = hook
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.waiting < count)
            .unwrap();
        let waiting = state.waiting;
        drop(state);
        assert!(!timeout.timed_out(), "{waiting} operations wait, not {count}");
    }

    /// How many operations wait for their release now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.hook().state.lock().unwrap().waiting
    }
}

impl State {
    fn delay(&self, operation: &Operation) -> Option<Delay> {
        let Operation { kind, range } = operation;
        let concerned = |filter: &Filter| {
            let touches = filter.range.start < range.end && range.start < filter.range.end;
            filter.kind == *kind && (touches || range.is_empty())
        };
        self.rules.iter().find(|(filter, _)| concerned(filter)).map(|(_, delay)| *delay)
    }
}

impl Hook for Delays {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        match state.delay(operation) {
            None => Ok(()),
            Some(Delay::For(time)) => {
                drop(state);
                thread::sleep(time);
                Ok(())
            }
            Some(Delay::UntilReleased) => {
                let deadline = Instant::now() + PATIENCE;
                state.waiting += 1;
                self.changed.notify_all();
                while state.delay(operation) == Some(Delay::UntilReleased) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.waiting -= 1;
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "never released"));
                    }
                    state = self.changed.wait_timeout(state, left).unwrap().0;
                }
                state.waiting -= 1;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_storage::MemoryStorage;

    #[test]
    fn only_the_chosen_operation_waits() {
        let storage = DelayedStorage::new(Arc::new(MemoryStorage::with_len(1000)));
        storage.delay(OperationKind::Read, 0..10, Delay::UntilReleased);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| storage.read_exact_at(&mut [0; 20], 5));
            storage.until_waiting(1);
            storage.read_exact_at(&mut [0; 20], 10).unwrap();
            storage.writer().unwrap().write_all_at(b"x", 0).unwrap();
            assert!(!waiting.is_finished());
            storage.release();
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(storage.waiting(), 0);
    }
}
