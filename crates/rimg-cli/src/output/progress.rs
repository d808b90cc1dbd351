//! How far the work is: a bar on a terminal, elsewhere qemu-img's percentages.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};

/// Where progress is shown, if at all.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Nowhere,
    Percentages { printed: Option<f32>, step: f32, to: Stream },
    Bar(ProgressBar, Stream),
}

/// Where percentages are printed.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Error,
}

/// The bar's resolution: hundredths of a percent, as the percentages have.
const BAR_LENGTH: u64 = 10_000;

impl Progress {
    /// Percentages are printed when they grew by more than `step`.
    pub(crate) fn start(wanted: bool, step: f32) -> Self {
        let shown = if !wanted {
            Shown::Nowhere
        } else if io::stdout().is_terminal() {
            bar(Stream::Output)
        } else {
            Shown::Percentages { printed: None, step, to: Stream::Output }
        };
        Self { shown }
    }

    /// As [`start`](Self::start), on standard error: for work whose result goes to standard output.
    pub(crate) fn beside_output(wanted: bool, step: f32) -> Self {
        let shown = if !wanted {
            Shown::Nowhere
        } else if io::stderr().is_terminal() {
            bar(Stream::Error)
        } else {
            Shown::Percentages { printed: None, step, to: Stream::Error }
        };
        Self { shown }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !matches!(self.shown, Shown::Nowhere)
    }

    /// Shows `percent`, if it is worth it.
    pub(crate) fn set(&mut self, percent: f32) {
        match &mut self.shown {
            Shown::Nowhere => {}
            Shown::Percentages { printed, step, to } => {
                let grown = printed.is_none_or(|printed| percent > printed + *step);
                if grown || percent >= 100.0 {
                    *printed = Some(percent);
                    print_to(*to, &format!("    ({percent:.2}/100%)\r"));
                }
            }
            Shown::Bar(bar, _) => bar.set_position(bar_position(percent)),
        }
    }

    /// Prints something else meanwhile, without a mess.
    pub(crate) fn aside(&self, say: impl FnOnce()) {
        match &self.shown {
            Shown::Nowhere | Shown::Percentages { .. } => say(),
            Shown::Bar(bar, _) => bar.suspend(say),
        }
    }

    /// Leaves what is shown on a line of its own.
    pub(crate) fn end(self) {
        match self.shown {
            Shown::Nowhere => {}
            Shown::Percentages { to, .. } => print_to(to, "\n"),
            Shown::Bar(bar, stream) => {
                bar.abandon();
                print_to(stream, "\n");
            }
        }
    }
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

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a percentage, converted with saturation"
)]
fn bar_position(percent: f32) -> u64 {
    (percent * 100.0) as u64
}

fn bar(stream: Stream) -> Shown {
    let target = match stream {
        Stream::Output => ProgressDrawTarget::stdout(),
        Stream::Error => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(BAR_LENGTH), target);
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3}% {eta:>4}");
    let bar = style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style));
    Shown::Bar(bar, stream)
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
