//! How far the work is: a bar on a terminal, elsewhere qemu-img's percentages; and when nobody
//! wanted to see it, one line for each SIGUSR1.

mod bar;

use bar::Bar;
use console::Term;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where progress is shown, if at all.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    /// On standard error, when a signal asked for it.
    OnRequest(Arc<AtomicBool>),
    Percentages {
        printed: Option<f32>,
        step: f32,
        to: Stream,
    },
    Bar(Bar),
    Json {
        started: Instant,
        shown: Option<Instant>,
    },
}

/// Where percentages are printed.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Error,
}

impl Stream {
    /// The terminal behind it, if it is one that can draw over what it shows.
    fn terminal(self) -> Option<Term> {
        let is_terminal = match self {
            Self::Output => io::stdout().is_terminal(),
            Self::Error => io::stderr().is_terminal(),
        };
        let term = || match self {
            Self::Output => Term::stdout(),
            Self::Error => Term::stderr(),
        };
        (is_terminal && !console::is_dumb()).then(term)
    }
}

impl Progress {
    /// Percentages are printed when they grew by more than `step`.
    pub(crate) fn start(wanted: bool, step: f32) -> Self {
        Self::on(Stream::Output, wanted, step)
    }

    /// As [`start`](Self::start), on standard error: for work whose result goes to standard output.
    pub(crate) fn beside_output(wanted: bool, step: f32) -> Self {
        Self::on(Stream::Error, wanted, step)
    }

    fn on(to: Stream, wanted: bool, step: f32) -> Self {
        let request = request();
        let shown = if !wanted {
            Shown::OnRequest(request)
        } else if let Some(terminal) = to.terminal() {
            Shown::Bar(Bar::new(terminal))
        } else {
            Shown::Percentages { printed: None, step, to }
        };
        Self { shown }
    }

    /// Whether anybody sees it now.
    pub(crate) fn is_shown(&self) -> bool {
        match &self.shown {
            Shown::OnRequest(request) => request.load(Ordering::Relaxed),
            Shown::Percentages { .. } | Shown::Bar(_) | Shown::Json { .. } => true,
        }
    }

    /// As lines of JSON on standard error.
    pub(crate) fn json() -> Self {
        let _ = request();
        Self { shown: Shown::Json { started: Instant::now(), shown: None } }
    }

    /// Shows that `done` of `total` bytes are done.
    pub(crate) fn bytes(&mut self, done: u64, total: u64) {
        if let Shown::Json { started, shown } = &mut self.shown {
            let now = Instant::now();
            let is_due = shown.is_none_or(|shown| now.duration_since(shown) >= JSON_INTERVAL);
            if is_due || done == total {
                *shown = Some(now);
                print_to(Stream::Error, &json_line(done, total, now.duration_since(*started)));
            }
        } else if total > 0 {
            self.set(percent(done, total));
        }
    }

    /// As [`bytes`](Self::bytes) of work whose steps follow each other: less than was shown before,
    /// or nothing, is the beginning of a step, and shown.
    pub(crate) fn bytes_anew(&mut self, done: u64, total: u64) {
        if let Shown::Percentages { printed, .. } = &mut self.shown {
            let begins = done == 0 || printed.is_some_and(|printed| percent(done, total) < printed);
            if begins {
                *printed = None;
            }
        }
        self.bytes(done, total);
    }

    /// Shows `percent`, if it is worth it.
    pub(crate) fn set(&mut self, percent: f32) {
        match &mut self.shown {
            Shown::Json { .. } => {}
            Shown::OnRequest(request) => {
                if request.swap(false, Ordering::Relaxed) {
                    print_to(Stream::Error, &format!("    ({percent:.2}/100%)\n"));
                }
            }
            Shown::Percentages { printed, step, to } => {
                let grown = printed.is_none_or(|printed| percent > printed + *step);
                if grown || percent >= 100.0 {
                    *printed = Some(percent);
                    print_to(*to, &format!("    ({percent:.2}/100%)\r"));
                }
            }
            Shown::Bar(bar) => bar.set(percent),
        }
    }

    /// Prints something else meanwhile, without a mess.
    pub(crate) fn aside(&self, say: impl FnOnce()) {
        match &self.shown {
            Shown::OnRequest(_) | Shown::Percentages { .. } | Shown::Json { .. } => say(),
            Shown::Bar(bar) => bar.aside(say),
        }
    }

    /// Leaves what is shown on a line of its own.
    pub(crate) fn end(self) {
        match self.shown {
            Shown::OnRequest(_) | Shown::Json { .. } => {}
            Shown::Percentages { to, .. } => print_to(to, "\n"),
            Shown::Bar(bar) => bar.end(),
        }
    }
}

/// What turns true with each SIGUSR1. From then on that signal ends nothing any more.
fn request() -> Arc<AtomicBool> {
    let request = Arc::new(AtomicBool::new(false));
    // Without it, nobody can ask.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&request));
    request
}

/// So often a line of JSON is printed.
const JSON_INTERVAL: Duration = Duration::from_millis(100);

/// One line: the mean rate since the start, and the time that the rest takes at that rate; `null`
/// where nothing is known yet.
fn json_line(done: u64, total: u64, elapsed: Duration) -> String {
    let millis = elapsed.as_millis().max(1);
    let rate = u128::from(done).saturating_mul(1000) / millis;
    let left = u128::from(total.saturating_sub(done));
    let remaining = match left.saturating_mul(1000).checked_div(rate) {
        Some(millis) => format!("{}.{:03}", millis / 1000, millis % 1000),
        None if left == 0 => "0.000".to_owned(),
        None => "null".to_owned(),
    };
    format!(
        "{{\"kind\": \"progress\", \"done\": {done}, \"total\": {total}, \
         \"bytes-per-second\": {rate}, \"seconds-left\": {remaining}}}\n"
    )
}

/// `part` of `whole` in percent.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "two decimals are shown; the precision is qemu-img's"
)]
pub(crate) fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 { 100.0 } else { part as f32 / whole as f32 * 100.0 }
}

/// Prints to standard output at once, between what shows progress.
pub(crate) fn print(text: &str) {
    print_to(Stream::Output, text);
}

fn print_to(stream: Stream, text: &str) {
    // A reader that went away must not stop the work.
    let _ = match stream {
        Stream::Output => {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
        Stream::Error => io::stderr().lock().write_all(text.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_rest_are_told_where_they_are_known() {
        let line = |done, total, millis| json_line(done, total, Duration::from_millis(millis));
        assert_eq!(
            line(0, 100, 0),
            "{\"kind\": \"progress\", \"done\": 0, \"total\": 100, \"bytes-per-second\": 0, \
             \"seconds-left\": null}\n"
        );
        assert_eq!(
            line(4000, 10_000, 2000),
            "{\"kind\": \"progress\", \"done\": 4000, \"total\": 10000, \
             \"bytes-per-second\": 2000, \"seconds-left\": 3.000}\n"
        );
        assert!(line(0, 0, 5).ends_with("\"seconds-left\": 0.000}\n"));
    }
}
