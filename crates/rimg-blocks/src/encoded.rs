//! Encoded blocks, for formats that have them.

use crate::claims::Kind;
use crate::engine::Blocks;
use crate::{BlockMap, Freed};
use rimg_core::{Error, Result, num};

impl<M: BlockMap> Blocks<M> {
    /// Stores `block` as these bytes. `place` says where they go, to a place that nothing refers to
    /// yet, and `link` lets the table lead there and gives back what it led to before.
    ///
    /// # Errors
    /// What the map or the storage says; the place is lost then.
    pub fn write_encoded(
        &self,
        block: u64,
        bytes: &[u8],
        place: impl FnOnce(&mut M) -> Result<u64>,
        link: impl FnOnce(&mut M, u64) -> Result<Option<Freed>>,
    ) -> Result<()> {
        let writer = self.storage_writer()?;
        let blocks = block..block.saturating_add(1);
        let (claim, host) = {
            let mut state = self.usable()?;
            while state.claims.stand_against(&blocks, Kind::Exclusive) {
                state = self.wait(state);
                state.refuse_outdated()?;
            }
            self.begin(&mut state)?;
            let host = place(&mut state.map)?;
            // So that nobody makes the file shorter than what is about to be written.
            let end = host.saturating_add(num::to_u64(bytes.len()));
            if state.len_bytes < end {
                writer.set_len_bytes(end).map_err(Error::io("make the file longer", end))?;
                state.len_bytes = end;
            }
            (state.claims.add(blocks, Kind::Exclusive), host)
        };
        let written = writer.write_all_at(bytes, host).map_err(Error::io("write data", host));
        let mut state = self.lock();
        let linked = written.and_then(|()| link(&mut state.map, host));
        let linked = linked.map(|freed| state.readers.let_go(freed));
        drop(state);
        self.give_back(claim);
        linked?;
        self.flush_when_much_is_dirty()
    }
}
