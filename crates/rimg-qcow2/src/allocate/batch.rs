//! Refcounts of many clusters in a row, for what touches all of an image at once.

use super::Allocator;
use crate::error::CorruptKind;
use crate::refcount;
use core::ops::Range;
use rimg_core::{Error, Result, num};

impl Allocator {
    /// Counts one more reference to each of `clusters`, all of which are in use. Adds to `done` how
    /// many were counted, also when it fails in between.
    ///
    /// # Errors
    /// [`Error::Limit`] when a count would not fit; [`Error::Corrupt`] when a cluster is not counted
    /// as used.
    pub(crate) fn raise(&mut self, clusters: Range<u64>, done: &mut u64) -> Result<()> {
        let g = self.geometry;
        let (order, max) = (g.refcount, g.refcount.max());
        let mut cluster = clusters.start;
        while cluster < clusters.end {
            let Some((slice_at, range)) = self.slice_of(cluster..clusters.end)? else {
                return Err(self.uncounted_cluster(cluster));
            };
            let slice =
                self.blocks.slice_mut(self.file.as_ref(), slice_at, "read refcount block")?;
            for index in range {
                let count = refcount::get(slice, order, index);
                if count == 0 {
                    return Err(self.uncounted_cluster(cluster));
                }
                if count >= max {
                    let needed = count.saturating_add(1);
                    return Err(Error::Limit { what: "refcount", needed, limit: max });
                }
                refcount::set(slice, order, index, count.saturating_add(1));
                cluster = cluster.saturating_add(1);
                *done = done.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Stops counting one reference to each of `clusters`, which nothing on disk holds any more.
    /// Calls `freed` with those that nobody uses now, in rising order. Returns whether one of them
    /// has a single user now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a cluster was not counted as used; all others are done.
    pub(crate) fn lower(
        &mut self,
        clusters: Range<u64>,
        freed: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<bool> {
        let order = self.geometry.refcount;
        let mut cluster = clusters.start;
        let mut has_single = false;
        let mut uncounted = None;
        while cluster < clusters.end {
            let Some((slice_at, range)) = self.slice_of(cluster..clusters.end)? else {
                return Err(self.uncounted_cluster(cluster));
            };
            let slice =
                self.blocks.slice_mut(self.file.as_ref(), slice_at, "read refcount block")?;
            let mut run = cluster..cluster;
            for index in range {
                match refcount::get(slice, order, index) {
                    0 => uncounted = Some(cluster),
                    count => {
                        refcount::set(slice, order, index, count.saturating_sub(1));
                        has_single |= count == 2;
                        if count == 1 {
                            if run.end != cluster {
                                take_run(&mut run, freed)?;
                                run = cluster..cluster;
                            }
                            run.end = cluster.saturating_add(1);
                            self.free_hint = self.free_hint.min(cluster);
                        }
                    }
                }
                cluster = cluster.saturating_add(1);
            }
            self.forget_tail(&run);
            take_run(&mut run, freed)?;
        }
        match uncounted {
            Some(cluster) => Err(self.uncounted_cluster(cluster)),
            None => Ok(has_single),
        }
    }

    /// Whether `cluster` has exactly one user.
    pub(crate) fn is_single(&mut self, cluster: u64) -> Result<bool> {
        Ok(self.refcount(cluster)? == 1)
    }

    /// Whether `cluster` has any user.
    pub(crate) fn is_used(&mut self, cluster: u64) -> Result<bool> {
        Ok(self.refcount(cluster)? > 0)
    }

    /// The slice of a refcount block with the count of the first of `clusters`, and the places in
    /// there of those that it has.
    fn slice_of(&mut self, clusters: Range<u64>) -> Result<Option<(u64, Range<usize>)>> {
        let Some((slice_at, first)) = self.place_of(clusters.start)? else { return Ok(None) };
        let per_slice = (self.blocks.slice_bytes() << 3) >> self.geometry.refcount.order();
        let wanted = num::to_usize(clusters.end.saturating_sub(clusters.start))?;
        let end = first.saturating_add(wanted).min(num::to_usize(per_slice)?);
        Ok(Some((slice_at, first..end)))
    }

    /// Nothing is packed behind compressed clusters that are gone.
    fn forget_tail(&mut self, freed: &Range<u64>) {
        let tail = self.compressed_tail.map(|tail| tail.saturating_sub(1));
        if tail.is_some_and(|last| freed.contains(&self.geometry.cluster_index(last))) {
            self.compressed_tail = None;
        }
    }

    fn uncounted_cluster(&self, cluster: u64) -> Error {
        let at = self.geometry.cluster_offset(cluster);
        CorruptKind::RefcountZero(at).at("refcount block", "entry", at)
    }
}

fn take_run(run: &mut Range<u64>, freed: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
    if run.is_empty() { Ok(()) } else { freed(run.clone()) }
}
