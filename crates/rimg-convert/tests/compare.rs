//! Comparing finds the first difference, and what strict mode counts as one.

#![expect(clippy::as_conversions, clippy::unwrap_used, reason = "small numbers in tests")]

mod support;

use proptest::prelude::*;
use rimg_codec::Codec;
use rimg_convert::{
    CompareError, CompareOptions, Comparison, Difference, Observer, Side, Silent, compare,
};
use rimg_core::BlockImage;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::{CLUSTER, Disk, Kind};

const MIB: u64 = 1 << 20;

fn options(threads: usize, strict: bool) -> CompareOptions {
    let mut options = CompareOptions::default();
    options.threads = NonZeroUsize::new(threads);
    options.strict = strict;
    options
}

fn run(first: &dyn BlockImage, second: &dyn BlockImage, options: &CompareOptions) -> Comparison {
    compare(first, second, options, &Silent, &AtomicBool::new(false)).unwrap()
}

fn kinds() -> impl Strategy<Value = Kind> {
    // Few seeds, so that images agree often.
    prop_oneof![
        3 => (0_u8..2).prop_map(Kind::Data),
        1 => Just(Kind::ZeroData),
        2 => Just(Kind::Zero),
        1 => Just(Kind::Backing),
        2 => (0_u8..2).prop_map(Kind::Encoded),
        1 => Just(Kind::EncodedZero),
    ]
}

fn layouts() -> impl Strategy<Value = Vec<(usize, Kind)>> {
    let run = (prop_oneof![1_usize..3, 1_usize..100], kinds());
    proptest::collection::vec(run, 1..12)
}

/// What a reader of both would say.
fn expected(first: &Disk, second: &Disk) -> Comparison {
    let (mut a, mut b) = (first.contents(), second.contents());
    let sectors = |bytes: &[u8]| bytes.len().div_ceil(512);
    let common = sectors(&a).min(sectors(&b));
    let sizes_differ = sectors(&a) != sectors(&b);
    let size = sectors(&a).max(sectors(&b)) * 512;
    a.resize(size, 0);
    b.resize(size, 0);
    let sector = (0..size / 512).find(|i| a[i * 512..][..512] != b[i * 512..][..512]);
    let mut comparison = Comparison::default();
    comparison.difference = sector.map(|i| Difference::Content { at: i as u64 * 512 });
    comparison.sizes_differ = sizes_differ && sector.is_none_or(|i| i >= common);
    comparison
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_first_differing_sector_is_found(
        layout in layouts(),
        other in proptest::option::of(layouts()),
        size in 0_u64..MIB,
        other_size in proptest::option::of(0_u64..MIB),
        flips in proptest::collection::vec(0_u64..MIB, 0..3),
    ) {
        let first = Disk::new(size, &layout, Codec::Deflate, None);
        let second_size = other_size.unwrap_or(size);
        let second = Disk::new(second_size, other.as_ref().unwrap_or(&layout), Codec::Zstd, None)
            .edit_store(|store| flips.iter().for_each(|&at| store.flip(at)));
        // A flipped bit may have broken an encoded cluster.
        prop_assume!(second.read_at(&mut vec![0; second_size as usize], 0).is_ok());
        for threads in [1, 2, 4] {
            prop_assert_eq!(run(&first, &second, &options(threads, false)), expected(&first, &second));
            prop_assert_eq!(run(&second, &first, &options(threads, false)), expected(&second, &first));
        }
    }

    #[test]
    fn an_image_is_strictly_itself(layout in layouts(), size in 0_u64..MIB) {
        let first = Disk::new(size, &layout, Codec::Deflate, None);
        let second = Disk::new(size, &layout, Codec::Deflate, None);
        let comparison = run(&first, &second, &options(2, true));
        prop_assert_eq!(comparison, Comparison::default());
    }
}

#[test]
fn what_both_know_to_be_zero_is_not_read() {
    let layout = [(1000, Kind::Zero), (1, Kind::Data(1)), (0, Kind::Backing)];
    let first = Disk::new(64 * MIB, &layout, Codec::Deflate, None);
    let second = Disk::new(64 * MIB, &layout, Codec::Deflate, None);
    assert_eq!(run(&first, &second, &options(2, false)), Comparison::default());
    for disk in [&first, &second] {
        assert_eq!(disk.store.read.load(Ordering::Relaxed), CLUSTER as u64);
    }
}

#[test]
fn a_backing_image_in_common_is_not_read() {
    let base = Arc::new(Disk::new(4 * MIB, &[(0, Kind::Data(1))], Codec::Deflate, None));
    let overlay = |layout: &[_]| Disk::new(4 * MIB, layout, Codec::Deflate, Some(base.clone()));
    let first = overlay(&[(4, Kind::Backing), (1, Kind::Data(2)), (0, Kind::Backing)]);
    let second = overlay(&[(4, Kind::Backing), (1, Kind::Data(3)), (0, Kind::Backing)]);
    let found = run(&first, &second, &options(1, false));
    assert!(matches!(found.difference, Some(Difference::Content { .. })));
    assert_eq!(base.store.read.load(Ordering::Relaxed), 0);
}

#[test]
fn strict_mode_sees_sizes_and_allocation() {
    let disk = |size, layout: &[_]| Disk::new(size, layout, Codec::Deflate, None);
    let strict =
        |a: &Disk, b: &Disk| [1, 4].map(|threads| run(a, b, &options(threads, true)).difference);
    let both = |difference| [Some(difference), Some(difference)];
    let data = disk(MIB, &[(0, Kind::Data(1))]);
    assert_eq!(strict(&data, &disk(MIB + 512, &[(0, Kind::Data(1))])), both(Difference::Size));
    // A length that fills the same sectors is the same.
    assert_eq!(strict(&disk(1000, &[(0, Kind::Zero)]), &disk(1024, &[(0, Kind::Zero)])), [None; 2]);

    let zero = disk(MIB, &[(40, Kind::Data(1)), (20, Kind::Zero), (0, Kind::Data(1))]);
    let data = disk(MIB, &[(40, Kind::Data(1)), (20, Kind::ZeroData), (0, Kind::Data(1))]);
    let silent = disk(MIB, &[(40, Kind::Data(1)), (20, Kind::Backing), (0, Kind::Data(1))]);
    let at = 40 * CLUSTER as u64;
    assert_eq!(strict(&zero, &silent), both(Difference::Status { at }));
    // One run of data is not two of them.
    assert_eq!(strict(&zero, &data).map(|d| d.is_some()), [true; 2]);
    assert_eq!(run(&zero, &data, &options(2, false)), Comparison::default());

    // What comes first counts, contents or status.
    let other = disk(
        MIB,
        &[(20, Kind::Data(1)), (20, Kind::Data(2)), (20, Kind::Backing), (0, Kind::Data(1))],
    );
    let found = strict(&zero, &other);
    assert!(
        found
            .iter()
            .all(|d| matches!(d, Some(Difference::Content { at }) if *at < 41 * CLUSTER as u64)),
        "{found:?}"
    );
}

#[test]
fn differences_are_said_in_known_words() {
    assert_eq!(Difference::Content { at: 512 }.to_string(), "Content mismatch at offset 512!");
    assert_eq!(
        Difference::Status { at: 65_536 }.to_string(),
        "Strict mode: Offset 65536 block status mismatch!"
    );
    assert_eq!(Difference::Size.to_string(), "Strict mode: Image size mismatch!");
}

#[test]
fn an_error_names_the_image_unless_a_difference_comes_first() {
    let layout = [(100, Kind::Data(1)), (1, Kind::Broken), (0, Kind::Data(1))];
    let good = [(101, Kind::Data(1)), (0, Kind::Data(1))];
    let broken = Disk::new(MIB, &layout, Codec::Deflate, None);
    let whole = Disk::new(MIB, &good, Codec::Deflate, None);
    for threads in [1, 4] {
        let options = options(threads, false);
        let cancel = AtomicBool::new(false);
        match compare(&whole, &broken, &options, &Silent, &cancel) {
            Err(CompareError::Read { side: Side::Second, at, .. }) => {
                assert_eq!(at, 100 * CLUSTER as u64);
            }
            other => panic!("{other:?}"),
        }
        let early = Disk::new(
            MIB,
            &[(50, Kind::Data(1)), (1, Kind::Data(2)), (0, Kind::Zero)],
            Codec::Deflate,
            None,
        );
        let found = run(&early, &broken, &options).difference;
        assert!(matches!(found, Some(Difference::Content { at }) if at < 100 * CLUSTER as u64));
    }
}

#[derive(Default)]
struct Witness(Mutex<Vec<u64>>);

impl Observer for Witness {
    fn progress(&self, done_bytes: u64, _total_bytes: u64) {
        self.0.lock().unwrap().push(done_bytes);
    }
}

#[test]
fn progress_and_cancellation() {
    let disk = || Disk::new(8 * MIB, &[(0, Kind::Data(1))], Codec::Deflate, None);
    let witness = Witness::default();
    let cancel = AtomicBool::new(false);
    compare(&disk(), &disk(), &options(4, false), &witness, &cancel).unwrap();
    let progress = witness.0.into_inner().unwrap();
    assert!(progress.is_sorted_by(|a, b| a < b), "{progress:?}");
    assert_eq!(progress.last(), Some(&(8 * MIB)));

    cancel.store(true, Ordering::Relaxed);
    let result = compare(&disk(), &disk(), &options(4, false), &Silent, &cancel);
    assert!(matches!(result, Err(CompareError::Cancelled)), "{result:?}");
}
