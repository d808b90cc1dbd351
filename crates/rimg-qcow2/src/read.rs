//! Reading guest data: places are resolved under the lock, bytes are fetched outside it.
#![warn(clippy::indexing_slicing)]

use crate::cache::read_padded;
use crate::error::CorruptKind;
use crate::image::{Access, Qcow2Image};
use crate::inflight::Reading;
use crate::map::{Place, Run};
use core::ops::Range;
use rimg_codec::Decoder;
use rimg_core::{Error, HostOffset, Result, num};
use std::sync::{Mutex, PoisonError};

/// So many runs are resolved before the lock is let go.
const RUNS_AT_ONCE: usize = 64;
/// Neighbouring compressed clusters are fetched together, up to so many bytes.
const MAX_FETCH_BYTES: u64 = 1 << 20;
/// Compressed clusters are neighbours when no more than this lies between them.
const MAX_GAP_BYTES: u64 = 4 << 10;

/// What decoding compressed clusters needs, kept for the next reader.
#[derive(Debug, Default)]
pub(crate) struct DecodePool(Mutex<Vec<DecodeScratch>>);

#[derive(Debug, Default)]
struct DecodeScratch {
    decoder: Decoder,
    encoded: Vec<u8>,
    cluster: Vec<u8>,
}

impl DecodePool {
    fn take(&self) -> DecodeScratch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put(&self, scratch: DecodeScratch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

impl Qcow2Image {
    pub(crate) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len())).ok_or(Error::Misuse("offset overflow"))?;
        let mut runs = Vec::new();
        let mut rest = buf;
        let mut at = at;
        loop {
            let _reading = self.resolve(at..end, &mut runs)?;
            if runs.is_empty() {
                return Ok(());
            }
            let resolved: u64 = runs.iter().map(|run| run.len).sum();
            let (now, later) = rest
                .split_at_mut_checked(num::to_usize(resolved)?)
                .ok_or(Error::Misuse("resolved more than asked"))?;
            self.fetch(now, at, &runs)?;
            rest = later;
            at = at.saturating_add(resolved);
        }
    }

    /// Collects the next runs of `range`. While the answer is held, nobody uses their places for
    /// something else.
    fn resolve(&self, range: Range<u64>, runs: &mut Vec<Run>) -> Result<Option<Reading<'_>>> {
        runs.clear();
        self.check_range(&range)?;
        let mut state = self.lock()?;
        let mut at = range.start;
        while at < range.end && runs.len() < RUNS_AT_ONCE {
            let run = self.run_at(&mut state, at..range.end)?;
            at = at.saturating_add(run.len);
            runs.push(run);
        }
        Ok((self.access == Access::Write).then(|| self.readers.enter()))
    }

    fn fetch(&self, buf: &mut [u8], at: u64, runs: &[Run]) -> Result<()> {
        let mut rest = buf;
        let mut at = at;
        let mut runs = runs;
        while let [run, after @ ..] = runs {
            let together = if matches!(run.place, Place::Compressed { .. }) {
                1 + neighbours(run, after)
            } else {
                1
            };
            let (group, later_runs) = runs.split_at_checked(together).unwrap_or((runs, &[]));
            let len: u64 = group.iter().map(|run| run.len).sum();
            let (now, later) = rest
                .split_at_mut_checked(num::to_usize(len)?)
                .ok_or(Error::Misuse("runs longer than the buffer"))?;
            match run.place {
                Place::Data { host } => self.fetch_data(now, at, host)?,
                Place::Zero { .. } => now.fill(0),
                Place::Backing { .. } => self.fetch_backing(now, at)?,
                Place::Compressed { .. } => self.fetch_compressed(now, at, group)?,
            }
            rest = later;
            at = at.saturating_add(len);
            runs = later_runs;
        }
        Ok(())
    }

    /// Reads bytes of the data file as they are.
    pub(crate) fn fetch_bytes(&self, buf: &mut [u8], host: u64) -> Result<()> {
        let (file, _) = self.data();
        file.note("read_aio");
        match file.read_exact_at(buf, host) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(Error::io("read data cluster", host)(error)),
        }
        // The last cluster of a file may be cut off where nothing was written; one that lies
        // behind the end altogether was lost.
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let reach = num::align_up(len, self.geometry.cluster_bytes()).unwrap_or(u64::MAX);
        if self.data_file.is_none() && host.saturating_add(num::to_u64(buf.len())) > reach {
            return Err(CorruptKind::BehindEnd(host).at("data cluster", "bytes", host));
        }
        read_padded(file, buf, host).map_err(Error::io("read data cluster", host))
    }

    /// Reads from the image below; what it is too short for reads as zeroes.
    pub(crate) fn fetch_backing(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let Some(backing) = &self.backing else {
            if self.backing_left_out {
                return Err(Error::Denied("the backing file was not opened".into()));
            }
            buf.fill(0);
            return Ok(());
        };
        self.file.note("read_backing_aio");
        let there = backing.size_bytes().saturating_sub(at);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let (below, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        if below.is_empty() { Ok(()) } else { backing.read_at(below, at) }
    }

    /// Fetches compressed clusters that lie next to each other in one go and decodes them.
    fn fetch_compressed(&self, buf: &mut [u8], at: u64, group: &[Run]) -> Result<()> {
        let mut scratch = self.decoders.take();
        let result = self.decode_group(buf, at, group, &mut scratch);
        self.decoders.put(scratch);
        result
    }

    fn decode_group(
        &self,
        buf: &mut [u8],
        at: u64,
        group: &[Run],
        scratch: &mut DecodeScratch,
    ) -> Result<()> {
        let Some((start, mut end)) = group.first().and_then(span) else { return Ok(()) };
        for run in group {
            end = end.max(span(run).map_or(end, |span| span.1));
        }
        scratch.encoded.resize(num::to_usize(end.saturating_sub(start))?, 0);
        self.file.note("read_compressed");
        // The length is in sectors and may reach past the end of the file.
        read_padded(self.file.as_ref(), &mut scratch.encoded, start)
            .map_err(Error::io("read compressed cluster", start))?;
        let mut rest = buf;
        let mut at = at;
        for run in group {
            let Some((host, host_end)) = span(run) else { continue };
            let within = host.saturating_sub(start)..host_end.saturating_sub(start);
            let encoded = scratch
                .encoded
                .get(num::to_usize(within.start)?..num::to_usize(within.end)?)
                .unwrap_or_default();
            let (now, later) = rest
                .split_at_mut_checked(num::to_usize(run.len)?)
                .ok_or(Error::Misuse("runs longer than the buffer"))?;
            let wrong = |source: rimg_codec::DecodeError| Error::Decode {
                codec: self.codec,
                host: HostOffset(host),
                source: Box::new(source),
            };
            if run.len == self.geometry.cluster_bytes() {
                scratch.decoder.decode(self.codec, encoded, now).map_err(wrong)?;
            } else {
                scratch.cluster.resize(num::to_usize(self.geometry.cluster_bytes())?, 0);
                scratch.decoder.decode(self.codec, encoded, &mut scratch.cluster).map_err(wrong)?;
                let from = num::to_usize(self.geometry.in_cluster(at))?;
                let piece = scratch.cluster.get(from..).and_then(|rest| rest.get(..now.len()));
                now.copy_from_slice(piece.ok_or(Error::Misuse("run longer than its cluster"))?);
            }
            rest = later;
            at = at.saturating_add(run.len);
        }
        Ok(())
    }
}

/// How many of the runs in `after` lie right behind `run` in the file.
fn neighbours(run: &Run, after: &[Run]) -> usize {
    let Some((start, mut end)) = span(run) else { return 0 };
    after
        .iter()
        .take_while(|next| match span(next) {
            Some((host, host_end))
                if host >= start
                    && host <= end.saturating_add(MAX_GAP_BYTES)
                    && host_end.saturating_sub(start) <= MAX_FETCH_BYTES =>
            {
                end = end.max(host_end);
                true
            }
            _ => false,
        })
        .count()
}

/// The bytes of the file that a compressed run is made from.
fn span(run: &Run) -> Option<(u64, u64)> {
    match run.place {
        Place::Compressed { host, len } => Some((host, host.saturating_add(len))),
        _ => None,
    }
}
