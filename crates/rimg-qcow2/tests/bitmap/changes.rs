//! Random changes to an image and its bitmaps, and what they should make of both.

use crate::common::{self, Kind, Op, apply};
use proptest::prelude::*;
use rimg_core::{BlockImage, Preallocation, SnapshotSelector};
use rimg_testkit::ModelDisk;
use std::collections::BTreeMap;
use std::ops::Range;

/// A change to an image or to one of its bitmaps.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Disk(Op),
    Add { name: u8, granularity_bits: Option<u32> },
    Remove { name: u8 },
    Clear { name: u8 },
    Enable { name: u8, enabled: bool },
    Mark { name: u8, at: u64, len: u64 },
    Grow { by_sectors: u64, preallocate: bool },
}

/// Changes anywhere, fewer than `max`.
pub(crate) fn changes(max: usize) -> impl Strategy<Value = Vec<Change>> {
    let name = 0_u8..4;
    let change = prop_oneof![
        8 => common::ops(2).prop_map(|mut ops| Change::Disk(ops.remove(0))),
        2 => (name.clone(), proptest::option::of(9_u32..22))
            .prop_map(|(name, granularity_bits)| Change::Add { name, granularity_bits }),
        1 => name.clone().prop_map(|name| Change::Remove { name }),
        1 => name.clone().prop_map(|name| Change::Clear { name }),
        1 => (name.clone(), any::<bool>())
            .prop_map(|(name, enabled)| Change::Enable { name, enabled }),
        1 => (name, 0_u64..(2 << 20), 0_u64..200_000)
            .prop_map(|(name, at, len)| Change::Mark { name, at, len }),
        1 => (1_u64..4096, any::<bool>())
            .prop_map(|(by_sectors, preallocate)| Change::Grow { by_sectors, preallocate }),
    ];
    proptest::collection::vec(change, 1..max)
}

/// A bitmap as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) granularity: u64,
    pub(crate) enabled: bool,
    bits: Vec<bool>,
    /// The disk when the bitmap began to follow it: a bit is set for all that differs.
    pub(crate) start: Vec<u8>,
}

impl Truth {
    fn set(&mut self, range: &Range<u64>) {
        if !range.is_empty() {
            let first = usize::try_from(range.start / self.granularity).unwrap();
            let last = usize::try_from((range.end - 1) / self.granularity).unwrap();
            self.bits[first..=last].fill(true);
        }
    }

    /// The disk has another size; what it has gained is nothing new.
    fn resize(&mut self, size: u64) {
        self.bits.resize(usize::try_from(size.div_ceil(self.granularity)).unwrap(), false);
        self.start.resize(usize::try_from(size).unwrap(), 0);
    }

    /// The runs of set bits, in bytes of a disk of `size`.
    pub(crate) fn runs(&self, size: u64) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (start, _) in (0..)
            .step_by(usize::try_from(self.granularity).unwrap())
            .zip(&self.bits)
            .filter(|(_, bit)| **bit)
        {
            let end = (start + self.granularity).min(size);
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }
}

/// What a bitmap is called.
pub(crate) fn name_of(name: u8) -> String {
    format!("bitmap {name}")
}

/// Makes a change to an image, to the disk that it should be and to its bitmaps as they should be.
/// [`Op::Reopen`] is the caller's.
pub(crate) fn make(
    change: &Change,
    kind: &Kind,
    image: &dyn BlockImage,
    disk: &mut ModelDisk,
    truth: &mut BTreeMap<u8, Truth>,
) {
    let size = disk.size_bytes();
    let cut = |at: u64, len: u64| at % size..(at % size + len).min(size);
    let editor = image.bitmaps().unwrap().editor().unwrap();
    match change {
        Change::Disk(Op::Grow { by_sectors }) => grow(image, disk, truth, *by_sectors, false),
        Change::Grow { by_sectors, preallocate } => {
            grow(image, disk, truth, *by_sectors, *preallocate);
        }
        Change::Disk(Op::Apply { .. }) if !truth.is_empty() => {
            let Some(name) = disk.snapshot_names().first().cloned() else { return };
            let wanted = SnapshotSelector::IdOrName(name);
            let error = image.snapshots().unwrap().editor().unwrap().apply(&wanted).unwrap_err();
            assert_eq!(error.to_string(), "Device has active dirty bitmaps");
        }
        Change::Disk(op) => {
            apply(op, image, disk);
            let size = disk.size_bytes();
            truth.values_mut().for_each(|bitmap| bitmap.resize(size));
            let changed = match op {
                Op::Write { at, len, .. } | Op::Zero { at, len } | Op::Discard { at, len } => {
                    cut(*at, *len)
                }
                Op::Compressed { cluster, .. } if !kind.data_file => {
                    let bytes = 1_u64 << kind.cluster_bits;
                    cut(cluster % size.div_ceil(bytes) * bytes, bytes)
                }
                _ => 0..0,
            };
            for bitmap in truth.values_mut().filter(|bitmap| bitmap.enabled) {
                bitmap.set(&changed);
            }
        }
        Change::Add { name, granularity_bits } => {
            let granularity = granularity_bits.map(|bits| 1 << bits);
            let added = editor.add(&name_of(*name), granularity);
            assert_eq!(added.is_ok(), !truth.contains_key(name), "{added:?}");
            let granularity =
                granularity.unwrap_or_else(|| (1 << kind.cluster_bits).clamp(4096, 65536));
            let bits = vec![false; usize::try_from(size.div_ceil(granularity)).unwrap()];
            let start = disk.read(0..size);
            truth.entry(*name).or_insert(Truth { granularity, enabled: true, bits, start });
        }
        Change::Remove { name } => {
            let removed = editor.remove(&name_of(*name));
            assert_eq!(removed.is_ok(), truth.remove(name).is_some(), "{removed:?}");
        }
        Change::Clear { name } => {
            let cleared = editor.clear(&name_of(*name));
            assert_eq!(cleared.is_ok(), truth.contains_key(name), "{cleared:?}");
            truth.entry(*name).and_modify(|bitmap| {
                bitmap.bits.fill(false);
                bitmap.start = disk.read(0..size);
            });
        }
        Change::Enable { name, enabled } => {
            let done = editor.set_enabled(&name_of(*name), *enabled);
            assert_eq!(done.is_ok(), truth.contains_key(name), "{done:?}");
            truth.entry(*name).and_modify(|bitmap| {
                if *enabled && !bitmap.enabled {
                    // What was written meanwhile has no bit.
                    bitmap.start = disk.read(0..size);
                }
                bitmap.enabled = *enabled;
            });
        }
        Change::Mark { name, at, len } => {
            let range = cut(*at, *len);
            let marked = editor.mark(&name_of(*name), range.clone());
            assert_eq!(marked.is_ok(), truth.contains_key(name), "{marked:?}");
            truth.entry(*name).and_modify(|bitmap| bitmap.set(&range));
        }
    }
}

fn grow(
    image: &dyn BlockImage,
    disk: &mut ModelDisk,
    truth: &mut BTreeMap<u8, Truth>,
    by_sectors: u64,
    preallocate: bool,
) {
    let old = disk.size_bytes();
    let size = old + by_sectors * 512;
    let how = if preallocate { Preallocation::Metadata } else { Preallocation::Off };
    image.resizer().unwrap().resize(size, how).unwrap();
    disk.resize(size);
    truth.values_mut().for_each(|bitmap| bitmap.resize(size));
}
