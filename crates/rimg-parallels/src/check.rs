//! Checking metadata, in the order and the words of QEMU.
//!
//! A repair copies clusters that are used twice before the BAT leads to the copies, and shortens
//! the file when nothing leads behind its end; that the image was closed is said last.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::driver::Metadata;
use crate::image::{Access, ParallelsImage};
use crate::map::{data_end, slots_in_use};
use crate::spec::{self, SECTOR_BYTES};
use rimg_blocks::Change;
use rimg_core::{
    BlockImage as _, Check, CheckSummary, Error, Finding, FindingKind, ImageWrite as _, Limits,
    Repair, Result, Storage, StorageWrite, num,
};

impl Check for ParallelsImage {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        let repairs = repair != Repair::Nothing;
        if repairs && !matches!(self.access, Access::Repair | Access::Write) {
            return Err(Error::ReadOnly("it was opened for reading"));
        }
        let file = self.file(0).ok_or(Error::Misuse("an image without a file"))?.as_ref();
        if self.access != Access::Write {
            return check(file, self.limits, repair, found);
        }
        // What is open was put right when it was opened: there is nothing to repair.
        self.finish()?;
        check(file, self.limits, Repair::Nothing, found)
    }
}

/// Checks, and repairs, an image that nobody is writing to.
pub(crate) fn check(
    file: &dyn Storage,
    limits: Limits,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let mut budget = limits.metadata_budget();
    let metadata = Metadata::read(file, &mut budget)?;
    let has_extension = metadata.header.has_extension();
    let mut pass = Pass {
        file,
        metadata,
        repair,
        found,
        summary: CheckSummary::default(),
        new_header: false,
        has_extension,
    };
    pass.unclean();
    pass.data_off();
    pass.outside();
    pass.write()?;
    pass.leak()?;
    pass.duplicates(limits)?;
    pass.write()?;
    pass.close()?;
    pass.count();
    Ok(pass.summary)
}

struct Pass<'a> {
    file: &'a dyn Storage,
    metadata: Metadata,
    repair: Repair,
    found: &'a mut dyn FnMut(&Finding),
    summary: CheckSummary,
    new_header: bool,
    has_extension: bool,
}

impl Pass<'_> {
    fn unclean(&mut self) {
        if self.metadata.header.in_use == spec::IN_USE {
            self.corrupt("image was not closed correctly");
            self.new_header |= self.repair == Repair::All;
        }
    }

    fn data_off(&mut self) {
        let header = &self.metadata.header;
        let lowest = self.hosts().map(|(_, host)| host).min();
        let stands_at = u64::from(header.data_off).saturating_mul(SECTOR_BYTES);
        let is_behind_data = header.data_off != 0
            && lowest.is_some_and(|host| host >= header.bat_end() && host < stands_at);
        if header.data_off_fits() && !is_behind_data {
            return;
        }
        let right = header.default_data_off();
        self.corrupt("data_off field has incorrect value");
        // What follows is about the data area as it should be.
        self.metadata.header.data_off = right;
        self.new_header |= self.repair == Repair::All;
    }

    fn outside(&mut self) {
        let Metadata { header, len_bytes, .. } = &self.metadata;
        let (cluster_bytes, start, end) = (header.cluster_bytes(), header.data_start(), *len_bytes);
        let is_wrong = |host: u64| {
            host < start || host.checked_add(cluster_bytes).is_none_or(|last| last > end)
        };
        let wrong: Vec<u64> =
            self.hosts().filter(|(_, host)| is_wrong(*host)).map(|(index, _)| index).collect();
        for index in wrong {
            self.corrupt(&format!("cluster {index} is outside image"));
            // What stays wrong is not looked at again, but counted.
            if self.repair == Repair::All {
                self.metadata.bat.set(index, 0);
            }
        }
    }

    /// What lies behind the last cluster.
    fn leak(&mut self) -> Result<()> {
        let Metadata { header, len_bytes, .. } = &self.metadata;
        let end = self.data_end();
        self.summary.image_end_offset = end;
        let leaked = len_bytes.saturating_sub(end);
        if leaked == 0 {
            return Ok(());
        }
        let clusters = leaked.div_ceil(header.cluster_bytes());
        let repairs = self.repair != Repair::Nothing;
        let verb = if repairs { "Repairing" } else { "ERROR" };
        let message = format!("{verb} space leaked at the end of the image {leaked}");
        self.tell(FindingKind::Leak, message, repairs);
        if repairs {
            self.writer()?.set_len_bytes(end).map_err(Error::io("shorten file", end))?;
            self.metadata.len_bytes = end;
            self.summary.leaks_fixed = self.summary.leaks_fixed.saturating_add(clusters);
        } else {
            self.summary.leaks = self.summary.leaks.saturating_add(clusters);
        }
        Ok(())
    }

    fn duplicates(&mut self, limits: Limits) -> Result<()> {
        let mut budget = limits.metadata_budget();
        let Metadata { header, len_bytes, .. } = &self.metadata;
        let (header, len_bytes) = (*header, *len_bytes);
        let mut slots = slots_in_use(&header, &[], len_bytes, &mut budget)?;
        let mut twice = Vec::new();
        for (index, host) in self.hosts() {
            let end = host.checked_add(header.cluster_bytes());
            let is_inside = host >= header.data_start() && end.is_some_and(|end| end <= len_bytes);
            if is_inside && !slots.take(host) {
                twice.push((index, host));
            }
        }
        for (index, host) in twice {
            self.corrupt(&format!("duplicate offset in BAT entry {index}"));
            if self.repair == Repair::All {
                let least = if self.has_extension { len_bytes } else { 0 };
                let to = slots.first_free(least);
                let entry = header.entry_for(to).ok_or(Error::Limit {
                    what: "length of the file",
                    needed: to,
                    limit: header.unit_bytes().saturating_mul(u32::MAX.into()),
                })?;
                self.copy(host, to, header.cluster_bytes())?;
                self.metadata.bat.set(index, entry);
            }
        }
        Ok(())
    }

    /// Brings the BAT to the file.
    fn write(&mut self) -> Result<()> {
        if self.metadata.header.flags & spec::EMPTY_IMAGE != 0 || self.repair == Repair::Nothing {
            return Ok(());
        }
        let stage = self.metadata.bat.take();
        if stage.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for change in stage {
            if let Change::Write { at, bytes } = change {
                self.writer()?.write_all_at(&bytes, at).map_err(Error::io("write BAT", at))?;
            }
        }
        self.sync()
    }

    fn close(&mut self) -> Result<()> {
        if !self.new_header {
            return Ok(());
        }
        let header = &mut self.metadata.header;
        if header.in_use == spec::IN_USE {
            header.in_use = spec::CLOSED_WITHOUT_EXTENSION;
            header.ext_off = 0;
        }
        let bytes = header.encode();
        self.sync()?;
        self.writer()?.write_all_at(&bytes, 0).map_err(Error::io("write header", 0))?;
        self.sync()
    }

    fn count(&mut self) {
        let Metadata { header, bat, .. } = &self.metadata;
        let summary = &mut self.summary;
        summary.total_clusters = header.bat_entries.into();
        let mut expected = None;
        for entry in bat.entries() {
            if *entry == 0 {
                expected = None;
                continue;
            }
            let host = header.host_of(*entry);
            summary.allocated_clusters = summary.allocated_clusters.saturating_add(1);
            if expected.is_some_and(|expected| expected != host) {
                summary.fragmented_clusters = summary.fragmented_clusters.saturating_add(1);
            }
            expected = Some(host.saturating_add(header.cluster_bytes()));
        }
    }

    /// Where everything ends that is in use and lies in the file.
    fn data_end(&self) -> u64 {
        let Metadata { header, bat, len_bytes } = &self.metadata;
        if self.has_extension {
            // Nobody knows where its parts lie.
            return (*len_bytes).max(header.data_start());
        }
        let is_inside = |entry: &u32| {
            let end = header.host_of(*entry).checked_add(header.cluster_bytes());
            end.is_some_and(|end| end <= *len_bytes)
        };
        let inside: Vec<u32> = bat.entries().iter().copied().filter(is_inside).collect();
        data_end(header, &inside)
    }

    /// Guest clusters that have a place, and where.
    fn hosts(&self) -> impl Iterator<Item = (u64, u64)> + use<'_> {
        let Metadata { header, bat, .. } = &self.metadata;
        let entries = (0_u64..).zip(bat.entries());
        entries
            .filter(|(_, entry)| **entry != 0)
            .map(|(index, entry)| (index, header.host_of(*entry)))
    }

    fn corrupt(&mut self, what: &str) {
        let repairs = self.repair == Repair::All;
        let sum = if repairs {
            &mut self.summary.corruptions_fixed
        } else {
            &mut self.summary.corruptions
        };
        *sum = sum.saturating_add(1);
        let verb = if repairs { "Repairing" } else { "ERROR" };
        self.tell(FindingKind::Corruption, format!("{verb} {what}"), repairs);
    }

    fn tell(&mut self, kind: FindingKind, message: String, repaired: bool) {
        (self.found)(&Finding { kind, message, repaired, wordless_in_qemu: false });
    }

    fn copy(&self, from: u64, to: u64, len: u64) -> Result<()> {
        let writer = self.writer()?;
        let mut buffer = vec![0; num::to_usize(len.min(1 << 20))?];
        let mut done = 0;
        while done < len {
            let piece = num::to_usize(len.saturating_sub(done))?.min(buffer.len());
            let piece = buffer.get_mut(..piece).unwrap_or_default();
            let (from, to) = (from.saturating_add(done), to.saturating_add(done));
            self.file.read_exact_at(piece, from).map_err(Error::io("read cluster", from))?;
            writer.write_all_at(piece, to).map_err(Error::io("copy cluster", to))?;
            done = done.saturating_add(num::to_u64(piece.len()));
        }
        Ok(())
    }

    fn writer(&self) -> Result<&dyn StorageWrite> {
        self.file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))
    }

    fn sync(&self) -> Result<()> {
        self.writer()?.sync().map_err(Error::io("make writes durable", 0))
    }
}
