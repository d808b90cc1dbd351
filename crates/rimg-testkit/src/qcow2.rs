//! Knowledge of qcow2 that does not come from the crate under test.

use rimg_core::{BlockImage, ExtentKind, num};
use std::collections::{BTreeMap, BTreeSet};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Whether guest bytes that could be read from the image `before` read otherwise from the one
/// `after` that a repair of its bytes, `damaged`, made of it; and where. Bytes that lie on top of
/// metadata are left out, and images in which metadata lies on top of other metadata: they are what
/// is repaired.
#[must_use]
pub fn guest_differs(
    damaged: &[u8],
    before: &dyn BlockImage,
    after: &dyn BlockImage,
) -> Option<String> {
    const STEP: u64 = 4096;
    const MOST: u64 = 8 << 20;
    let metadata = metadata_sectors(damaged)?;
    let size = before.size_bytes();
    let mut buffers = (vec![0; 4096], vec![0; 4096]);
    // The beginning and the end of a disk that is too large.
    let parts = [0..size.min(MOST), size.saturating_sub(STEP).max(size.min(MOST))..size];
    for mut at in parts.into_iter().flat_map(|part| part.step_by(4096)) {
        let end = at.saturating_add(STEP).min(size);
        while at < end {
            let Ok(extent) = before.extent_at(at..end) else { break };
            let len = extent.len_bytes;
            let (old, new) = (&mut buffers.0, &mut buffers.1);
            let (old, new) =
                (&mut old[..num::to_usize(len).unwrap()], &mut new[..num::to_usize(len).unwrap()]);
            let is_metadata = match extent.kind {
                ExtentKind::Data(place) => touches(&metadata, place.file, place.host.0, len),
                ExtentKind::Encoded { at, len_bytes, .. } => {
                    touches(&metadata, at.file, at.host.0, len_bytes)
                }
                _ => false,
            };
            if !is_metadata && before.read_at(old, at).is_ok() {
                if let Err(error) = after.read_at(new, at) {
                    return Some(format!("guest offset {at:#x} cannot be read any more: {error}"));
                }
                if old != new {
                    return Some(format!("guest offset {at:#x} has changed"));
                }
            }
            at += len;
        }
    }
    None
}

/// What lies somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header,
    Refcounts,
    Snapshots,
    L1,
    L2,
}

fn touches(metadata: &BTreeSet<u64>, file: u16, host: u64, len: u64) -> bool {
    let first = num::align_down(host, 512);
    file == 0 && metadata.range(first..host.saturating_add(len)).next().is_some()
}

fn word(image: &[u8], at: u64) -> u64 {
    let bytes = usize::try_from(at).ok().and_then(|at| image.get(at..)?.first_chunk());
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The offsets of all sectors that metadata of an image lies in; `None` where different metadata
/// lies in one place.
fn metadata_sectors(image: &[u8]) -> Option<BTreeSet<u64>> {
    let cluster = 1_u64 << (word(image, 20) >> 32).clamp(9, 21);
    let get = |at: u64| word(image, at);
    let table = |at: u64, entries: u64| (0..entries).map(move |i| at.saturating_add(8 * i));
    let mut found: BTreeMap<u64, (Kind, u64)> = BTreeMap::new();
    let mut overlap = false;
    let mut add = |kind, at: u64, bytes: u64| {
        // What lies behind the end is nobody's.
        let bytes = bytes.min(num::to_u64(image.len()).saturating_sub(at));
        for sector in at / 512..at.saturating_add(bytes).div_ceil(512) {
            let known = *found.entry(sector * 512).or_insert((kind, at));
            overlap |= known != (kind, at);
        }
    };
    add(Kind::Header, 0, cluster);
    let (l1, entries) = (get(40), (get(36) >> 32).min(1024));
    add(Kind::L1, l1, entries * 8);
    for at in table(l1, entries) {
        match get(at) & OFFSET {
            0 => {}
            table => add(Kind::L2, table, cluster),
        }
    }
    let (refcounts, clusters) = (get(48), (get(56) >> 32).min(4));
    add(Kind::Refcounts, refcounts, clusters * cluster);
    for at in table(refcounts, clusters * cluster / 8) {
        match get(at) & !0x1ff {
            0 => {}
            block => add(Kind::Refcounts, block, cluster),
        }
    }
    let snapshots = get(64);
    let mut snapshot = snapshots;
    for _ in 0..(get(60) >> 32).min(1024) {
        add(Kind::Snapshots, snapshots, 512);
        let (l1, entries) = (get(snapshot), (get(snapshot.saturating_add(8)) >> 32).min(1024));
        add(Kind::L1, l1, entries * 8);
        for at in table(l1, entries) {
            match get(at) & OFFSET {
                0 => {}
                table => add(Kind::L2, table, cluster),
            }
        }
        let sizes = get(snapshot.saturating_add(8));
        let texts = (sizes >> 16 & 0xffff) + (sizes & 0xffff);
        let extra = get(snapshot.saturating_add(32)) & 0xffff_ffff;
        snapshot = snapshot.saturating_add(40 + extra + texts).next_multiple_of(8);
    }
    (!overlap).then(|| found.into_keys().collect())
}
