//! Where guest clusters lie in the file: the BAT, and the data area.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::allocate::Slots;
use crate::error::CorruptKind;
use crate::header::{Header, Keeping};
use crate::spec;
use crate::table::Bat;
use core::ops::Range;
use rimg_blocks::{BlockMap, Change, Freed, Place, Stage, Zeroed};
use rimg_core::{
    Error, Extent, ExtentKind, FileOffset, HostOffset, Limits, MetadataBudget, Result, num,
};

/// The metadata of an open image.
#[derive(Debug)]
pub(crate) struct ParallelsMap {
    pub(crate) header: Header,
    header_changed: bool,
    pub(crate) bat: Bat,
    slots: Slots,
    /// Clusters end here at most: the end of the file, or of what was handed out behind it.
    end: u64,
    /// From here on, the file reads as zeroes.
    zero_from: u64,
    /// Where the data area starts for new clusters: the BAT may be about to grow.
    data_start: u64,
    /// What becomes of the Format Extension with the first change.
    keeping: Keeping,
    limits: Limits,
    /// Something was changed since the image was opened.
    pub(crate) has_changed: bool,
}

impl ParallelsMap {
    /// The metadata of a file of `len_bytes`. `slots` are the clusters in use, for those who
    /// write.
    pub(crate) fn new(
        header: Header,
        bat: Bat,
        slots: Slots,
        keeping: Keeping,
        len_bytes: u64,
        limits: Limits,
    ) -> Self {
        let data_start = header.data_start();
        Self {
            header,
            header_changed: false,
            bat,
            slots,
            end: len_bytes.max(data_start),
            zero_from: len_bytes,
            data_start,
            keeping,
            limits,
            has_changed: false,
        }
    }

    /// Where the last cluster that is in use ends.
    pub(crate) fn data_end(&self) -> u64 {
        data_end(&self.header, self.bat.entries())
    }

    /// What a cluster's entry says: where it lies, if anywhere.
    fn host_of(&self, cluster: u64) -> Result<Option<u64>> {
        match self.bat.entry(cluster) {
            None | Some(0) => Ok(None),
            Some(entry) => {
                let host = self.header.host_of(entry);
                let end = host.checked_add(self.header.cluster_bytes());
                if host < self.header.bat_end() || end.is_none_or(|end| end > self.end) {
                    let at = Header::entry_at(cluster);
                    return Err(CorruptKind::OutsideFile(host).at("BAT", "entry", at));
                }
                Ok(Some(host))
            }
        }
    }

    fn freed(&self, host: u64) -> Freed {
        Freed { host, len_bytes: self.header.cluster_bytes() }
    }
}

impl BlockMap for ParallelsMap {
    fn size_bytes(&self) -> u64 {
        self.header.size_bytes()
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let cluster_bytes = self.header.cluster_bytes();
        let cluster = range.start.checked_div(cluster_bytes).unwrap_or(0);
        let start = cluster.saturating_mul(cluster_bytes);
        let first = self.host_of(cluster)?;
        let mut next = cluster.saturating_add(1);
        let mut end = start.saturating_add(cluster_bytes);
        while end < range.end {
            let expected = first.map(|host| host.saturating_add(end.saturating_sub(start)));
            // What is wrong with the next one is said when its turn comes.
            let goes_on = match self.bat.entry(next) {
                None => {
                    if first.is_none() {
                        end = range.end;
                    }
                    break;
                }
                Some(_) => self.host_of(next).is_ok_and(|host| host == expected),
            };
            if !goes_on {
                break;
            }
            next = next.saturating_add(1);
            end = end.saturating_add(cluster_bytes);
        }
        let len_bytes = end.min(range.end).saturating_sub(range.start);
        let ahead = range.start.saturating_sub(start);
        let kind = match first {
            None => ExtentKind::Backing { allocation: None },
            Some(host) => ExtentKind::Data(FileOffset {
                file: 0,
                host: HostOffset(host.saturating_add(ahead)),
            }),
        };
        Ok(Extent { len_bytes, kind })
    }

    fn place(&mut self, block: u64) -> Result<Place> {
        if self.bat.entry(block).is_none() {
            let at = Header::entry_at(block);
            return Err(CorruptKind::BehindBat(block).at("BAT", "entry", at));
        }
        let host = self.slots.first_free(self.data_start);
        let end = host.saturating_add(self.header.cluster_bytes());
        if self.header.entry_for(host).is_none() {
            self.slots.give_back(host);
            let limit = self.header.unit_bytes().saturating_mul(u32::MAX.into());
            return Err(Error::Limit { what: "length of the file", needed: end, limit });
        }
        let is_zeroed = host >= self.zero_from;
        self.zero_from = self.zero_from.max(end);
        self.end = self.end.max(end);
        Ok(Place { host, is_zeroed })
    }

    fn unplace(&mut self, _block: u64, place: Place) {
        self.slots.give_back(place.host);
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let old = self.host_of(block)?;
        let entry = self.header.entry_for(place.host);
        self.bat.set(block, entry.ok_or(Error::Misuse("a place that no entry leads to"))?);
        Ok(old.filter(|host| *host != place.host).map(|host| self.freed(host)))
    }

    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        let old = self.host_of(block)?;
        if old.is_some() {
            self.bat.set(block, 0);
        }
        Ok(Zeroed::Done(old.map(|host| self.freed(host))))
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        let mut header = resized(&self.header, size_bytes, self.limits)?;
        let mut freed = Vec::new();
        for cluster in u64::from(header.bat_entries)..u64::from(self.header.bat_entries) {
            freed.extend(self.host_of(cluster)?.map(|host| self.freed(host)));
        }
        self.bat.resize(num::to_usize(header.bat_entries.into())?);
        if !header.data_off_fits() || header.data_start() < self.data_start {
            let sectors = self.data_start / spec::SECTOR_BYTES;
            header.data_off = u32::try_from(sectors).unwrap_or(u32::MAX);
        }
        self.header = header;
        self.header_changed = true;
        Ok(freed)
    }

    /// A longer BAT goes where the first clusters are. The data area starts a whole number of
    /// clusters later.
    fn in_the_way(&mut self, size_bytes: u64) -> Result<Vec<u64>> {
        let header = resized(&self.header, size_bytes, self.limits)?;
        let old = self.header.data_start();
        if header.bat_end() <= old {
            return Ok(Vec::new());
        }
        if self.keeping == Keeping::Keep && self.header.ext_off != 0 {
            let feature = "growing with a format extension in the way".to_owned();
            return Err(Error::Unsupported { format: crate::error::FORMAT, feature });
        }
        let cluster_bytes = header.cluster_bytes();
        let clusters = header.bat_end().saturating_sub(old).div_ceil(cluster_bytes);
        let data_start = old.saturating_add(clusters.saturating_mul(cluster_bytes));
        if u32::try_from(data_start / spec::SECTOR_BYTES).is_err() {
            return Err(too_large());
        }
        self.data_start = data_start;
        let mut blocks = Vec::new();
        for cluster in 0..u64::from(self.header.bat_entries) {
            if self.host_of(cluster)?.is_some_and(|host| host < data_start) {
                blocks.push(cluster);
            }
        }
        Ok(blocks)
    }

    fn before_changes(&mut self) -> Result<Vec<Stage>> {
        self.has_changed = true;
        let was_empty = self.header.flags & spec::EMPTY_IMAGE != 0;
        self.header.in_use = spec::IN_USE;
        if self.keeping == Keeping::Drop {
            self.header.ext_off = 0;
        }
        let in_use = self.header_stage();
        if !was_empty {
            return Ok(vec![in_use]);
        }
        // The BAT becomes what it stands for before it is believed.
        self.bat.written();
        let bat = self.bat.take();
        self.header.flags &= !spec::EMPTY_IMAGE;
        Ok(vec![in_use, bat, self.header_stage()])
    }

    fn take_dirty(&mut self, closing: bool) -> Result<Vec<Stage>> {
        self.bat.written();
        // A BAT that grew is all there before it is believed; what a shorter one leaves behind is
        // nobody's.
        let mut stages = vec![self.bat.take()];
        if core::mem::take(&mut self.header_changed) {
            stages.push(self.header_stage());
        }
        if closing {
            self.header.in_use = match (self.keeping, self.header.ext_off) {
                (Keeping::Drop, _) | (_, 0) => spec::CLOSED_WITHOUT_EXTENSION,
                (Keeping::Keep, _) => spec::CLOSED,
            };
            stages.push(self.header_stage());
        }
        Ok(stages)
    }

    fn write_failed(&mut self) {
        self.bat.write_failed();
        self.header.in_use = spec::IN_USE;
        self.header_changed = true;
    }

    fn reuse(&mut self, freed: Freed) {
        self.slots.give_back(freed.host);
    }

    fn dirty_bytes(&self) -> usize {
        let header = if self.header_changed { Header::BYTES } else { 0 };
        self.bat.dirty_bytes().saturating_add(header)
    }
}

impl ParallelsMap {
    fn header_stage(&self) -> Stage {
        vec![Change::Write { at: 0, bytes: self.header.encode().to_vec() }]
    }

    /// The file ends at `len_bytes` now.
    pub(crate) fn cut_off(&mut self, len_bytes: u64) {
        self.end = len_bytes.max(self.data_start);
        self.zero_from = len_bytes;
    }
}

/// Where the last cluster that a BAT leads to ends, or the data area starts.
pub(crate) fn data_end(header: &Header, entries: &[u32]) -> u64 {
    let hosts = entries.iter().filter(|entry| **entry != 0).map(|entry| header.host_of(*entry));
    let ends = hosts.map(|host| host.saturating_add(header.cluster_bytes()));
    ends.max().unwrap_or(0).max(header.data_start())
}

/// Learns which clusters are in use. Those that are wrong are not: they were found before.
pub(crate) fn slots_in_use(
    header: &Header,
    entries: &[u32],
    len_bytes: u64,
    budget: &mut MetadataBudget,
) -> Result<Slots> {
    let unit = header.unit_bytes();
    // Places that entries can lead to.
    let base = match header.unit {
        crate::header::Unit::Sectors => header.data_start(),
        crate::header::Unit::Clusters => header.data_start().div_ceil(unit).saturating_mul(unit),
    };
    let mut slots = Slots::new(base, header.cluster_bytes(), len_bytes, budget)?;
    for entry in entries.iter().filter(|entry| **entry != 0) {
        slots.take(header.host_of(*entry));
    }
    Ok(slots)
}

/// The header of a disk of another size, whose BAT can be held in memory.
fn resized(header: &Header, size_bytes: u64, limits: Limits) -> Result<Header> {
    let header = header.resized(size_bytes).ok_or_else(too_large)?;
    let bat_bytes = u64::from(header.bat_entries).saturating_mul(4);
    // As opening does it.
    limits.metadata_budget().reserve("BAT", bat_bytes.saturating_mul(2))?;
    Ok(header)
}

fn too_large() -> Error {
    let reason = "Image size is too large for this cluster size".to_owned();
    Error::InvalidOption { option: "size", reason }
}
