//! A quick look at whether a cluster can shrink at all.
//!
//! Media and archives are compressed already, and to deflate them only to find that they grew is
//! most of the work of an image full of them. Such bytes have two marks: all values are equally
//! frequent, and nothing repeats. The look is at a fixed sample, so the answer depends on the
//! cluster only.

/// Below this length encoding takes hardly longer than looking.
const MIN_LEN: usize = 4 << 10;

/// Pieces of the cluster whose bytes are counted.
const PIECES: usize = 32;
/// Bytes of a piece.
const PIECE_LEN: usize = 256;

/// How far from equally frequent values may be, as a multiple of what chance explains.
///
/// The sum of squared deviations over the expected count is the chi-squared statistic; with 255
/// degrees of freedom chance keeps it below 1.6 × 255 in all but one of 10⁹ clusters. 32 zeroes
/// too many in 8 KiB exceed it.
const MAX_SPREAD_PERCENT: u64 = 160;

/// Distance of the stretches at which a repetition is looked for.
const STRIDE: usize = 256;
/// Positions of a stretch that are looked up, and the distance of those that are remembered. A
/// stretch that repeats contains one of these, wherever it was before.
const STEP: usize = 16;
/// Bytes that have to be equal.
const SAME: usize = size_of::<u64>();
/// log2 of the positions remembered.
const TABLE_BITS: u32 = 12;
/// Repetitions from which on the cluster can shrink.
const MIN_REPETITIONS: usize = 2;

/// Whether `cluster` may become shorter when bytes at most `window` away can be referred to.
pub(super) fn may_shrink(cluster: &[u8], window: usize) -> bool {
    cluster.len() < MIN_LEN || has_favourites(cluster) || repeats(cluster, window)
}

/// Whether some values are more frequent than others.
fn has_favourites(cluster: &[u8]) -> bool {
    let distance = cluster.len() / PIECES;
    let mut counts = [0_u32; 256];
    let mut total = 0;
    for piece in cluster.chunks(distance) {
        let piece = &piece[..piece.len().min(PIECE_LEN)];
        for &byte in piece {
            counts[usize::from(byte)] += 1;
        }
        total += piece.len();
    }
    // With n bytes of 256 values: sum((count - n/256)^2 / (n/256)) = sum(count^2) * 256/n - n.
    let squares: u64 = counts.iter().map(|&count| u64::from(count) * u64::from(count)).sum();
    let total = u64::try_from(total).unwrap_or(u64::MAX);
    let spread = (squares * 256 / total).saturating_sub(total);
    spread * 100 > 255 * MAX_SPREAD_PERCENT
}

/// Whether some sequences occur again.
fn repeats(cluster: &[u8], window: usize) -> bool {
    let mut remembered = [0_u32; 1 << TABLE_BITS];
    let mut repetitions = 0;
    for stretch in (0..cluster.len().saturating_sub(STRIDE + SAME)).step_by(STRIDE) {
        for at in stretch..stretch + STEP {
            let here = load(cluster, at);
            let from = position(remembered[slot(here)]);
            if from < at && at - from <= window && load(cluster, from) == here {
                repetitions += 1;
                break;
            }
        }
        if repetitions == MIN_REPETITIONS {
            return true;
        }
        for at in (stretch..stretch + STRIDE).step_by(STEP) {
            remembered[slot(load(cluster, at))] = u32::try_from(at).unwrap_or(0);
        }
    }
    false
}

fn load(cluster: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(cluster[at..at + SAME].try_into().expect("a range of eight bytes"))
}

fn slot(bytes: u64) -> usize {
    let spread = bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS);
    usize::try_from(spread).unwrap_or(0)
}

fn position(remembered: u32) -> usize {
    usize::try_from(remembered).unwrap_or(usize::MAX)
}
