//! What an image says of a run beside its contents, as strict comparison sees it.

use crate::runs::{Run, RunKind};
use crate::source::Walk;
use rimg_core::{BlockImage, FileOffset, Result};

/// What has to agree in strict mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    zero: bool,
    allocated: bool,
    encoded: bool,
    /// Whether the run has a place in a file.
    placed: bool,
    /// Whether the run is the image's last: qemu-img counts that as well.
    last: bool,
}

/// A status and how far it reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusRun {
    pub(super) status: Status,
    pub(super) end: u64,
}

/// Walks an image by runs of the same status that are contiguous in their file.
pub(super) struct StatusWalk<'a> {
    walk: Walk<'a>,
    size: u64,
    current: Option<StatusRun>,
    /// Already taken from the walk, and begins where `current` ends.
    ahead: Option<Run<'a>>,
}

impl<'a> StatusWalk<'a> {
    /// `size` is the image's, in bytes.
    pub(super) fn new(walk: Walk<'a>, size: u64) -> Self {
        Self { walk, size, current: None, ahead: None }
    }

    /// The run around `at`, which is no less than the last time. The last one has no end: images
    /// count in whole sectors.
    pub(super) fn at(&mut self, at: u64) -> Result<StatusRun> {
        loop {
            match self.current {
                Some(run) if at < run.end => return Ok(run),
                Some(run) => self.advance(run.end)?,
                None => self.advance(0)?,
            }
        }
    }

    fn advance(&mut self, start: u64) -> Result<()> {
        let mut last = match self.ahead.take() {
            Some(run) => run,
            None => self.walk.run_at(start, self.size)?,
        };
        let mut last_start = start;
        while last.end < self.size {
            let next = self.walk.run_at(last.end, self.size)?;
            if !continues(&last, last_start, &next) {
                self.ahead = Some(next);
                break;
            }
            last_start = last.end;
            last = next;
        }
        let is_last = last.end >= self.size;
        let end = if is_last { u64::MAX } else { last.end };
        self.current = Some(StatusRun { status: status(&last.kind, is_last), end });
        Ok(())
    }
}

fn status(kind: &RunKind<'_>, last: bool) -> Status {
    let (zero, allocated) = match kind {
        RunKind::Zero { depth, .. } => (true, depth.is_some()),
        _ => (false, true),
    };
    let encoded = matches!(kind, RunKind::Encoded(_));
    Status { zero, allocated, encoded, placed: place(kind).is_some(), last }
}

/// Where a run lies in a file, byte for byte.
fn place<'a>(kind: &RunKind<'a>) -> Option<(Option<&'a dyn BlockImage>, FileOffset)> {
    match *kind {
        RunKind::Data { image, at } => Some((Some(image), at)),
        RunKind::Zero { allocation: Some(at), .. } => Some((None, at)),
        _ => None,
    }
}

/// Whether `next`, which follows on `last`, is of the same kind and where `last` ends.
fn continues(last: &Run<'_>, last_start: u64, next: &Run<'_>) -> bool {
    if status(&last.kind, false) != status(&next.kind, false) {
        return false;
    }
    match (place(&last.kind), place(&next.kind)) {
        (Some((image, at)), Some((next_image, next_at))) => {
            let same_image = match (image, next_image) {
                (Some(image), Some(next_image)) => std::ptr::addr_eq(image, next_image),
                (None, None) => true,
                _ => false,
            };
            let len = last.end.saturating_sub(last_start);
            same_image
                && at.file == next_at.file
                && at.host.0.checked_add(len) == Some(next_at.host.0)
        }
        (None, None) => true,
        _ => false,
    }
}
