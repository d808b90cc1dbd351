//! Reading guest data, part by part.

use crate::image::{Body, Part, VmdkImage, part_at};
use rimg_core::{Error, Result, num};

impl VmdkImage {
    pub(crate) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len())).ok_or(Error::Misuse("offset overflow"))?;
        self.check_range(&(at..end))?;
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let part = part_at(&self.parts, at)?;
            let there = part.end().saturating_sub(at).min(num::to_u64(rest.len()));
            let (now, later) = rest.split_at_mut(num::to_usize(there)?);
            self.read_part(part, now, at.saturating_sub(part.start))?;
            at = at.saturating_add(there);
            rest = later;
        }
        Ok(())
    }

    /// Reads from a part; `at` counts from its start.
    fn read_part(&self, part: &Part, buf: &mut [u8], at: u64) -> Result<()> {
        match &part.body {
            Body::Flat { at: start } => {
                let host = start.saturating_add(at);
                self.storage(part.file)?
                    .read_exact_at(buf, host)
                    .map_err(Error::io("read data", host))
            }
            Body::Zero => {
                buf.fill(0);
                Ok(())
            }
            Body::Grains(blocks) => blocks.read_at(buf, at),
            Body::Stream(stream) => stream.blocks.read_at(buf, at),
            Body::Absent => Err(Error::Misuse("the extent was not opened")),
        }
    }

    /// The size of grains, where all extents agree.
    pub(crate) fn grain_bytes(&self) -> Option<u64> {
        let mut sizes = self.parts.iter().map(Part::grain_bytes);
        let first = sizes.next().flatten()?;
        sizes.all(|size| size == Some(first)).then_some(first)
    }
}

impl Part {
    pub(crate) fn grain_bytes(&self) -> Option<u64> {
        match &self.body {
            Body::Grains(blocks) => Some(blocks.block_bytes()),
            Body::Stream(stream) => Some(stream.blocks.block_bytes()),
            Body::Flat { .. } | Body::Zero | Body::Absent => None,
        }
    }
}
