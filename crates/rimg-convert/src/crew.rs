//! The threads that do the work.

use std::sync::Once;
use std::thread;

/// Runs `work` on the calling thread, and on `threads - 1` more from the moment it calls what it is
/// given: small work is done before a thread would have started. All threads are gone on return.
pub(crate) fn run(threads: usize, work: &(dyn Fn(&dyn Fn()) + Sync)) {
    thread::scope(|scope| {
        let hired = Once::new();
        work(&|| {
            hired.call_once(|| {
                for _ in 1..threads {
                    // Where the system refuses, fewer threads do the same work.
                    let _ = thread::Builder::new()
                        .name("rimg worker".into())
                        .spawn_scoped(scope, || work(&|| ()));
                }
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn nobody_is_hired_without_need() {
        let calls = AtomicUsize::new(0);
        run(4, &|_| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 1);
    }

    #[test]
    fn all_work_at_the_same_time() {
        let barrier = Barrier::new(4);
        run(4, &|hire| {
            hire();
            barrier.wait();
        });
    }
}
