//! A storage that fails when it is told to, for trying out what programs make of errors.
//!
//! Formats say with [`Storage::note`] what they are about to do. Rules wait for such an event, and
//! make accesses fail from then on, or change the state that other rules look at. The events, and
//! how rules work on them, are those of QEMU's `blkdebug`.

use crate::CacheMode;
use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The unit of [`Injection::sector`] in bytes.
const SECTOR_BYTES: u64 = 512;

/// What happens at an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugRule {
    /// The event, by QEMU's name.
    pub event: &'static str,
    /// The state in which the rule counts; in every one when not given.
    pub state: Option<u64>,
    /// What is done.
    pub action: DebugAction,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DebugAction {
    /// Accesses fail.
    Inject(Injection),
    /// The state becomes this one; it is 1 in the beginning.
    SetState(u64),
}

/// Which accesses fail, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The number of the operating system's error; 0 lets the access succeed.
    pub errno: i32,
    /// The sector of 512 bytes that an access has to touch; any access fails when not given.
    pub sector: Option<u64>,
    /// What kinds of accesses fail.
    pub accesses: Vec<Access>,
    /// Whether only one access fails.
    pub once: bool,
}

/// A kind of access to a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Zeroing.
    WriteZeroes,
    /// Discarding.
    Discard,
    /// Making durable.
    Flush,
    /// Looking for holes.
    BlockStatus,
}

/// Every event that QEMU knows. `none` comes never: its rules count from the start.
pub const DEBUG_EVENTS: &[&str] = &[
    "l1_update",
    "l1_grow_alloc_table",
    "l1_grow_write_table",
    "l1_grow_activate_table",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc_cow_read",
    "l2_alloc_write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "vmstate_load",
    "vmstate_save",
    "cow_read",
    "cow_write",
    "reftable_load",
    "reftable_grow",
    "reftable_update",
    "refblock_load",
    "refblock_update",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc_hookup",
    "refblock_alloc_write",
    "refblock_alloc_write_blocks",
    "refblock_alloc_write_table",
    "refblock_alloc_switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
    "pwritev_rmw_head",
    "pwritev_rmw_after_head",
    "pwritev_rmw_tail",
    "pwritev_rmw_after_tail",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "empty_image_prepare",
    "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters",
    "cor_write",
    "cluster_alloc_space",
    NONE,
];

const NONE: &str = "none";

/// A storage whose accesses fail by rules.
#[derive(Debug)]
pub struct DebugStorage {
    below: Arc<dyn Storage>,
    cache: CacheMode,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    number: u64,
    rules: Vec<DebugRule>,
    /// Places in `rules` of what makes accesses fail now.
    active: Vec<usize>,
    /// Places of those that had their one turn.
    spent: Vec<usize>,
}

impl DebugStorage {
    /// `below`, which was opened with `cache`, with errors by `rules`. Where a flush does nothing, it
    /// cannot fail.
    #[must_use]
    pub fn new(below: Arc<dyn Storage>, cache: CacheMode, rules: Vec<DebugRule>) -> Self {
        let injects = |rule: &DebugRule| matches!(rule.action, DebugAction::Inject(_));
        let from_start =
            rules.iter().enumerate().filter(|(_, rule)| rule.event == NONE && injects(rule));
        let active = from_start.map(|(index, _)| index).collect();
        Self {
            below,
            cache,
            state: Mutex::new(State { number: 1, rules, active, spent: Vec::new() }),
        }
    }

    /// Fails if a rule says so.
    fn check(&self, access: Access, range: &Range<u64>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            state.active.iter().copied().find_map(|index| match &state.rules.get(index)?.action {
                DebugAction::Inject(injection) if injection.fits(access, range) => {
                    Some((index, injection.clone()))
                }
                _ => None,
            });
        let Some((index, injection)) = found else { return Ok(()) };
        if injection.once {
            state.active.retain(|active| *active != index);
            state.spent.push(index);
        }
        match injection.errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The first sector in `range` that has a rule for `access`.
    fn next_of(&self, access: Access, range: &Range<u64>) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = state.active.iter().filter_map(|index| state.rules.get(*index));
        let sectors = rules.filter_map(|rule| match &rule.action {
            DebugAction::Inject(injection) if injection.accesses.contains(&access) => {
                injection.sector?.checked_mul(SECTOR_BYTES)
            }
            _ => None,
        });
        sectors.filter(|sector| range.contains(sector)).min()
    }

    fn writer_below(&self) -> io::Result<&dyn StorageWrite> {
        self.below.writer().ok_or_else(|| io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl State {
    fn note(&mut self, event: &str) {
        let (number, mut next, mut injected) = (self.number, self.number, false);
        for (index, rule) in self.rules.iter().enumerate() {
            let counts = rule.event == event && rule.state.is_none_or(|state| state == number);
            if !counts || self.spent.contains(&index) {
                continue;
            }
            match rule.action {
                DebugAction::SetState(state) => next = state,
                DebugAction::Inject(_) => {
                    if !injected {
                        self.active.clear();
                        injected = true;
                    }
                    self.active.push(index);
                }
            }
        }
        self.number = next;
    }
}

impl Injection {
    fn fits(&self, access: Access, range: &Range<u64>) -> bool {
        let at = self.sector.map(|sector| sector.saturating_mul(SECTOR_BYTES));
        self.accesses.contains(&access) && at.is_none_or(|at| range.contains(&at))
    }
}

impl Storage for DebugStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        self.below.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.check(Access::Read, &(at..at.saturating_add(num::to_u64(buf.len()))))?;
        self.below.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let sector = at - at % SECTOR_BYTES;
        self.check(Access::BlockStatus, &(sector..sector.saturating_add(SECTOR_BYTES)))?;
        let run = self.below.run_at(at)?;
        // A run that a rule lies further on in ends before it.
        let end = at.saturating_add(run.len_bytes);
        let next = self.next_of(Access::BlockStatus, &(at.saturating_add(1)..end));
        let len_bytes = next.map_or(run.len_bytes, |next| next.saturating_sub(at));
        Ok(StorageRun { len_bytes, ..run })
    }

    fn align_bytes(&self) -> u32 {
        self.below.align_bytes()
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        self.below.writer().map(|_| -> &dyn StorageWrite { self })
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.below.allocated_bytes()
    }

    fn note(&self, event: &'static str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).note(event);
    }

    fn listens(&self) -> bool {
        true
    }
}

impl StorageWrite for DebugStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.note("pwritev");
        self.check(Access::Write, &(at..at.saturating_add(num::to_u64(buf.len()))))?;
        self.writer_below()?.write_all_at(buf, at)?;
        self.note("pwritev_done");
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        self.note("pwritev_zero");
        self.check(Access::WriteZeroes, &range)?;
        self.writer_below()?.write_zeroes_at(range, how)?;
        self.note("pwritev_done");
        Ok(())
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        self.check(Access::Discard, &range)?;
        self.writer_below()?.discard_at(range)
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.writer_below()?.set_len_bytes(len)
    }

    fn is_zero_where_unwritten(&self) -> bool {
        self.below.writer().is_some_and(StorageWrite::is_zero_where_unwritten)
    }

    fn sync(&self) -> io::Result<()> {
        if self.cache == CacheMode::Unsafe {
            return Ok(());
        }
        self.note("flush_to_os");
        self.note("flush_to_disk");
        self.check(Access::Flush, &(0..u64::MAX))?;
        self.writer_below()?.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;

    const ENOSPC: i32 = 28;

    fn inject(event: &'static str, state: Option<u64>, once: bool) -> DebugRule {
        let accesses = vec![Access::Read, Access::Write];
        let injection = Injection { errno: ENOSPC, sector: None, accesses, once };
        DebugRule { event, state, action: DebugAction::Inject(injection) }
    }

    fn debug(rules: Vec<DebugRule>) -> DebugStorage {
        let below = Arc::new(MemoryStorage::with_len(4096));
        DebugStorage::new(below, CacheMode::default(), rules)
    }

    fn reads(storage: &DebugStorage) -> Option<i32> {
        storage.read_exact_at(&mut [0; 512], 512).err().map(|error| error.raw_os_error().unwrap())
    }

    #[test]
    fn accesses_fail_after_their_event() {
        let storage = debug(vec![inject("l2_load", None, true), inject("l1_update", None, false)]);
        assert_eq!(reads(&storage), None);
        storage.note("l2_load");
        assert_eq!((reads(&storage), reads(&storage)), (Some(ENOSPC), None));
        storage.note("l2_load");
        assert_eq!(reads(&storage), None, "once is once");
        storage.note("l1_update");
        assert_eq!((reads(&storage), reads(&storage)), (Some(ENOSPC), Some(ENOSPC)));
    }

    #[test]
    fn rules_of_another_state_wait() {
        let set = |event, state, to| DebugRule { event, state, action: DebugAction::SetState(to) };
        let rules = vec![
            inject("l2_load", Some(2), false),
            set("l2_load", Some(1), 2),
            set("l2_load", Some(2), 3),
        ];
        let storage = debug(rules);
        storage.note("l2_load");
        assert_eq!(reads(&storage), None);
        storage.note("l2_load");
        assert_eq!(reads(&storage), Some(ENOSPC));
    }

    #[test]
    fn only_a_flush_that_does_something_fails() {
        let rules = || {
            let mut rule = inject("flush_to_disk", None, false);
            if let DebugAction::Inject(injection) = &mut rule.action {
                injection.accesses = vec![Access::Flush];
            }
            vec![rule]
        };
        assert_eq!(debug(rules()).sync().unwrap_err().raw_os_error(), Some(ENOSPC));
        let below = Arc::new(MemoryStorage::with_len(4096));
        assert!(DebugStorage::new(below, CacheMode::Unsafe, rules()).sync().is_ok());
    }

    #[test]
    fn a_sector_is_missed_beside_it() {
        let mut rule = inject(NONE, None, false);
        if let DebugAction::Inject(injection) = &mut rule.action {
            injection.sector = Some(2);
        }
        let storage = debug(vec![rule]);
        assert_eq!(reads(&storage), None);
        let failed = storage.read_exact_at(&mut [0; 1024], 512).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(ENOSPC));
        assert!(storage.write_all_at(&[0; 512], 1536).is_ok());
    }
}
