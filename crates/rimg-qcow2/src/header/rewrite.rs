//! Replacing the header on disk so that a crash leaves the old one or the new one.
//!
//! Disks write sectors whole, but of several sectors any may be lost. An extension that comes or
//! goes moves the backing file's name to other sectors than the one with the name's offset, so the
//! name is first copied to where neither header has anything, and comes home in the end.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{Header, RawHeaderV2};
use crate::spec;
use rimg_core::{Result, num};

/// Sectors to be written before anything else is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where in the file, in bytes.
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What turns the first cluster from `old`, as it is on disk, to what holds `new`: to be written in
/// order, each durable before the next.
///
/// A header whose backing file changes is written in one go.
///
/// # Errors
/// When `new` does not fit into the cluster.
pub(crate) fn steps(old: &[u8], new: &Header) -> Result<Vec<Step>> {
    let mut images = images(old, new)?;
    images.insert(0, old.to_vec());
    let pairs = images.iter().zip(images.iter().skip(1));
    Ok(pairs.filter_map(|(from, to)| step(from, to)).collect())
}

/// The first cluster as it is to be after each step.
fn images(old: &[u8], new: &Header) -> Result<Vec<Vec<u8>>> {
    let mut home = new.encode()?;
    home.resize(old.len(), 0);
    if differing_sectors(old, &home).len() <= 1 {
        return Ok(vec![home]);
    }
    let Ok(before) = Header::parse(old) else { return Ok(vec![home]) };
    let keeps_backing =
        before.backing_name == new.backing_name && before.backing_format() == new.backing_format();
    let Some(name) = new.backing_name.as_ref().filter(|_| keeps_backing) else {
        return Ok(between(old, &home).into_iter().chain([home.clone()]).collect());
    };
    let far = end_of(old).max(end_of(&home)).next_multiple_of(8);
    let far_offset = num::to_u64(far).to_be_bytes();
    let name_offset = num::to_usize(RawHeaderV2::offset_of("backing_file_offset"))?;
    let copied = with(old, far, name.as_bytes());
    let moved = copied.as_ref().and_then(|image| with(image, name_offset, &far_offset));
    let home_and_far = with(&home, far, name.as_bytes());
    let listed = home_and_far.as_ref().and_then(|image| with(image, name_offset, &far_offset));
    let (Some(copied), Some(moved), Some(listed), Some(home_and_far)) =
        (copied, moved, listed, home_and_far)
    else {
        return Ok(vec![home]);
    };
    // A list of extensions may also end where the name began.
    if Header::parse(&moved).ok() != Some(before) {
        return Ok(vec![home]);
    }
    let mut images = vec![copied, moved];
    images.extend(images.last().and_then(|moved| between(moved, &listed)));
    images.extend([listed, home_and_far, home]);
    Ok(images)
}

/// What may be written first of two headers that differ in more than the first sector, and shows
/// one of them: the rest before the first sector, or the first sector before the rest.
fn between(from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let sector = usize::try_from(spec::SECTOR_BYTES).ok()?;
    if !differing_sectors(from, to).contains(&0) {
        return None;
    }
    let rest_first = [from.get(..sector)?, to.get(sector..)?].concat();
    let head_first = [to.get(..sector)?, from.get(sector..)?].concat();
    let shows = |image: &[u8], header: &[u8]| match (Header::parse(image), Header::parse(header)) {
        (Ok(shown), Ok(header)) => shown == header,
        _ => false,
    };
    if shows(&rest_first, from) {
        Some(rest_first)
    } else {
        shows(&head_first, to).then_some(head_first)
    }
}

/// The sectors by which two clusters differ, from the first to the last.
fn step(from: &[u8], to: &[u8]) -> Option<Step> {
    let sectors = differing_sectors(from, to);
    let (first, last) = (sectors.first()?, sectors.last()?);
    let at = first.saturating_mul(spec::SECTOR_BYTES);
    let end = last.saturating_add(1).saturating_mul(spec::SECTOR_BYTES);
    let start = usize::try_from(at).ok()?;
    let end = usize::try_from(end).ok()?.min(to.len());
    Some(Step { at, bytes: to.get(start..end)?.to_vec() })
}

fn differing_sectors(from: &[u8], to: &[u8]) -> Vec<u64> {
    let sector = usize::try_from(spec::SECTOR_BYTES).unwrap_or(usize::MAX);
    let pairs = (0_u64..).zip(from.chunks(sector).zip(to.chunks(sector)));
    pairs.filter(|(_, (from, to))| from != to).map(|(index, _)| index).collect()
}

/// Where the last byte that is not 0 ends.
fn end_of(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1))
}

/// A cluster with other bytes at `at`; `None` where they do not fit.
fn with(cluster: &[u8], at: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut changed = cluster.to_vec();
    changed.get_mut(at..at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(changed)
}
