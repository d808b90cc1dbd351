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
    Percentages { printed: Option<f32>, step: f32 },
    Bar(ProgressBar),
}

/// The bar's resolution: hundredths of a percent, as the percentages have.
const BAR_LENGTH: u64 = 10_000;

impl Progress {
    /// Percentages are printed when they grew by more than `step`.
    pub(crate) fn start(wanted: bool, step: f32) -> Self {
        let shown = if !wanted {
            Shown::Nowhere
        } else if io::stdout().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(BAR_LENGTH), ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{wide_bar} {percent:>3}% {eta:>4}");
            Shown::Bar(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
        } else {
            Shown::Percentages { printed: None, step }
        };
        Self { shown }
    }

    /// Shows `percent`, if it is worth it.
    pub(crate) fn set(&mut self, percent: f32) {
        match &mut self.shown {
            Shown::Nowhere => {}
            Shown::Percentages { printed, step } => {
                let grown = printed.is_none_or(|printed| percent > printed + *step);
                if grown || percent >= 100.0 {
                    *printed = Some(percent);
                    print_percent(percent);
                }
            }
            Shown::Bar(bar) => bar.set_position(bar_position(percent)),
        }
    }

    /// Prints something else meanwhile, without a mess.
    pub(crate) fn aside(&self, say: impl FnOnce()) {
        match &self.shown {
            Shown::Nowhere | Shown::Percentages { .. } => say(),
            Shown::Bar(bar) => bar.suspend(say),
        }
    }

    /// Leaves what is shown on a line of its own.
    pub(crate) fn end(self) {
        match self.shown {
            Shown::Nowhere => {}
            Shown::Percentages { .. } => print("\n"),
            Shown::Bar(bar) => {
                bar.abandon();
                print("\n");
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

fn print_percent(percent: f32) {
    print(&format!("    ({percent:.2}/100%)\r"));
}

/// Prints to standard output at once, between what shows progress.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away must not stop the work.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
