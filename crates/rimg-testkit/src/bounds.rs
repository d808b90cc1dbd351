//! Bounds for time and memory that a test must keep.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::any::type_name_of_val;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Set in the process that [`under_memory_limit`] starts.
const LIMITED: &str = "RIMG_TESTKIT_LIMITED";

/// Runs `work` in a thread of its own and returns what it returns.
///
/// # Panics
/// When it takes longer than `limit`, naming `what`; or as `work` does.
pub fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = channel();
    let worker = thread::spawn(move || {
        let _ = done.send(work());
    });
    match result.recv_timeout(limit) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("{what} took longer than {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => panic!("{what} gave no result"),
        },
    }
}

/// Runs `test` where the process cannot allocate more than `limit_bytes`: in a process of its own,
/// by running this test program again for the one test that calls this.
///
/// To be called directly in the function that is the test, with everything it does in the closure.
///
/// # Panics
/// When the test does not succeed there.
pub fn under_memory_limit(limit_bytes: u64, test: impl FnOnce()) {
    let name = test_name(type_name_of_val(&test)).to_owned();
    if std::env::var(LIMITED).is_ok_and(|limited| limited == name) {
        // Counts private writable memory: not the program's text, not reserved address space.
        let limit = Rlimit { current: Some(limit_bytes), ..getrlimit(Resource::Data) };
        setrlimit(Resource::Data, limit).unwrap();
        return test();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(LIMITED, &name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    let ran = out.contains("1 passed");
    assert!(child.status.success() && ran, "{name} with {limit_bytes} bytes:\n{out}{err}");
}

/// The path of a test in its program, from the name of the type of a closure in it.
fn test_name(closure: &str) -> &str {
    let path = closure.split_once("::").map_or(closure, |(_program, path)| path);
    path.split("::{{closure}}").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_time_returns_its_result() {
        assert_eq!(within(Duration::from_secs(10), "adding", || 1 + 1), 2);
    }

    #[test]
    #[should_panic(expected = "sleeping took longer than 20ms")]
    fn work_out_of_time_fails() {
        within(Duration::from_millis(20), "sleeping", || thread::sleep(Duration::from_secs(2)));
    }

    #[test]
    #[should_panic(expected = "as it was")]
    fn a_panic_is_passed_on() {
        within(Duration::from_secs(10), "failing", || panic!("as it was"));
    }

    #[test]
    fn memory_is_bounded() {
        under_memory_limit(64 << 20, || {
            let mut small: Vec<u8> = Vec::new();
            small.try_reserve_exact(16 << 20).unwrap();
            let mut large: Vec<u8> = Vec::new();
            assert!(large.try_reserve_exact(256 << 20).is_err());
        });
    }
}
