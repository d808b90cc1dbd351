//! The order in which things become durable.

use crate::engine::{Blocks, State};
use crate::{BlockMap, Change, Stage};
use core::sync::atomic::Ordering;
use rimg_core::{Error, Result, StorageWrite, num};
use std::sync::PoisonError;

/// How many bytes of metadata may wait in memory, before they are written without being asked for.
pub const DIRTY_BYTES: usize = 4 << 20;

impl<M: BlockMap> Blocks<M> {
    /// Before the first change: what has to be durable then.
    pub(crate) fn begin(&self, state: &mut State<M>) -> Result<()> {
        if state.has_begun {
            return Ok(());
        }
        self.storage_writer()?;
        let stages = state.map.before_changes()?;
        let writer = self.storage_writer()?;
        let written =
            self.write_stages(stages, &mut |change| state.make_fit(writer, change, false));
        if written.is_err() {
            state.map.write_failed();
            return written;
        }
        state.has_begun = true;
        Ok(())
    }

    pub(crate) fn flush_when_much_is_dirty(&self) -> Result<()> {
        if self.lock().map.dirty_bytes() < DIRTY_BYTES {
            return Ok(());
        }
        self.flush_pass(false)
    }

    /// Writes data and metadata back; readers and writers go on meanwhile, and what they change
    /// is left to the next flush.
    pub(crate) fn flush_pass(&self, closing: bool) -> Result<()> {
        self.pass(closing, false)
    }

    fn pass(&self, closing: bool, alone: bool) -> Result<()> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let (stages, freed) = {
            let mut state = self.usable()?;
            if !state.has_begun {
                return Ok(());
            }
            (state.map.take_dirty(closing)?, state.readers.take_let_go())
        };
        let writer = self.storage_writer()?;
        let mut make_fit = |change: &Change| self.lock().make_fit(writer, change, alone);
        let written = self.sync().and_then(|()| self.write_stages(stages, &mut make_fit));
        let mut state = self.lock();
        if written.is_ok() {
            state.has_begun &= !closing;
            state.readers.durable(freed);
            state.reuse_what_is_free();
        } else {
            state.map.write_failed();
            state.readers.let_go(freed);
        }
        written
    }

    /// A flush by somebody who has claimed all blocks, and may have changed the map by himself.
    pub(crate) fn flush_claimed(&self) -> Result<()> {
        {
            let mut state = self.lock();
            if state.map.dirty_bytes() > 0 {
                self.begin(&mut state)?;
            }
        }
        self.pass(false, true)
    }

    fn write_stages(
        &self,
        stages: Vec<Stage>,
        make_fit: &mut dyn FnMut(&Change) -> Result<()>,
    ) -> Result<()> {
        let writer = self.storage_writer()?;
        for stage in stages.into_iter().filter(|stage| !stage.is_empty()) {
            for change in stage {
                make_fit(&change)?;
                if let Change::Write { at, bytes } = change {
                    writer.write_all_at(&bytes, at).map_err(Error::io("write metadata", at))?;
                }
            }
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        if self.relaxed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.storage_writer()?.sync().map_err(Error::io("make writes durable", 0))
    }
}

impl<M: BlockMap> State<M> {
    /// Gives the file the length that `change` needs. Only who is alone with the file makes it
    /// shorter: others write to places that were handed out meanwhile.
    fn make_fit(&mut self, writer: &dyn StorageWrite, change: &Change, alone: bool) -> Result<()> {
        let (len, is_exact) = match change {
            Change::Write { at, bytes } => (at.saturating_add(num::to_u64(bytes.len())), false),
            Change::SetLen(len) => (*len, alone),
        };
        if len > self.len_bytes || (is_exact && len != self.len_bytes) {
            writer.set_len_bytes(len).map_err(Error::io("set the length of the file", len))?;
            self.len_bytes = len;
        }
        Ok(())
    }
}
