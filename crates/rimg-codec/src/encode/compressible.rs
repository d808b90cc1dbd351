//! A quick look at whether a cluster can shrink at all.
//!
//! Media and archives are compressed already, and to deflate them only to find that they grew is
//! most of the work of an image full of them. Such bytes have two marks: all values are equally
//! frequent, and nothing repeats. The look is at a fixed sample, so the answer depends on the
//! cluster only.

/// Below this length encoding takes hardly longer than looking.
const MIN_LEN: usize = 4 << 10;

/// Pieces of the cluster whose bytes are counted, each by itself: what is frequent in one place
/// may be rare in the next.
const PIECES: usize = 32;
/// Bytes of a piece: as many as there are values, so that one of each is what chance gives.
const PIECE_LEN: usize = 256;

/// How far from equally frequent values may be, in per cent of what chance explains.
///
/// With one of each expected, the squared deviations sum up to the chi-squared statistic, 255 by
/// chance with a deviation of 22.6; over 32 pieces five per cent are three deviations. A piece of
/// text adds 50 %, and values whose entropy is 0.5 % short of eight bits add 6 %.
const MAX_SPREAD_PERCENT: u64 = 105;

/// Distance of the stretches at which a repetition is looked for.
const STRIDE: usize = 64;
/// Positions of a stretch that are looked up, and the distance of those that are remembered. A
/// stretch that repeats contains one of these, wherever it was before.
const STEP: usize = 8;
/// Bytes that have to be equal.
const SAME: usize = size_of::<u64>();
/// log2 of the positions remembered.
const TABLE_BITS: u32 = 13;
/// Repetitions from which on the cluster can shrink. An eighth of them is found.
const MIN_REPETITIONS: usize = 3;

/// Whether `cluster` may become shorter when bytes at most `window` away can be referred to.
pub(super) fn may_shrink(cluster: &[u8], window: usize) -> bool {
    cluster.len() < MIN_LEN || has_favourites(cluster) || repeats(cluster, window)
}

/// Whether some values are more frequent than others.
fn has_favourites(cluster: &[u8]) -> bool {
    let mut spread = 0;
    let mut chance = 0;
    for piece in cluster.chunks((cluster.len() / PIECES).max(PIECE_LEN)) {
        let Some(piece) = piece.first_chunk::<PIECE_LEN>() else { continue };
        let mut counts = [0_u16; 256];
        for &byte in piece {
            counts[usize::from(byte)] += 1;
        }
        // The squared deviations from one, given that the counts sum up to 256.
        let squares: u64 = counts.iter().map(|&count| u64::from(count) * u64::from(count)).sum();
        spread += squares - 256;
        chance += 255;
    }
    spread * 100 > chance * MAX_SPREAD_PERCENT
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

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 4096;

    #[test]
    fn noise_does_not_shrink() {
        let taken = (0..1000).filter(|&seed| may_shrink(&noise(65536, seed), WINDOW)).count();
        assert!(taken < 10, "{taken} of 1000");
    }

    #[test]
    fn text_numbers_and_zeroes_shrink() {
        let text: Vec<u8> =
            (0_u32..).flat_map(|n| format!("{n} ").into_bytes()).take(65536).collect();
        assert!(may_shrink(&text, WINDOW));
        let numbers: Vec<u8> = (0_u32..16384).flat_map(|n| (n * 40_503).to_le_bytes()).collect();
        assert!(may_shrink(&numbers, WINDOW));
        assert!(may_shrink(&[0; 65536], WINDOW));
    }

    #[test]
    fn four_kib_of_text_in_noise_are_seen() {
        for at in (0..60 << 10).step_by(1000) {
            let mut cluster = noise(65536, 1);
            let text = b"the quick brown fox jumps over the lazy dog ".iter().cycle();
            for (byte, &letter) in cluster[at..at + 4096].iter_mut().zip(text) {
                *byte = letter;
            }
            assert!(may_shrink(&cluster, WINDOW), "at {at}");
        }
    }

    #[test]
    fn repeated_noise_is_seen_within_the_window() {
        let block = noise(3000, 1);
        let cluster = block.repeat(20);
        assert!(may_shrink(&cluster, WINDOW));
        let far = noise(20_000, 1).repeat(3);
        assert!(!may_shrink(&far, WINDOW));
        assert!(may_shrink(&far, usize::MAX));
    }

    #[test]
    fn short_clusters_are_always_tried() {
        assert!(may_shrink(&noise(512, 1), WINDOW));
        assert!(may_shrink(&[], WINDOW));
    }

    /// SplitMix64.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0xda94_2042_e4dd_58b5);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        };
        (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(len).collect()
    }
}
