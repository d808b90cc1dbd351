//! What is seen of long work while it goes on, and how it is interrupted.

use crate::message::{Stop, chain};
use crate::output::progress::{Progress, print};
use crate::program::Run;
use rimg_convert::{Observer, TargetGuard, Warning};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shows progress and warnings; called by all threads that work.
pub(super) struct Watch<'a> {
    run: &'a Run<'a>,
    progress: Mutex<Progress>,
    /// Whether nobody wants to hear of what was lost.
    is_quiet: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(run: &'a Run<'a>, progress: Progress) -> Self {
        Self { run, progress: Mutex::new(progress), is_quiet: false }
    }

    /// The same, without warnings if `is_quiet`.
    pub(super) fn quiet(self, is_quiet: bool) -> Self {
        Self { is_quiet, ..self }
    }

    /// Prints to standard error, behind the program's name.
    pub(super) fn say(&self, text: &str) {
        self.progress_bar().aside(|| self.run.say(text));
    }

    /// Prints to standard output.
    pub(super) fn print(&self, text: &str) {
        self.progress_bar().aside(|| print(text));
    }

    /// Shows how far the work is.
    pub(super) fn show(&self, percent: f32) {
        self.progress_bar().set(percent);
    }

    /// Gives up a target, and adds to `stop` what became of it. Who stands in for qemu-img says
    /// nothing of what is not there any more.
    pub(super) fn half_made(&self, stop: Stop, guard: TargetGuard) -> Stop {
        let left = guard.abandon();
        if left.is_removed() && !self.run.has_own() {
            return stop;
        }
        stop.with_hint(&left.to_string())
    }

    /// Nothing more will be shown.
    pub(super) fn end(self) {
        self.progress.into_inner().unwrap_or_else(PoisonError::into_inner).end();
    }

    fn progress_bar(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Watch<'_> {
    fn is_watching(&self) -> bool {
        self.progress_bar().is_shown()
    }

    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        self.progress_bar().bytes(done_bytes, total_bytes);
    }

    fn warning(&self, warning: &Warning) {
        if !self.is_quiet {
            self.say(&format!("warning: {}", chain(warning)));
        }
    }
}

/// A flag that turns true when the user, or the system, wants an end.
pub(super) fn cancel_on_signals() -> Result<Arc<AtomicBool>, Stop> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| Stop::failed(format!("Cannot watch for signals: {error}")))?;
    Ok(cancel)
}
