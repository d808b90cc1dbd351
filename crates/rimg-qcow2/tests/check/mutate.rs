//! Damage at random, for as long as one likes: a fuzzer for those who have none at hand.

use crate::damage::{BASES, OFFSET, word};
use rimg_core::num;
use rimg_testkit::peer::Peer;
use rimg_testkit::{Rng, fuzz};
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

/// Takes as long as `RIMG_FUZZ_SECONDS` says, from the seed `RIMG_FUZZ_SEED`.
#[test]
fn random_damage_is_repaired() {
    let (Some(img), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (img, io) = (img.in_dir(&dir), io.in_dir(&dir));
    let bases: Vec<Vec<u8>> = BASES.iter().map(|base| base.make(&img, &io, dir.path())).collect();
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap())
    };
    let seed = number("RIMG_FUZZ_SEED", 1);
    let end = Instant::now() + Duration::from_secs(number("RIMG_FUZZ_SECONDS", 3));
    let mut rng = Rng::new(seed);
    let mut turns = 0;
    let mut failed = Vec::new();
    while Instant::now() < end && failed.len() < 20 {
        turns += 1;
        let base = &bases[usize::try_from(rng.below(num::to_u64(bases.len()))).unwrap()];
        let damaged = damage(base, &mut rng);
        let input = damaged.clone();
        let start = Instant::now();
        if catch_unwind(|| fuzz::check_repair(&rimg_qcow2::DRIVER, &input)).is_err() {
            let path = std::env::temp_dir().join(format!("check_repair-{seed}-{turns}"));
            std::fs::write(&path, &damaged).unwrap();
            failed.push(path);
        }
        assert!(start.elapsed() < Duration::from_secs(20), "turn {turns} of seed {seed} is slow");
    }
    println!("{turns} images");
    assert!(turns > 10, "only {turns} images");
    assert!(failed.is_empty(), "of {turns} images failed: {failed:#?}");
}

fn damage(image: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut damaged = image.to_vec();
    let cluster = 1_u64 << (word(image, 20) >> 32);
    let clusters = num::to_u64(image.len()) / cluster;
    let l1 = word(image, 40);
    let refcounts = word(image, 48);
    let tables = [l1, refcounts, word(image, l1) & OFFSET, word(image, refcounts), word(image, 64)];
    for _ in 0..=rng.below(4) {
        let table = tables[usize::try_from(rng.below(5)).unwrap()];
        let at = match rng.below(8) {
            0 => 8 * rng.below(13),
            1 => rng.below(num::to_u64(image.len()) - 8),
            _ => table + 8 * rng.below(12),
        };
        let old = word(image, num::align_down(at, 8));
        let place = rng.below(clusters + 3) * cluster;
        let value = match rng.below(8) {
            0 => 0,
            1 => old ^ (1 << rng.below(64)),
            2 => place,
            3 => place | 1 << 63,
            4 => place | 1 << 62 | rng.below(4) << 58,
            5 => rng.next_u64() & 0x0003_0003_0003_0003,
            6 => place | 1 << 63 | rng.below(512),
            _ => rng.next_u64(),
        };
        let at = num::to_usize(at).unwrap();
        damaged[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    if rng.one_in(20) {
        damaged.truncate(num::to_usize(rng.below(num::to_u64(image.len()))).unwrap());
    }
    damaged
}
