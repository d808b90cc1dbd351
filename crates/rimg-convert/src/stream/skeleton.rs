//! An image without its data, and sending it with the data in place.

use crate::error::ConvertError;
use crate::forward::Sink;
use crate::options::ConvertOptions;
use crate::runs::RunKind;
use crate::source::{SECTOR_BYTES, Source};
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, ExtentKind, ImageWrite, MetadataBudget, Result, Storage, StorageRun,
    StorageWrite, Zeroing, num, zeroes,
};
use rimg_storage::MemoryStorage;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file in memory in which zeroes take no room, though it says that it holds data everywhere:
/// what is written as zeroes now will be data.
#[derive(Debug)]
pub(super) struct Skeleton {
    memory: MemoryStorage,
    /// How many bytes of it may be something else than zeroes.
    most_bytes: u64,
}

impl Skeleton {
    pub(super) fn new(most_bytes: u64) -> Self {
        Self { memory: MemoryStorage::new(), most_bytes }
    }

    fn has_room(&self, more: usize) -> io::Result<()> {
        let used = self.memory.allocated_bytes()?.unwrap_or_default();
        if used.saturating_add(num::to_u64(more)) > self.most_bytes {
            let most = self.most_bytes >> 20;
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!(
                    "the metadata of an image in a pipe are held in memory, and may be {most} MiB"
                ),
            ));
        }
        Ok(())
    }
}

impl Storage for Skeleton {
    fn len_bytes(&self) -> io::Result<u64> {
        self.memory.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.memory.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun::data(self.memory.len_bytes()?.saturating_sub(at)))
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }
}

impl StorageWrite for Skeleton {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        if zeroes::is_zero(buf) {
            let end = at.saturating_add(num::to_u64(buf.len()));
            self.memory.write_zeroes_at(at..end, Zeroing::MayPunch)
        } else {
            self.has_room(buf.len())?;
            self.memory.write_all_at(buf, at)
        }
    }

    fn write_zeroes_at(&self, range: Range<u64>, _how: Zeroing) -> io::Result<()> {
        self.memory.write_zeroes_at(range, Zeroing::MayPunch)
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        self.memory.discard_at(range)
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.memory.set_len_bytes(len)
    }

    fn is_zero_where_unwritten(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What of the target will be written, from the source's map.
pub(super) struct Plan<'a> {
    source: &'a Source<'a>,
    /// Zeroes are told from data in pieces of this length and alignment.
    granule: u64,
    everything: bool,
}

/// As much is written in one call.
static ZEROES: [u8; 1 << 20] = [0; 1 << 20];

impl<'a> Plan<'a> {
    pub(super) fn new(source: &'a Source<'a>, options: &ConvertOptions) -> Self {
        let granule = u64::from(options.sparse_bytes).clamp(SECTOR_BYTES, 1 << 20);
        Self { source, granule, everything: options.sparse_bytes == 0 }
    }

    /// Writes zeroes to `image` wherever data will be.
    pub(super) fn carry_out(
        &self,
        image: &dyn BlockImage,
        cancel: &AtomicBool,
    ) -> Result<(), ConvertError> {
        let writer = image.writer().ok_or(ConvertError::ReadOnly)?;
        let size = self.source.size_bytes();
        let mut walk = self.source.walk(None);
        let (mut at, mut written) = (0, 0);
        while at < size {
            let run = walk.run_at(at, size).map_err(|source| ConvertError::Map { at, source })?;
            if self.everything || !matches!(run.kind, RunKind::Zero { .. }) {
                let start = (at - at % self.granule).max(written);
                let end = run.end.checked_next_multiple_of(self.granule).unwrap_or(run.end);
                let end = end.min(size);
                write(writer, start..end, cancel)?;
                written = written.max(end);
            }
            at = run.end;
        }
        writer.flush().map_err(|source| ConvertError::Target { doing: "laying out", source })
    }
}

fn write(
    writer: &dyn ImageWrite,
    range: Range<u64>,
    cancel: &AtomicBool,
) -> Result<(), ConvertError> {
    let mut at = range.start;
    while at < range.end {
        if cancel.load(Ordering::Relaxed) {
            return Err(ConvertError::Cancelled);
        }
        let len = range.end.saturating_sub(at).min(num::to_u64(ZEROES.len()));
        let zeroes = ZEROES.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
        writer
            .write_at(zeroes, at)
            .map_err(|source| ConvertError::Target { doing: "laying out", source })?;
        at = at.saturating_add(len);
    }
    Ok(())
}

/// Where the guest's bytes lie, in ascending order of both.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

#[derive(Debug, Clone, Copy)]
struct Place {
    guest: u64,
    host: u64,
    len: u64,
}

/// How much memory a place takes, with what a growing list keeps in reserve.
const PLACE_BYTES: u64 = num::to_u64(2 * size_of::<Place>());

impl Places {
    /// The places of `image`, as many as `budget` has memory for.
    pub(super) fn of(image: &dyn BlockImage, budget: &mut MetadataBudget) -> Result<Self> {
        let size = image.size_bytes();
        let mut places: Vec<Place> = Vec::new();
        let mut at = 0;
        while at < size {
            let extent = image.extent_at(at..size)?;
            match extent.kind {
                ExtentKind::Data(place) if place.file == 0 => {
                    let next = Place { guest: at, host: place.host.0, len: extent.len_bytes };
                    match places.last_mut() {
                        Some(last) if last.host.saturating_add(last.len) > next.host => {
                            return Err(not_streamable(
                                "data that does not lie in the disk's order",
                            ));
                        }
                        Some(last) if last.is_followed_by(&next) => {
                            last.len = last.len.saturating_add(next.len);
                        }
                        _ => {
                            budget.reserve("places of data in a pipe", PLACE_BYTES)?;
                            places.push(next);
                        }
                    }
                }
                ExtentKind::Zero { .. } | ExtentKind::Backing { .. } => {}
                _ => return Err(not_streamable("encrypted data")),
            }
            at = at.saturating_add(extent.len_bytes.max(1));
        }
        Ok(Self(places))
    }
}

impl Place {
    fn is_followed_by(&self, next: &Self) -> bool {
        self.guest.saturating_add(self.len) == next.guest
            && self.host.saturating_add(self.len) == next.host
    }
}

fn not_streamable(what: &str) -> Error {
    Error::Denied(format!("{what} cannot be streamed"))
}

/// Sends the file, from its start to its end.
pub(super) struct Sending<'a> {
    skeleton: Arc<Skeleton>,
    places: std::iter::Peekable<std::vec::IntoIter<Place>>,
    out: Box<dyn Write + Send>,
    /// How much was sent.
    sent: u64,
    cancel: &'a AtomicBool,
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        skeleton: Arc<Skeleton>,
        places: Places,
        out: Box<dyn Write + Send>,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self { skeleton, places: places.0.into_iter().peekable(), out, sent: 0, cancel }
    }

    /// Sends what is left when all data has come.
    pub(super) fn finish(mut self) -> Result<()> {
        let end = self.skeleton.len_bytes().map_err(Error::io("lay out", 0))?;
        self.send_to(end)?;
        self.out.flush().map_err(Error::io("write", self.sent))
    }

    /// Sends metadata, and zeroes where nothing is.
    fn send_to(&mut self, host: u64) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.sent < host {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let run =
                self.skeleton.memory.run_at(self.sent).map_err(Error::io("lay out", self.sent))?;
            let room = if run.is_data { buffer.len() } else { ZEROES.len() };
            let len = run.len_bytes.min(host.saturating_sub(self.sent)).min(num::to_u64(room));
            let len = num::to_usize(len)?;
            if run.is_data {
                let bytes = buffer.get_mut(..len).unwrap_or_default();
                let read = self.skeleton.memory.read_exact_at(bytes, self.sent);
                read.map_err(Error::io("lay out", self.sent))?;
                send(&mut self.out, bytes, &mut self.sent)?;
            } else {
                send(&mut self.out, ZEROES.get(..len).unwrap_or_default(), &mut self.sent)?;
            }
        }
        Ok(())
    }
}

fn send(out: &mut dyn Write, bytes: &[u8], sent: &mut u64) -> Result<()> {
    out.write_all(bytes).map_err(Error::io("write", *sent))?;
    *sent = sent.saturating_add(num::to_u64(bytes.len()));
    Ok(())
}

impl Sink for Sending<'_> {
    fn data(&mut self, bytes: &[u8], at: u64) -> Result<()> {
        let (mut bytes, mut at) = (bytes, at);
        while !bytes.is_empty() {
            let ends_before = |place: &Place| place.guest.saturating_add(place.len) <= at;
            while self.places.next_if(ends_before).is_some() {}
            let (len, host) = match self.places.peek() {
                Some(place) if place.guest <= at => {
                    let within = at.saturating_sub(place.guest);
                    (place.len.saturating_sub(within), Some(place.host.saturating_add(within)))
                }
                Some(place) => (place.guest.saturating_sub(at), None),
                None => (u64::MAX, None),
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(len);
            match host {
                Some(host) => {
                    self.send_to(host)?;
                    send(&mut self.out, now, &mut self.sent)?;
                }
                None if zeroes::is_zero(now) => {}
                None => return Err(Error::Misuse("data where the source had none before")),
            }
            at = at.saturating_add(num::to_u64(len));
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_have_a_bound() -> io::Result<()> {
        let skeleton = Skeleton::new(16 << 10);
        // Zeroes take no room, however many there are.
        for at in 0..100 {
            skeleton.write_all_at(&[0; 4096], at * 4096)?;
        }
        for at in 0..4 {
            skeleton.write_all_at(&[1; 4096], at << 40)?;
        }
        let error = skeleton.write_all_at(&[1; 4096], 4 << 40).map_err(|error| error.kind());
        assert_eq!(error, Err(io::ErrorKind::OutOfMemory));
        Ok(())
    }
}
