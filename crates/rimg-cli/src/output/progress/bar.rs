//! A bar on a terminal. It is our own because the usual crates weigh their rates with the C
//! library's `pow`, and loading libm for it would cost every command more than the bar does.

use console::Term;
use std::time::{Duration, Instant};

/// A bar is drawn anew no more often than this.
const INTERVAL: Duration = Duration::from_millis(50);

/// Terminals that do not tell how wide they are.
const COLUMNS: u16 = 80;

#[derive(Debug)]
pub(super) struct Bar {
    term: Term,
    started: Instant,
    drawn: Option<Instant>,
    percent: f32,
}

impl Bar {
    /// Nothing is drawn yet.
    pub(super) fn new(term: Term) -> Self {
        Self { term, started: Instant::now(), drawn: None, percent: 0.0 }
    }

    /// Shows that `percent` are done, now or with the next drawing.
    pub(super) fn set(&mut self, percent: f32) {
        self.percent = percent;
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= INTERVAL);
        if is_due || percent >= 100.0 {
            self.drawn = Some(Instant::now());
            self.draw();
        }
    }

    /// Makes room for what `say` prints.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        // A terminal that went away must not stop the work.
        let _ = self.term.clear_line();
        say();
        self.draw();
    }

    /// Leaves the bar as it is, on a line of its own.
    pub(super) fn end(self) {
        self.draw();
        let _ = self.term.write_line("");
    }

    fn draw(&self) {
        let columns = self.term.size_checked().map_or(COLUMNS, |(_, columns)| columns);
        let line = line(columns, self.percent, self.started.elapsed());
        let _ = self.term.write_str(&format!("\r{line}\x1b[K"));
    }
}

/// The bar, how much is done and how long the rest takes at the mean rate, in a line that leaves
/// the last column free: a terminal would wrap there.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "parts of a line, converted with saturation"
)]
fn line(columns: u16, percent: f32, elapsed: Duration) -> String {
    let percent = percent.clamp(0.0, 100.0);
    let done = percent / 100.0;
    let rest = elapsed.as_secs_f32() / done * (1.0 - done);
    let figures = format!(" {:>3}% {:>4}", percent as u8, remaining(rest));
    let wide = usize::from(columns).saturating_sub(1).saturating_sub(figures.len());
    let full = (wide as f32 * done) as usize;
    let bar = "█".repeat(full) + &"░".repeat(wide.saturating_sub(full));
    bar + &figures
}

/// Seconds, in the largest unit of which there is a whole one.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "converted with saturation; what is not finite is not shown"
)]
fn remaining(seconds: f32) -> String {
    if !seconds.is_finite() {
        return String::new();
    }
    match seconds.ceil() as u64 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds => format!("{}h", (seconds / 3600).min(999)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_what_is_done_and_what_is_left() {
        let after = Duration::from_secs;
        assert_eq!(line(20, 0.0, after(0)), "░░░░░░░░░   0%     ");
        assert_eq!(line(20, 0.0, after(3)), "░░░░░░░░░   0%     ");
        assert_eq!(line(20, 50.0, after(3)), "████░░░░░  50%   3s");
        assert_eq!(line(20, 25.0, after(61)), "██░░░░░░░  25%   3m");
        assert_eq!(line(20, 53.0, after(50)), "████░░░░░  53%  45s");
        assert_eq!(line(20, 1.0, after(360)), "░░░░░░░░░   1%   9h");
        assert_eq!(line(20, 99.999, after(1_000)), "████████░  99%   1s");
        assert_eq!(line(20, 100.0, after(9)), "█████████ 100%   0s");
    }

    #[test]
    fn a_narrow_terminal_has_figures_alone() {
        assert_eq!(line(4, 50.0, Duration::from_secs(2)), "  50%   2s");
        assert_eq!(line(0, 100.0, Duration::ZERO), " 100%   0s");
    }
}
