//! A storage that fails when it is told to.

use super::{Hook, Hooked, Operation, OperationKind};
use core::ops::Range;
use rimg_core::Storage;
use std::io;
use std::sync::{Arc, Mutex};

/// A storage that fails when it is told to, with [`FaultyStorage::fail`].
pub type FaultyStorage = Hooked<Faults>;

/// The hook of a [`FaultyStorage`].
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<Armed>>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
}

/// When to fail, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which operations are counted; `None` for all.
    pub kind: Option<OperationKind>,
    /// Count only those that touch a byte of this range; `None` for all.
    pub range: Option<Range<u64>>,
    /// How many of them work before one fails.
    pub after: u64,
    /// Whether all later ones fail, too.
    pub permanent: bool,
    /// For writes: how many bytes are written although the write fails.
    pub torn_bytes: u64,
    /// What they fail with.
    pub error: io::ErrorKind,
}

impl Fault {
    /// The next operation of a kind fails, once.
    #[must_use]
    pub fn next(kind: OperationKind, error: io::ErrorKind) -> Self {
        let kind = Some(kind);
        Self { kind, range: None, after: 0, permanent: false, torn_bytes: 0, error }
    }

    /// Any operation from the one after `after` others fails.
    #[must_use]
    pub fn all_after(after: u64, error: io::ErrorKind) -> Self {
        Self { kind: None, range: None, after, permanent: true, torn_bytes: 0, error }
    }

    fn is_about(&self, operation: &Operation) -> bool {
        let touches = |range: &Range<u64>| {
            operation.range.start < range.end && range.start < operation.range.end
        };
        self.kind.is_none_or(|kind| kind == operation.kind)
            && self.range.as_ref().is_none_or(touches)
    }
}

impl FaultyStorage {
    /// Does what `inner` does until told otherwise.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self::with_hook(inner, Faults::default())
    }

    /// Fails as described, counting from now; in addition to what was described before.
    pub fn fail(&self, fault: Fault) {
        self.hook().0.lock().unwrap().push(Armed { fault, seen: 0 });
    }

    /// Works again.
    pub fn heal(&self) {
        self.hook().0.lock().unwrap().clear();
    }
}

impl Hook for Faults {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        let mut failed = None;
        for armed in &mut *self.0.lock().unwrap() {
            if armed.fault.is_about(operation) {
                let due = armed.seen == armed.fault.after;
                if due || armed.fault.permanent && armed.seen > armed.fault.after {
                    failed = failed.or(Some(armed.fault.error));
                }
                armed.seen += 1;
            }
        }
        failed.map_or(Ok(()), |kind| Err(io::Error::new(kind, "injected fault")))
    }

    fn torn_write_bytes(&self, operation: &Operation) -> u64 {
        let faults = self.0.lock().unwrap();
        let about = faults.iter().filter(|armed| armed.fault.is_about(operation));
        about.map(|armed| armed.fault.torn_bytes).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_storage::MemoryStorage;

    #[test]
    fn the_chosen_operation_fails_once() {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let writer = storage.writer().unwrap();
        let fault = Fault::next(OperationKind::Write, io::ErrorKind::StorageFull);
        storage.fail(Fault { after: 1, torn_bytes: 2, ..fault });
        writer.write_all_at(b"first", 0).unwrap();
        writer.sync().unwrap();
        let error = writer.write_all_at(b"SECOND", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut found = [0; 5];
        storage.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"SErst");
        writer.write_all_at(b"third", 0).unwrap();
    }

    #[test]
    fn a_permanent_fault_stays_until_healed() {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        storage.fail(Fault::all_after(1, io::ErrorKind::Other));
        assert!(storage.len_bytes().is_ok());
        assert!(storage.len_bytes().is_err() && storage.len_bytes().is_err());
        storage.heal();
        assert!(storage.len_bytes().is_ok());
    }
}
