//! Writes: in place where the block is there, into a new place where it is not.

use crate::claims::Kind;
use crate::engine::{Blocks, State};
use crate::read::whole_sectors;
use crate::{Below, BlockMap, Place, SectorCipher};
use core::ops::Range;
use core::sync::atomic::Ordering;
use rimg_core::{Error, ExtentKind, ImageWrite, Result, StorageWrite, Zeroing, num, zeroes};

/// Blocks of up to this size are put together in memory and written at once; what is left of
/// larger ones is copied in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// How the bytes of a write get into the file.
#[derive(Debug)]
enum Job {
    /// To where they are already.
    InPlace { host: u64 },
    /// As well, but together with the rest of the sectors that are encrypted as one.
    Sectors { host: u64 },
    /// To new places.
    Fill(Run),
}

/// Blocks that follow each other on the disk and in the file.
#[derive(Debug)]
struct Run {
    blocks: Range<u64>,
    /// Of the first one.
    place: Place,
    /// Whether what the write leaves open reads as zeroes so far.
    rest_is_zero: bool,
}

impl<M: BlockMap> ImageWrite for Blocks<M> {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.storage_writer()?;
        let end = at.checked_add(num::to_u64(buf.len()));
        if end.is_none_or(|end| end > self.size_bytes()) {
            return Err(Error::Misuse("write behind the end of the disk"));
        }
        self.write(buf, at)?;
        self.flush_when_much_is_dirty()
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.storage_writer()?;
        if range.end > self.size_bytes() {
            return Err(Error::Misuse("zeroes behind the end of the disk"));
        }
        self.zero(range)?;
        self.flush_when_much_is_dirty()
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        self.storage_writer()?;
        if range.end > self.size_bytes() {
            return Err(Error::Misuse("discard behind the end of the disk"));
        }
        self.discard(range)?;
        self.flush_when_much_is_dirty()
    }

    fn flush(&self) -> Result<()> {
        self.relaxed.store(false, Ordering::Release);
        self.flush_pass(false)
    }

    fn finish(&self) -> Result<()> {
        self.relaxed.store(false, Ordering::Release);
        // Nobody is to begin a change while the image is marked clean.
        let claim = self.claim_all();
        let finished = self.flush_pass(true);
        self.give_back(claim);
        finished
    }

    fn places_in_order(&self) -> bool {
        true
    }

    /// Where nothing has a place, or nobody wrote to the places: what a device holds there is not
    /// known.
    fn is_zero_initialised(&self) -> bool {
        let in_file = self.storage_writer().is_ok_and(StorageWrite::is_zero_where_unwritten);
        let has_nothing = || {
            let mut state = self.lock();
            let disk = 0..state.map.size_bytes();
            state.map.extent(disk.clone()).is_ok_and(|extent| {
                let is_whole = extent.len_bytes >= disk.end;
                is_whole
                    && matches!(extent.kind, ExtentKind::Zero { .. } | ExtentKind::Backing { .. })
            })
        };
        matches!(self.below, Below::Nothing) && (in_file || has_nothing())
    }

    fn relax_until_flush(&self) {
        self.relaxed.store(true, Ordering::Release);
    }
}

impl<M: BlockMap> Blocks<M> {
    pub(crate) fn write(&self, buf: &[u8], at: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            let done = self.write_some(rest, at)?;
            rest = rest.get(done..).unwrap_or_default();
            at = at.saturating_add(num::to_u64(done));
        }
        Ok(())
    }

    /// Writes a part from the start of `buf`, and returns its length.
    fn write_some(&self, buf: &[u8], at: u64) -> Result<usize> {
        let mut state = self.usable()?;
        let (claim, len, job) = loop {
            // The disk may have become shorter while this write waited.
            let range = at..at.saturating_add(num::to_u64(buf.len()));
            let (kind, blocks) = self.claim_for(&mut state, &range)?;
            if !state.claims.stand_against(&blocks, kind) {
                // Not before: who finishes the image has claimed all of it.
                self.begin(&mut state)?;
                let (len, job) = self.job(&mut state, range)?;
                let end = at.saturating_add(len);
                let claim = state.claims.add(self.blocks_of(&(at..end)), kind);
                break (claim, len, job);
            }
            state = self.wait(state);
            state.refuse_outdated()?;
        };
        drop(state);
        let len = num::to_usize(len)?;
        let result = self.run(job, buf.get(..len).unwrap_or(buf), at);
        self.give_back(claim);
        result.map(|()| len)
    }

    /// As [`write`](Self::write), by somebody who has claimed all that it touches.
    pub(crate) fn write_claimed(&self, buf: &[u8], at: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            let end = at.saturating_add(num::to_u64(rest.len()));
            let (len, job) = self.job(&mut self.lock(), at..end)?;
            let (piece, behind) = rest.split_at(num::to_usize(len)?.min(rest.len()));
            self.run(job, piece, at)?;
            at = at.saturating_add(len);
            rest = behind;
        }
        Ok(())
    }

    /// Gives `block` a new place, with the contents that it has; by somebody who has claimed it.
    pub(crate) fn move_claimed(&self, block: u64) -> Result<()> {
        let run = {
            let mut state = self.lock();
            let place = state.map.place(block)?;
            let run = Run { blocks: block..block.saturating_add(1), place, rest_is_zero: false };
            self.make_room(&mut state, &run)?;
            run
        };
        let at = block.saturating_mul(self.block_bytes);
        self.run(Job::Fill(run), &[], at)
    }

    /// What a write of the start of `range` has to claim at least.
    fn claim_for(&self, state: &mut State<M>, range: &Range<u64>) -> Result<(Kind, Range<u64>)> {
        if range.end > state.map.size_bytes() {
            return Err(Error::Misuse("write behind the end of the disk"));
        }
        let extent = state.map.extent(range.clone())?;
        let end = range.start.saturating_add(extent.len_bytes);
        Ok(match extent.kind {
            ExtentKind::Data(_) if self.is_whole_sectors(&(range.start..end)) => {
                (Kind::Shared, self.blocks_of(&(range.start..end)))
            }
            _ => {
                let block = range.start / self.block_bytes;
                (Kind::Exclusive, block..block.saturating_add(1))
            }
        })
    }

    /// How to write the start of `range`, and how much of it.
    fn job(&self, state: &mut State<M>, range: Range<u64>) -> Result<(u64, Job)> {
        let extent = state.map.extent(range.clone())?;
        let end = range.start.saturating_add(extent.len_bytes);
        if let ExtentKind::Data(place) = extent.kind {
            let host = place.host.0;
            if self.is_whole_sectors(&(range.start..end)) {
                return Ok((extent.len_bytes, Job::InPlace { host }));
            }
            let block = range.start / self.block_bytes;
            let end = end.min(self.range_of(block, state.map.size_bytes()).end);
            return Ok((end.saturating_sub(range.start), Job::Sectors { host }));
        }
        let run = self.place_run(state, &range)?;
        let end = run.blocks.end.saturating_mul(self.block_bytes).min(range.end);
        Ok((end.saturating_sub(range.start), Job::Fill(run)))
    }

    fn is_whole_sectors(&self, range: &Range<u64>) -> bool {
        self.cipher.as_ref().is_none_or(|cipher| {
            let sector = u64::from(cipher.sector_bytes());
            range.start.is_multiple_of(sector) && range.end.is_multiple_of(sector)
        })
    }

    /// Places for the block at the start of `range`, and for those behind it that are written
    /// whole as well and can lie right behind it.
    fn place_run(&self, state: &mut State<M>, range: &Range<u64>) -> Result<Run> {
        let size = state.map.size_bytes();
        let is_whole = |block| {
            let block = self.range_of(block, size);
            range.start <= block.start && block.start < range.end && block.end <= range.end
        };
        let first = range.start / self.block_bytes;
        let rest_is_zero = is_whole(first) || self.reads_zero(state, self.range_of(first, size))?;
        let place = state.map.place(first)?;
        let mut run = Run { blocks: first..first.saturating_add(1), place, rest_is_zero };
        while is_whole(first) && is_whole(run.blocks.end) {
            let next = run.blocks.end;
            let host = run.host_of(next, self.block_bytes);
            if state.claims.stand_against(&(next..next.saturating_add(1)), Kind::Exclusive)
                || matches!(
                    state.map.extent(self.range_of(next, size)).map(|extent| extent.kind),
                    Ok(ExtentKind::Data(_)) | Err(_)
                )
            {
                break;
            }
            // What keeps it from getting one comes out when its own turn has come.
            let Ok(place) = state.map.place(next) else { break };
            if place != (Place { host, is_zeroed: run.place.is_zeroed }) {
                state.map.unplace(next, place);
                break;
            }
            run.blocks.end = next.saturating_add(1);
        }
        self.make_room(state, &run)?;
        Ok(run)
    }

    /// Makes the file so long that the places are inside: what is not written of them is zeroes.
    fn make_room(&self, state: &mut State<M>, run: &Run) -> Result<()> {
        let end = run.host_of(run.blocks.end, self.block_bytes);
        if state.len_bytes >= end {
            return Ok(());
        }
        let grown = self.storage_writer().and_then(|writer| {
            writer.set_len_bytes(end).map_err(Error::io("make the file longer", end))
        });
        match grown {
            Ok(()) => state.len_bytes = end,
            Err(_) => self.unplace(state, run, run.blocks.start),
        }
        grown
    }

    fn unplace(&self, state: &mut State<M>, run: &Run, from: u64) {
        for block in (from..run.blocks.end).rev() {
            let host = run.host_of(block, self.block_bytes);
            state.map.unplace(block, Place { host, ..run.place });
        }
    }

    /// Whether `range` reads as zeroes, as far as tables tell.
    pub(crate) fn reads_zero(&self, state: &mut State<M>, range: Range<u64>) -> Result<bool> {
        let mut at = range.start;
        while at < range.end {
            let extent = state.map.extent(at..range.end)?;
            if !self.is_zero(extent.kind, at) {
                return Ok(false);
            }
            at = at.saturating_add(extent.len_bytes.max(1));
        }
        Ok(true)
    }

    /// Whether a run of this kind at `at` reads as zeroes.
    pub(crate) fn is_zero(&self, kind: ExtentKind, at: u64) -> bool {
        match kind {
            ExtentKind::Zero { .. } => true,
            ExtentKind::Backing { .. } => match &self.below {
                Below::Nothing => true,
                Below::LeftOut => false,
                Below::Image(below) => below.size_bytes() <= at,
            },
            _ => false,
        }
    }

    fn run(&self, job: Job, buf: &[u8], at: u64) -> Result<()> {
        let run = match job {
            Job::InPlace { host } => return self.put(buf, host, at),
            Job::Sectors { host } => return self.put_sectors(buf, host, at),
            Job::Fill(run) => run,
        };
        let filled = self.fill(&run, buf, at);
        let mut state = self.lock();
        if filled.is_err() {
            self.unplace(&mut state, &run, run.blocks.start);
            return filled;
        }
        for block in run.blocks.clone() {
            let host = run.host_of(block, self.block_bytes);
            match state.map.set_data(block, Place { host, ..run.place }) {
                Ok(freed) => state.readers.let_go(freed),
                Err(error) => {
                    self.unplace(&mut state, &run, block);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes `buf` and what it leaves open of its blocks.
    fn fill(&self, run: &Run, buf: &[u8], at: u64) -> Result<()> {
        let start = run.blocks.start.saturating_mul(self.block_bytes);
        let end = run.blocks.end.saturating_mul(self.block_bytes);
        let behind = at.saturating_add(num::to_u64(buf.len()));
        let host_of = |at: u64| run.place.host.saturating_add(at.saturating_sub(start));
        let stays_zero = run.rest_is_zero && run.place.is_zeroed && self.cipher.is_none();
        if stays_zero || (at == start && behind == end) {
            return self.put(buf, host_of(at), at);
        }
        let whole_bytes = num::to_usize(end.saturating_sub(start))?;
        if whole_bytes <= PIECE_BYTES {
            let mut whole = vec![0; whole_bytes];
            let ahead = num::to_usize(at.saturating_sub(start))?;
            let (head, rest) = whole.split_at_mut(ahead);
            let (middle, tail) = rest.split_at_mut(buf.len());
            self.read_old(head, start)?;
            middle.copy_from_slice(buf);
            self.read_old(tail, behind)?;
            return self.put(&whole, host_of(start), start);
        }
        let is_zeroed = run.place.is_zeroed;
        self.copy_old(start..at, host_of(start), is_zeroed)?;
        self.put(buf, host_of(at), at)?;
        self.copy_old(behind..end, host_of(behind), is_zeroed)
    }

    /// What the guest sees at `at`; zeroes behind the end of the disk.
    fn read_old(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let there = self.size_bytes().saturating_sub(at).min(num::to_u64(buf.len()));
        // A new block's rest is zeroes already; a buffer that is used again is not.
        let (inside, behind) = buf.split_at_mut(num::to_usize(there)?);
        behind.fill(0);
        if inside.is_empty() { Ok(()) } else { self.read_at(inside, at) }
    }

    /// Copies what the guest sees in `range` to `host`.
    fn copy_old(&self, range: Range<u64>, host: u64, is_zeroed: bool) -> Result<()> {
        let mut buf =
            vec![0; num::to_usize(range.end.saturating_sub(range.start))?.min(PIECE_BYTES)];
        let (mut at, mut host) = (range.start, host);
        while at < range.end {
            let left = num::to_usize(range.end.saturating_sub(at))?;
            let len = left.min(buf.len());
            let piece = buf.get_mut(..len).unwrap_or_default();
            self.read_old(piece, at)?;
            let (at_end, host_end) =
                (at.saturating_add(num::to_u64(len)), host.saturating_add(num::to_u64(len)));
            if self.cipher.is_some() || !zeroes::is_zero(piece) {
                self.put(piece, host, at)?;
            } else if !is_zeroed {
                self.storage_writer()?
                    .write_zeroes_at(host..host_end, Zeroing::MayPunch)
                    .map_err(Error::io("write zeroes", host))?;
            }
            (at, host) = (at_end, host_end);
        }
        Ok(())
    }

    /// Writes guest bytes, whole sectors of them where they are encrypted.
    pub(crate) fn put(&self, buf: &[u8], host: u64, at: u64) -> Result<()> {
        let writer = self.storage_writer()?;
        let write = |bytes: &[u8], host| {
            writer.write_all_at(bytes, host).map_err(Error::io("write data", host))
        };
        let Some(cipher) = &self.cipher else {
            return if buf.is_empty() { Ok(()) } else { write(buf, host) };
        };
        let (mut host, mut at) = (host, at);
        let mut encrypted = Vec::new();
        for piece in buf.chunks(PIECE_BYTES) {
            encrypted.clear();
            encrypted.extend_from_slice(piece);
            cipher.encrypt(&mut encrypted, at);
            write(&encrypted, host)?;
            let len = num::to_u64(piece.len());
            (host, at) = (host.saturating_add(len), at.saturating_add(len));
        }
        Ok(())
    }

    /// Writes guest bytes into sectors that are encrypted as one.
    fn put_sectors(&self, buf: &[u8], host: u64, at: u64) -> Result<()> {
        let Some(cipher) = &self.cipher else { return self.put(buf, host, at) };
        let cipher: &dyn SectorCipher = cipher.as_ref();
        let (start, end) = whole_sectors(at, buf.len(), u64::from(cipher.sector_bytes()))?;
        let ahead = at.saturating_sub(start);
        let from = host.saturating_sub(ahead);
        let mut whole = self.read_sectors(cipher, start..end, from)?;
        let ahead = num::to_usize(ahead)?;
        if let Some(place) = whole.get_mut(ahead..).and_then(|rest| rest.get_mut(..buf.len())) {
            place.copy_from_slice(buf);
        }
        self.put(&whole, from, start)
    }
}

impl Run {
    /// Where `block`, which is one of them or the next, lies.
    fn host_of(&self, block: u64, block_bytes: u64) -> u64 {
        let nth = block.saturating_sub(self.blocks.start);
        self.place.host.saturating_add(nth.saturating_mul(block_bytes))
    }
}
