//! How large an image would become.
//!
//! The sum is qemu-img's: header, L1 table, all L2 tables and all refcounts that the whole disk
//! could need, as if nothing had ever been moved, and the clusters with data.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::{Geometry, RefcountOrder};
use crate::bitmap::bitmaps_bytes;
use crate::crypt::NewEncryption;
use crate::options::{check_extended_l2, cluster, is_on, refuse};
use crate::spec;
use core::ops::Range;
use rimg_core::{BitmapInfo, Measure, Measured, Preallocation, RawOptions, Result};

/// Begins to measure an image of `size_bytes`.
pub(crate) fn measure(size_bytes: u64, raw: &RawOptions) -> Result<Qcow2Measure> {
    let (version, geometry, preallocation, luks_bytes) = read_options(raw)?;
    let size = size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES).unwrap_or(u64::MAX);
    if geometry.l1_entries_for(size).saturating_mul(8) > spec::MAX_L1_BYTES {
        return refuse("size", "The image size is too large (try using a larger cluster size)");
    }
    let takes_all = matches!(preallocation, Preallocation::Falloc | Preallocation::Full);
    Ok(Qcow2Measure {
        geometry,
        disk_clusters: geometry.clusters_for(size),
        luks_clusters: geometry.clusters_for(luks_bytes),
        counted: 0,
        next_cluster: 0,
        takes_all,
        bitmaps_for: (version >= 3).then_some(size_bytes),
    })
}

/// Looks at the options in the order in which qemu-img does, which is not that of `create`. What
/// does not change the size is not looked at.
fn read_options(raw: &RawOptions) -> Result<(u32, Geometry, Preallocation, u64)> {
    let cluster = cluster(raw)?;
    let extended_l2 = is_on(raw, "extended_l2")?.unwrap_or(false);
    if extended_l2 {
        check_extended_l2(cluster)?;
    }
    let version = match raw.value("compat") {
        None | Some("1.1" | "v3") => 3,
        Some("0.10" | "v2") => 2,
        Some(other) => {
            return refuse("compat", format!("Invalid compatibility level: '{other}'"));
        }
    };
    let refcount = refcount(raw, version)?;
    let preallocation = match raw.value("preallocation") {
        None => Preallocation::Off,
        Some(name) => match Preallocation::from_name(name) {
            Some(mode) => mode,
            None => return refuse("preallocation", format!("invalid parameter value: {name}")),
        },
    };
    let luks_bytes = match raw.value("encrypt.format") {
        Some("luks") => NewEncryption::parse(raw, false)?.map_or(0, |new| new.header_bytes()),
        _ => 0,
    };
    let geometry =
        Geometry { cluster, extended_l2, zero_flag: version >= 3 && !extended_l2, refcount };
    Ok((version, geometry, preallocation, luks_bytes))
}

fn refcount(raw: &RawOptions, version: u32) -> Result<RefcountOrder> {
    let bits = raw.value("refcount_bits").map_or(Ok(16), str::parse::<u64>);
    let order = bits.ok().and_then(|bits| {
        let order = RefcountOrder::new(bits.trailing_zeros()).ok()?;
        (u64::from(order.bits()) == bits).then_some(order)
    });
    match order {
        None => refuse(
            "refcount_bits",
            "Refcount width must be a power of two and may not exceed 64 bits",
        ),
        Some(order) if order.bits() != 16 && version < 3 => refuse(
            "refcount_bits",
            "Different refcount widths than 16 bits require compatibility level 1.1 or above \
             (use compat=1.1 or greater)",
        ),
        Some(order) => Ok(order),
    }
}

/// Counts the clusters that data falls into.
#[derive(Debug)]
pub(crate) struct Qcow2Measure {
    geometry: Geometry,
    disk_clusters: u64,
    /// For the LUKS header with its key material; no refcounts are counted for them.
    luks_clusters: u64,
    /// The clusters with data so far.
    counted: u64,
    /// The first guest cluster that data was not seen in.
    next_cluster: u64,
    /// All of the disk will need space, whatever data there is.
    takes_all: bool,
    /// The size of the disk, where the version has bitmaps.
    bitmaps_for: Option<u64>,
}

impl Measure for Qcow2Measure {
    fn add_data(&mut self, range: Range<u64>) {
        let first = self.geometry.cluster_index(range.start).max(self.next_cluster);
        let end = self.geometry.clusters_for(range.end).min(self.disk_clusters);
        if range.is_empty() || first >= end {
            return;
        }
        self.counted = self.counted.saturating_add(end.saturating_sub(first));
        self.next_cluster = end;
    }

    fn bitmaps_bytes(&self, bitmaps: &[BitmapInfo]) -> Option<u64> {
        let disk_bytes = self.bitmaps_for?;
        Some(bitmaps_bytes(bitmaps, disk_bytes, self.geometry.cluster_bytes()))
    }

    fn measured(&self) -> Measured {
        let full = full_file_clusters(self.geometry, self.disk_clusters);
        let full = full.saturating_add(self.luks_clusters);
        let unused =
            if self.takes_all { 0 } else { self.disk_clusters.saturating_sub(self.counted) };
        Measured {
            required_bytes: self.geometry.cluster_offset(full.saturating_sub(unused)),
            fully_allocated_bytes: self.geometry.cluster_offset(full),
        }
    }
}

/// How many clusters a file with all of the disk has. The L1 table counts as whole clusters, and
/// as many refcount blocks and table clusters as describe everything, themselves included.
fn full_file_clusters(g: Geometry, disk_clusters: u64) -> u64 {
    let l2_tables = disk_clusters.div_ceil(g.l2_entries());
    let l1 = g.clusters_for(l2_tables.saturating_mul(8));
    let described = disk_clusters.saturating_add(1).saturating_add(l2_tables).saturating_add(l1);
    let mut refcounts = 0;
    loop {
        let blocks = described.saturating_add(refcounts).div_ceil(g.refcounts_per_block());
        let table = g.clusters_for(blocks.saturating_mul(8));
        let needed = blocks.saturating_add(table);
        if needed <= refcounts {
            return described.saturating_add(refcounts);
        }
        refcounts = needed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_core::Error;

    fn measured(size: u64, options: RawOptions, data: &[Range<u64>]) -> (u64, u64) {
        let mut measure = measure(size, &options).unwrap();
        for range in data {
            measure.add_data(range.clone());
        }
        let measured = measure.measured();
        (measured.required_bytes, measured.fully_allocated_bytes)
    }

    /// The numbers are those of `qemu-img measure -O qcow2`.
    #[test]
    fn tables_of_the_whole_disk_count() {
        let cluster = |size: &str| RawOptions::new().with("cluster_size", size);
        for (size, options, expected) in [
            (0, RawOptions::new(), (196_608, 196_608)),
            (1000, RawOptions::new(), (327_680, 393_216)),
            (1 << 30, RawOptions::new(), (393_216, 1_074_135_040)),
            (1 << 30, cluster("4096"), (2_637_824, 1_076_379_648)),
            (64 << 30, cluster("512").with("refcount_bits", "64"), (2_216_208_384, 70_935_685_120)),
            (100 << 40, RawOptions::new(), (16_779_902_976, 109_967_942_680_576)),
            (1 << 30, RawOptions::new().with("extended_l2", "on"), (524_288, 1_074_266_112)),
        ] {
            assert_eq!(measured(size, options.clone(), &[]), expected, "{size} {options:?}");
        }
    }

    #[test]
    fn a_cluster_with_several_runs_counts_once() {
        let none = measured(1 << 30, RawOptions::new(), &[]).0;
        let runs = [0..512, 1024..65_536, 65_536..65_537, 131_071..131_073, 5 << 20..6 << 20];
        assert_eq!(measured(1 << 30, RawOptions::new(), &runs).0, none + (19 << 16));
        let behind = (1 << 30) - 1..(1 << 30) + (5 << 20);
        let behind = core::slice::from_ref(&behind);
        assert_eq!(measured(1 << 30, RawOptions::new(), behind).0, none + (1 << 16));
    }

    #[test]
    fn wrong_options_are_named_in_the_words_of_measure() {
        let reason = |raw: &RawOptions| match measure(1, raw) {
            Err(Error::InvalidOption { reason, .. }) => reason,
            other => panic!("{raw:?}: {other:?}"),
        };
        let raw = RawOptions::new().with("preallocation", "x").with("compat", "1");
        assert_eq!(reason(&raw), "Invalid compatibility level: '1'");
        let raw = RawOptions::new().with("preallocation", "x").with("compat", "v3");
        assert_eq!(reason(&raw), "invalid parameter value: x");
        let raw = RawOptions::new().with("refcount_bits", "8").with("compat", "v2");
        assert!(reason(&raw).ends_with("(use compat=1.1 or greater)"));
        let raw = RawOptions::new().with("cluster_size", "512");
        assert!(measure(128 << 30, &raw).is_ok());
        assert!(matches!(measure((128 << 30) + 1, &raw), Err(Error::InvalidOption { .. })));
    }
}
