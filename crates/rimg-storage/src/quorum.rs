//! A storage that is kept several times, and believes what enough of the copies say.

use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Storages that hold the same bytes. What is read is what the most of them agree on, if as many
/// do as are asked for; what is written goes to all of them, and has to succeed in as many.
#[derive(Debug)]
pub struct QuorumStorage {
    copies: Vec<Arc<dyn Storage>>,
    /// How many have to agree: at least 1.
    threshold: usize,
    /// The length in bytes, which a copy that failed may not have any more.
    len_bytes: AtomicU64,
}

impl QuorumStorage {
    /// Of `copies` at least `threshold` have to agree.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a threshold of 0, or of more than there are; what the
    /// copies say of their lengths, and `EIO` where these differ.
    pub fn new(copies: Vec<Arc<dyn Storage>>, threshold: usize) -> io::Result<Self> {
        if threshold == 0 || threshold > copies.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut lengths = copies.iter().map(|copy| copy.len_bytes());
        let first = lengths.next().unwrap_or(Ok(0))?;
        for len in lengths {
            if len? != first {
                return Err(no_quorum());
            }
        }
        Ok(Self { copies, threshold, len_bytes: AtomicU64::new(first) })
    }

    /// Notes that the copies are at least so long.
    fn has_grown(&self, end: u64) {
        self.len_bytes.fetch_max(end, Ordering::AcqRel);
    }

    /// What the most of the copies say of those that say anything.
    fn vote<T: PartialEq>(&self, ask: impl Fn(&dyn Storage) -> io::Result<T>) -> io::Result<T> {
        let mut answers: Vec<(T, usize)> = Vec::new();
        let mut failure = None;
        for copy in &self.copies {
            match ask(copy.as_ref()) {
                Ok(answer) => match answers.iter_mut().find(|(known, _)| *known == answer) {
                    Some((_, votes)) => *votes += 1,
                    None => answers.push((answer, 1)),
                },
                Err(error) => failure = Some(error),
            }
        }
        let answered: usize = answers.iter().map(|(_, votes)| *votes).sum();
        // Of several with as many votes the last one counts.
        match (answers.into_iter().max_by_key(|(_, votes)| *votes), failure) {
            (Some((answer, votes)), _) if votes >= self.threshold => Ok(answer),
            (_, Some(failure)) if answered < self.threshold => Err(failure),
            _ => Err(no_quorum()),
        }
    }

    /// Does something to all copies.
    fn each(&self, work: impl Fn(&dyn StorageWrite) -> io::Result<()>) -> io::Result<()> {
        let mut done = 0;
        let mut failure = None;
        for copy in &self.copies {
            let writer = copy.writer().ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
            match work(writer) {
                Ok(()) => done += 1,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if done < self.threshold => Err(error),
            _ => Ok(()),
        }
    }
}

fn no_quorum() -> io::Error {
    Errno::IO.into()
}

impl Storage for QuorumStorage {
    /// As long as all of them were, and what was written since made them.
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len_bytes.load(Ordering::Acquire))
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let len = buf.len();
        let bytes = self.vote(|copy| {
            let mut bytes = vec![0; len];
            copy.read_exact_at(&mut bytes, at).map(|()| bytes)
        })?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    /// A hole is where all of them have one; data is where one does not say.
    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let left = self.len_bytes()?.saturating_sub(at);
        let mut len_bytes = left;
        let mut is_hole = true;
        for copy in &self.copies {
            match copy.run_at(at) {
                Ok(run) => {
                    len_bytes = len_bytes.min(run.len_bytes);
                    is_hole &= !run.is_data;
                }
                Err(_) => is_hole = false,
            }
        }
        match (len_bytes, is_hole) {
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (len_bytes, true) => Ok(StorageRun::hole(len_bytes)),
            (len_bytes, false) => Ok(StorageRun::data(len_bytes)),
        }
    }

    fn align_bytes(&self) -> u32 {
        self.copies.iter().map(|copy| copy.align_bytes()).max().unwrap_or(1)
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        let all = self.copies.iter().all(|copy| copy.writer().is_some());
        if all { Some(self) } else { None }
    }

    /// What all of them take together.
    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        let mut bytes = Some(0_u64);
        for copy in &self.copies {
            bytes = bytes.zip(copy.allocated_bytes()?).map(|(all, one)| all.saturating_add(one));
        }
        Ok(bytes)
    }
}

impl StorageWrite for QuorumStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.each(|copy| copy.write_all_at(buf, at))?;
        self.has_grown(at.saturating_add(num::to_u64(buf.len())));
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        self.each(|copy| copy.write_zeroes_at(range.clone(), how))?;
        self.has_grown(range.end);
        Ok(())
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        self.each(|copy| copy.discard_at(range.clone()))
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.each(|copy| copy.set_len_bytes(len))?;
        self.len_bytes.store(len, Ordering::Release);
        Ok(())
    }

    fn is_zero_where_unwritten(&self) -> bool {
        let is_zero = |copy: &Arc<dyn Storage>| {
            copy.writer().is_some_and(StorageWrite::is_zero_where_unwritten)
        };
        self.copies.iter().all(is_zero)
    }

    fn sync(&self) -> io::Result<()> {
        self.each(|copy| copy.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Access, CacheMode, DebugAction, DebugRule, DebugStorage, Injection, MemoryStorage,
    };

    fn copies(bytes: &[&[u8]], threshold: usize) -> QuorumStorage {
        let copy =
            |bytes: &&[u8]| -> Arc<dyn Storage> { Arc::new(MemoryStorage::from(bytes.to_vec())) };
        QuorumStorage::new(bytes.iter().map(copy).collect(), threshold).unwrap()
    }

    fn read(storage: &QuorumStorage, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        storage.read_exact_at(&mut bytes, 0).map(|()| bytes)
    }

    #[test]
    fn the_majority_is_believed() {
        for (bytes, threshold, said) in [
            (&[b"abc", b"abc", b"abd"][..], 2, Some(b"abc")),
            (&[b"abd", b"abc", b"abc"], 2, Some(b"abc")),
            (&[b"abd", b"abc", b"abe"], 2, None),
            (&[b"abd", b"abc"], 1, Some(b"abc")),
            (&[b"abc", b"abc"], 2, Some(b"abc")),
        ] {
            let bytes: Vec<&[u8]> = bytes.iter().map(|copy| copy.as_slice()).collect();
            let read = read(&copies(&bytes, threshold), 3);
            match said {
                Some(said) => assert_eq!(read.unwrap(), said),
                None => {
                    assert_eq!(read.unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()))
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_everywhere() {
        let storage = copies(&[b"abc", b"abc"], 2);
        storage.write_all_at(b"xy", 1).unwrap();
        storage.write_zeroes_at(0..1, Zeroing::MayPunch).unwrap();
        storage.sync().unwrap();
        assert_eq!(read(&storage, 3).unwrap(), b"\0xy");
        storage.set_len_bytes(2).unwrap();
        assert_eq!(storage.len_bytes().unwrap(), 2);
        assert_eq!(
            read(&storage, 3).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof,
            "all of them fail alike"
        );
    }

    #[test]
    fn copies_are_of_one_length() {
        let copy =
            |bytes: &[u8]| -> Arc<dyn Storage> { Arc::new(MemoryStorage::from(bytes.to_vec())) };
        let error = QuorumStorage::new(vec![copy(b"abc"), copy(b"ab")], 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
        for threshold in [0, 2] {
            assert!(QuorumStorage::new(vec![copy(b"a")], threshold).is_err());
        }
    }

    /// It is what the others are for.
    #[test]
    fn one_copy_may_fail() {
        let rule = |access| DebugRule {
            event: "none",
            state: None,
            action: DebugAction::Inject(Injection {
                accesses: vec![access],
                errno: Errno::NOSPC.raw_os_error(),
                sector: None,
                once: false,
            }),
        };
        let with_bad = |bad: usize, threshold: usize| {
            let copies = (0..3).map(|index| -> Arc<dyn Storage> {
                let rules = match index < bad {
                    true => {
                        vec![rule(Access::Write), rule(Access::Read), rule(Access::BlockStatus)]
                    }
                    false => Vec::new(),
                };
                Arc::new(DebugStorage::new(
                    Arc::new(MemoryStorage::new()),
                    CacheMode::Writeback,
                    rules,
                ))
            });
            QuorumStorage::new(copies.collect(), threshold).unwrap()
        };
        let storage = with_bad(1, 2);
        storage.write_all_at(b"abc", 0).unwrap();
        assert_eq!(storage.len_bytes().unwrap(), 3);
        assert_eq!(read(&storage, 3).unwrap(), b"abc");
        assert_eq!(storage.run_at(0).unwrap(), StorageRun::data(3));
        let error = with_bad(2, 2).write_all_at(b"abc", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    }
}
