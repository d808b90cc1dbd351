//! One or more images read as one disk.

use crate::runs::{Chain, Run, RunKind};
use crate::unit::{Origin, Piece};
use core::ops::Range;
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, Result};

/// Where an image begins when several are put behind each other: disks are counted in sectors.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// The images and where each one begins.
pub(crate) struct Source<'a> {
    parts: Vec<Part<'a>>,
    size_bytes: u64,
    /// Whether somebody wants to hear what the images do.
    is_watched: bool,
}

struct Part<'a> {
    image: &'a dyn BlockImage,
    start: u64,
    /// Where the image ends; zeroes follow up to the next sector.
    end: u64,
    /// What lies at `start` lies here in the image.
    from: u64,
}

impl<'a> Source<'a> {
    pub(crate) fn new(images: &[&'a dyn BlockImage]) -> Self {
        let mut start = 0_u64;
        let mut parts = Vec::with_capacity(images.len());
        let mut size_bytes = 0;
        for &image in images {
            let end = start.saturating_add(image.size_bytes());
            parts.push(Part { image, start, end, from: 0 });
            size_bytes = end;
            start = end.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(end);
        }
        let is_watched = images.iter().any(|image| is_watched(*image));
        Self { parts, size_bytes, is_watched }
    }

    /// A part of one image.
    pub(crate) fn range(image: &'a dyn BlockImage, range: Range<u64>) -> Self {
        let end = range.end.min(image.size_bytes()).saturating_sub(range.start);
        let part = Part { image, start: 0, end, from: range.start };
        Self { parts: vec![part], size_bytes: end, is_watched: is_watched(image) }
    }

    /// As much of it from the start on.
    pub(crate) fn up_to(mut self, max_bytes: Option<u64>) -> Self {
        self.size_bytes = max_bytes.unwrap_or(u64::MAX).min(self.size_bytes);
        self
    }

    /// The size in bytes, to the end of the last image unless it was bounded.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buf` with guest data from `at`, with zeroes where there is no image.
    pub(crate) fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let mut buf = buf;
        let mut at = at;
        while !buf.is_empty() {
            let Some((part, end)) = self.part_at(at) else {
                buf.fill(0);
                return Ok(());
            };
            let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
            let (now, rest) = buf.split_at_mut(len);
            match part {
                Some(part) => {
                    let within = at.saturating_sub(part.start);
                    part.image.read_at(now, part.from.saturating_add(within))?;
                }
                None => now.fill(0),
            }
            buf = rest;
            at = at.saturating_add(to_u64(len));
        }
        Ok(())
    }

    /// Fills `buf` with the bytes of `piece`.
    pub(crate) fn read_piece(&self, piece: &Piece<'_>, buf: &mut [u8]) -> Result<()> {
        match piece.origin {
            Origin::Fill => {
                buf.fill(0);
                return Ok(());
            }
            Origin::File { image, at } => {
                // Where it lies is known: finding it again is the more expensive the deeper the
                // chain is. What fails is left to the image, which knows what lies behind the end
                // of a file that was cut off.
                if let Some(file) = image.file(at.file)
                    && !self.is_watched
                    && !file.listens()
                    && file.read_exact_at(buf, at.host.0).is_ok()
                {
                    return Ok(());
                }
            }
            Origin::Encoded(_) | Origin::Source => {}
        }
        self.read_at(buf, piece.at)
    }

    /// The image around `at`, or none in the padding between two; and where that ends. `None`
    /// behind the last image.
    fn part_at(&self, at: u64) -> Option<(Option<&Part<'a>>, u64)> {
        let index = self.parts.partition_point(|part| part.end <= at);
        let part = self.parts.get(index)?;
        Some(if part.start <= at { (Some(part), part.end) } else { (None, part.start) })
    }

    /// Looks from the start to the end at what lies where.
    pub(crate) fn walk(&self, shared_from: Option<usize>) -> Walk<'a> {
        let chain = |part: &Part<'a>| WalkPart {
            chain: Chain::new(part.image, shared_from),
            start: part.start,
            end: part.end,
            from: part.from,
        };
        Walk { parts: self.parts.iter().map(chain).collect(), current: 0 }
    }
}

fn is_watched(image: &dyn BlockImage) -> bool {
    image.file(0).is_some_and(|file| file.listens())
}

/// A position that only moves forward.
pub(crate) struct Walk<'a> {
    parts: Vec<WalkPart<'a>>,
    current: usize,
}

struct WalkPart<'a> {
    chain: Chain<'a>,
    start: u64,
    end: u64,
    from: u64,
}

impl<'a> Walk<'a> {
    /// What lies at `at`, which is no less than the last time, up to `end` at most.
    pub(crate) fn run_at(&mut self, at: u64, end: u64) -> Result<Run<'a>> {
        const NOTHING: RunKind<'_> = RunKind::Zero { allocation: None, depth: None };
        while let Some(part) = self.parts.get_mut(self.current) {
            if part.end <= at {
                self.current += 1;
            } else if at < part.start {
                return Ok(Run { end: part.start.min(end), kind: NOTHING });
            } else {
                let end = part.end.min(end);
                let within = |at: u64| (at - part.start).saturating_add(part.from);
                let run = part.chain.run_at(within(at), within(end))?;
                let end = run.end.saturating_sub(part.from).saturating_add(part.start);
                return Ok(Run { end, ..run });
            }
        }
        Ok(Run { end, kind: NOTHING })
    }
}
