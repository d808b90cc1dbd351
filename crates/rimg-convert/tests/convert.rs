//! What arrives is what was there, however it is asked for.

#![expect(clippy::as_conversions, clippy::unwrap_used, reason = "small numbers in tests")]

mod support;

use proptest::prelude::*;
use rimg_codec::Codec;
use rimg_convert::{
    ConvertError, ConvertOptions, Observer, Silent, TargetBacking, Warning, convert,
};
use rimg_core::BlockImage;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::{CLUSTER, Disk, Done, Kind, Sink};

const MIB: u64 = 1 << 20;

fn options() -> ConvertOptions {
    let mut options = ConvertOptions::default();
    options.target_is_new = true;
    options
}

fn with_threads(threads: usize, options: &ConvertOptions) -> ConvertOptions {
    let mut options = options.clone();
    options.threads = std::num::NonZeroUsize::new(threads);
    options
}

fn run(source: &dyn BlockImage, target: &Sink, options: &ConvertOptions) {
    convert(&[source], target, options, &Silent, &AtomicBool::new(false)).unwrap();
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => any::<u8>().prop_map(Kind::Data),
        1 => Just(Kind::ZeroData),
        2 => Just(Kind::Zero),
        2 => Just(Kind::Backing),
        3 => any::<u8>().prop_map(Kind::Encoded),
        1 => Just(Kind::EncodedZero),
    ]
}

fn layouts() -> impl Strategy<Value = (u64, Vec<(usize, Kind)>)> {
    let run = (prop_oneof![1_usize..4, 1_usize..200], kinds());
    (0_u64..5 * MIB / 2, proptest::collection::vec(run, 1..24))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_layout_arrives_whatever_the_options(
        (size, top) in layouts(),
        (below_size, below) in layouts(),
        codec in prop_oneof![Just(Codec::Deflate), Just(Codec::Zstd)],
        target_codec in prop_oneof![Just(Codec::Deflate), Just(Codec::Zstd)],
        sparse in prop_oneof![Just(0_u32), Just(512), Just(1536), Just(4096), Just(65_536), Just(16 << 20)],
        target_cluster in prop_oneof![Just(CLUSTER / 2), Just(CLUSTER), Just(CLUSTER * 16)],
        compress: bool,
        ordered: bool,
        in_file: bool,
        garbage: bool,
        units in proptest::option::of(1_usize..4),
    ) {
        let below: Arc<dyn BlockImage> = Arc::new(Disk::new(below_size, &below, codec, None));
        let source = Disk::new(size, &top, codec, Some(below));
        let expected = source.contents();
        let mut options = options();
        options.sparse_bytes = sparse;
        options.compress = compress;
        options.units_in_flight = units.and_then(std::num::NonZeroUsize::new);
        let mut first: Option<Vec<Done>> = None;
        for threads in [1, 2, 4] {
            let mut target = Sink::new(size, ordered).with_codec(target_codec);
            target.cluster = target_cluster;
            if in_file {
                target.file = Some(Arc::new(support::Store::default()));
            }
            if garbage {
                target = target.with_garbage();
            }
            run(&source, &target, &with_threads(threads, &options));
            prop_assert!(target.contents() == expected, "{threads} threads");
            let mut history = target.history();
            prop_assert_eq!(history.pop(), Some(Done::Flush));
            if ordered || in_file {
                prop_assert_eq!(target.most_busy.into_inner().max(1), 1);
            }
            if !ordered {
                history.sort_by_key(position);
            }
            if let Some(first) = &first {
                prop_assert!(&history == first, "{threads} threads write differently");
            }
            first = Some(history);
        }
    }

    #[test]
    fn sources_are_put_behind_each_other_in_sectors(
        layouts in proptest::collection::vec(layouts(), 1..4),
        ordered: bool,
        garbage: bool,
    ) {
        let disks: Vec<_> = layouts
            .iter()
            .map(|(size, layout)| Disk::new(*size, layout, Codec::Deflate, None))
            .collect();
        let mut expected = Vec::new();
        for disk in &disks {
            expected.resize(expected.len().next_multiple_of(512), 0);
            expected.extend(disk.contents());
        }
        let mut target = Sink::new(expected.len() as u64, ordered).with_codec(Codec::Deflate);
        if garbage {
            target = target.with_garbage();
        }
        let sources: Vec<&dyn BlockImage> = disks.iter().map(|disk| disk as _).collect();
        convert(&sources, &target, &options(), &Silent, &AtomicBool::new(false)).unwrap();
        prop_assert!(target.contents() == expected);
    }
}

fn position(done: &Done) -> u64 {
    match done {
        Done::Write(at, _) | Done::Encoded(at, _) => *at,
        Done::Zeroes(range) => range.start,
        Done::Flush => u64::MAX,
    }
}

#[test]
fn holes_are_neither_read_nor_written() {
    let layout = [
        (300, Kind::Zero),
        (2, Kind::Data(1)),
        (1000, Kind::Backing),
        (1, Kind::Data(2)),
        (0, Kind::Zero),
    ];
    let source = Disk::new(64 * MIB, &layout, Codec::Deflate, None);
    let target = Sink::new(64 * MIB, true);
    run(&source, &target, &options());
    assert_eq!(source.store.read.load(Ordering::Relaxed), 3 * CLUSTER as u64);
    assert!(!target.history().iter().any(|done| matches!(done, Done::Zeroes(_))));
    assert_eq!(target.contents(), source.contents());
}

#[test]
fn a_target_that_may_hold_something_is_zeroed_but_not_read_for_it() {
    let source = Disk::new(8 * MIB, &[(0, Kind::Zero)], Codec::Deflate, None);
    let target = Sink::new(8 * MIB, false).with_garbage();
    run(&source, &target, &options());
    assert_eq!(target.history(), [Done::Zeroes(0..8 * MIB), Done::Flush]);

    let mut known = options();
    known.target_is_zero = true;
    let target = Sink::new(8 * MIB, false).with_garbage();
    run(&source, &target, &known);
    assert_eq!(target.history(), [Done::Flush]);
}

#[test]
fn without_zero_detection_everything_is_written() {
    let layout = [(300, Kind::Zero), (2, Kind::ZeroData), (0, Kind::Backing)];
    let source = Disk::new(5 * MIB, &layout, Codec::Deflate, None);
    let target = Sink::new(5 * MIB, true);
    let mut options = options();
    options.sparse_bytes = 0;
    run(&source, &target, &options);
    let written: usize = target
        .history()
        .iter()
        .map(|done| match done {
            Done::Write(_, bytes) => bytes.len(),
            Done::Zeroes(_) | Done::Encoded(..) => panic!("{done:?}"),
            Done::Flush => 0,
        })
        .sum();
    assert_eq!(written as u64, 5 * MIB);
}

#[test]
fn zero_runs_are_found_at_the_granularity() {
    let mut bytes_written = Vec::new();
    let source = Disk::new(4 * MIB, &[(0, Kind::Data(3))], Codec::Deflate, None);
    for sparse in [512, 4096, 65_536, 0] {
        let mut target = Sink::new(4 * MIB, false);
        target.cluster = 512;
        let mut options = options();
        options.sparse_bytes = sparse;
        run(&source, &target, &options);
        let history = target.history();
        let written = history.iter().map(|done| match done {
            Done::Write(_, bytes) => bytes.len() as u64,
            _ => 0,
        });
        bytes_written.push(written.sum::<u64>());
    }
    assert!(bytes_written.is_sorted() && bytes_written[0] < bytes_written[1], "{bytes_written:?}");
    assert!(bytes_written[1] < bytes_written[2], "{bytes_written:?}");
    assert_eq!(bytes_written[3], 4 * MIB);
}

#[test]
fn encoded_clusters_pass_through_as_they_are() {
    let layout =
        [(40, Kind::Encoded(2)), (3, Kind::Data(4)), (2, Kind::EncodedZero), (0, Kind::Encoded(6))];
    let source = Disk::new(MIB + 1234, &layout, Codec::Zstd, None);
    let mut options = options();
    options.compress = true;
    let target = Sink::new(MIB + 1234, true).with_codec(Codec::Zstd);
    let summary = convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false)).unwrap();
    assert!(summary.passed_clusters > 100, "{summary:?}");
    assert_eq!(target.contents(), source.contents());
    let encoded = target.history().into_iter().find_map(|done| match done {
        Done::Encoded(at, bytes) if at == CLUSTER as u64 => Some(bytes),
        _ => None,
    });
    let host = source.host_of(CLUSTER as u64);
    let mut original = vec![0; encoded.as_ref().unwrap().len()];
    rimg_core::Storage::read_exact_at(&*source.store, &mut original, host).unwrap();
    assert_eq!(encoded, Some(original));

    // Another codec, another cluster size: nothing to be passed on.
    for (codec, cluster) in [(Codec::Deflate, CLUSTER), (Codec::Zstd, CLUSTER * 2)] {
        let mut target = Sink::new(MIB + 1234, true).with_codec(codec);
        target.cluster = cluster;
        let summary =
            convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false)).unwrap();
        assert_eq!(summary.passed_clusters, 0);
        assert_eq!(target.contents(), source.contents());
    }
}

/// Clusters of qcow2 become grains of VMDK by their wrapping alone; not the other way round.
#[test]
fn deflate_is_wrapped_as_zlib_without_being_encoded_again() {
    let layout = [(40, Kind::Encoded(2)), (3, Kind::Data(4)), (0, Kind::Encoded(6))];
    let mut options = options();
    options.compress = true;
    for (from, to, passes) in
        [(Codec::Deflate, Codec::Zlib, true), (Codec::Zlib, Codec::Deflate, false)]
    {
        let source = Disk::new(MIB + 1234, &layout, from, None);
        let target = Sink::new(MIB + 1234, true).with_codec(to);
        let summary =
            convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false)).unwrap();
        assert_eq!(summary.passed_clusters > 100, passes, "{summary:?}");
        assert_eq!(target.contents(), source.contents());
    }
}

#[test]
fn a_cluster_that_does_not_decode_is_an_error_that_says_where() {
    let layout =
        [(40, Kind::Encoded(2)), (1, Kind::Broken), (9, Kind::Encoded(2)), (0, Kind::Broken)];
    for compress in [false, true] {
        for threads in [1, 4] {
            let source = Disk::new(MIB, &layout, Codec::Zstd, None);
            let target = Sink::new(MIB, true).with_codec(Codec::Zstd);
            let mut options = with_threads(threads, &options());
            options.compress = compress;
            let error = convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false));
            match error {
                Err(ConvertError::Read { at, .. }) => assert_eq!(at, 40 * CLUSTER as u64),
                other => panic!("{other:?}"),
            }
            assert!(!target.history().contains(&Done::Flush));
        }
    }
}

#[test]
fn what_the_backing_image_has_is_not_written() {
    let base: Arc<dyn BlockImage> =
        Arc::new(Disk::new(2 * MIB, &[(0, Kind::Data(1))], Codec::Deflate, None));
    let layout = [
        (16, Kind::Backing),
        (16, Kind::Data(5)),
        (3, Kind::Zero),
        (200, Kind::Backing),
        (5, Kind::ZeroData),
        (512 - 240, Kind::Backing),
        (5, Kind::Zero),
        (0, Kind::Data(7)),
    ];
    let source = Disk::new(3 * MIB, &layout, Codec::Deflate, Some(base.clone()));
    let mut options = options();
    options.backing = Some(TargetBacking { layers_above: 1, size_bytes: 2 * MIB });
    for cluster in [CLUSTER, CLUSTER * 4] {
        let mut target = Sink::new(3 * MIB, true);
        target.cluster = cluster;
        // What the guest sees of a new image over that backing image.
        target.bytes.lock().unwrap()[..2 << 20].copy_from_slice(&{
            let mut bytes = vec![0; 2 << 20];
            base.read_at(&mut bytes, 0).unwrap();
            bytes
        });
        run(&source, &target, &options);
        assert_eq!(target.contents(), source.contents());
        let history = target.history();
        let lowest = history.iter().map(position).min();
        assert_eq!(lowest, Some(16 * CLUSTER as u64));
        assert!(
            !history.iter().any(|done| position(done) >= 248 * CLUSTER as u64
                && position(done) < 512 * CLUSTER as u64)
        );
        // Behind the backing image's end zeroes need no telling.
        assert!(history.iter().all(|done| match done {
            Done::Zeroes(range) => range.end <= 2 * MIB,
            _ => true,
        }));
    }
}

#[derive(Default)]
struct Witness {
    progress: Mutex<Vec<(u64, u64)>>,
    warnings: Mutex<Vec<String>>,
}

impl Observer for Witness {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        self.progress.lock().unwrap().push((done_bytes, total_bytes));
    }

    fn warning(&self, warning: &Warning) {
        self.warnings.lock().unwrap().push(warning.to_string());
    }
}

#[test]
fn progress_grows_to_the_end() {
    let layout = [(3000, Kind::Data(1)), (2000, Kind::Zero), (0, Kind::Data(2))];
    for (threads, ordered) in [(1, true), (4, true), (4, false)] {
        let source = Disk::new(40 * MIB, &layout, Codec::Deflate, None);
        let target = Sink::new(40 * MIB, ordered);
        let witness = Witness::default();
        let options = with_threads(threads, &options());
        convert(&[&source], &target, &options, &witness, &AtomicBool::new(false)).unwrap();
        let progress = witness.progress.into_inner().unwrap();
        // What is known to be zero is no work.
        let work = 40 * MIB - 2000 * CLUSTER as u64;
        assert!(progress.iter().all(|&(_, total)| total == work), "{progress:?}");
        assert!(progress.is_sorted_by(|a, b| a.0 < b.0), "{progress:?}");
        assert_eq!(progress.last(), Some(&(work, work)));
        assert!(progress.len() > 5);
    }
}

#[test]
fn salvaging_loses_bad_sectors_only() {
    let layout = [(700, Kind::Data(1)), (1, Kind::Broken), (0, Kind::Data(2))];
    let whole = Disk::new(4 * MIB, &layout, Codec::Deflate, None);
    let first_bad = whole.host_of(0) + 8192;
    let bad = [first_bad..first_bad + 10, first_bad + 1024..first_bad + 2048];
    let source = whole.edit_store(|store| store.bad = bad.to_vec());
    let mut options = options();
    options.salvage = true;
    let mut all = Vec::new();
    for (threads, compress) in [(1, false), (4, false), (4, true)] {
        let target = Sink::new(4 * MIB, false).with_codec(Codec::Deflate);
        let witness = Witness::default();
        let mut options = with_threads(threads, &options);
        options.compress = compress;
        let summary =
            convert(&[&source], &target, &options, &witness, &AtomicBool::new(false)).unwrap();
        assert_eq!(summary.lost_sectors, 3 + 8);
        let contents = target.contents();
        assert_eq!(contents[8192 + 512..8192 + 1024], support::pattern(1, 8192 + 512, 512)[..]);
        for lost in [8192, 8192 + 1024, 8192 + 1536, 700 * CLUSTER, 700 * CLUSTER + 3584] {
            assert_eq!(contents[lost..lost + 512], [0; 512]);
        }
        assert_eq!(
            contents[701 * CLUSTER..],
            support::pattern(2, 701 * CLUSTER as u64, (4 << 20) - 701 * CLUSTER)[..]
        );
        all.push(witness.warnings.into_inner().unwrap());
    }
    assert_eq!(
        all[0][..3],
        [
            "error while reading offset 8192",
            "error while reading offset 9216",
            "error while reading offset 9728"
        ]
    );
    assert!(all[0] == all[1] && all[1] == all[2]);
}

/// A sector that no map tells of is data if it can be read. It is told of when the work is counted,
/// and when it is done.
#[test]
fn salvaging_reads_what_no_map_tells_of() {
    let layout = [(300, Kind::Data(1)), (0, Kind::Zero)];
    let whole = Disk::new(4 * MIB, &layout, Codec::Deflate, None);
    let bad = whole.host_of(0) + 20_480;
    let mut source = whole.edit_store(|store| store.bad.push(bad..bad + 512));
    let unknown = [20_480, 2 * MIB + 512];
    source.unknown = unknown.to_vec();
    let never = AtomicBool::new(false);
    for threads in [1, 4] {
        let target = Sink::new(4 * MIB, false);
        let witness = Witness::default();
        let mut options = with_threads(threads, &options());
        let error = convert(&[&source], &target, &options, &witness, &never).unwrap_err();
        assert_eq!(error.to_string(), "error while reading block status at offset 20480");
        options.salvage = true;
        let summary = convert(&[&source], &target, &options, &witness, &never).unwrap();
        assert_eq!(summary.lost_sectors, 1);
        let mut expected = support::pattern(1, 0, 300 * CLUSTER);
        expected[20_480..20_992].fill(0);
        assert_eq!(target.contents()[..300 * CLUSTER], expected[..]);
        let status = unknown.map(|at| format!("error while reading block status at offset {at}"));
        let lost = "error while reading offset 20480".to_owned();
        let told = [&status[0], &status[1], &status[0], &lost, &status[1]].map(String::clone);
        assert_eq!(witness.warnings.into_inner().unwrap(), told);
    }
}

#[test]
fn the_first_failure_is_reported_whatever_the_threads() {
    let size = 12 * MIB;
    for ordered in [true, false] {
        for threads in [1, 2, 4] {
            let source = Disk::new(size, &[(0, Kind::Data(1))], Codec::Deflate, None);
            let host = source.host_of(0);
            let bad = [host + 5 * MIB..host + 5 * MIB + 1, host + 7 * MIB..host + 12 * MIB];
            let source = source.edit_store(|store| store.bad = bad.to_vec());
            let target = Sink::new(size, ordered);
            let options = with_threads(threads, &options());
            let error = convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false))
                .unwrap_err();
            // The unit of 1 MiB that the first bad byte is in.
            assert!(matches!(error, ConvertError::Read { at, .. } if at == 5 * MIB), "{error:?}");
            assert_eq!(error.as_io().and_then(std::io::Error::raw_os_error), Some(5));
            assert!(!target.history().contains(&Done::Flush));
        }
    }
}

#[test]
fn every_read_may_fail() {
    let layout = [(300, Kind::Data(1)), (100, Kind::Encoded(2)), (0, Kind::Data(3))];
    let size = 3 * MIB;
    let mut failures = 0;
    for nth in 0..400 {
        let source = Disk::new(size, &layout, Codec::Deflate, None)
            .edit_store(|store| store.fail_nth = Some(nth));
        let target = Sink::new(size, nth % 2 == 0);
        let options = with_threads(3, &options());
        let result = convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false));
        match result {
            Err(ConvertError::Read { .. }) => failures += 1,
            Ok(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((50..400).contains(&failures), "{failures}");
}

#[test]
fn every_write_may_fail_and_nothing_is_written_after_it() {
    let size = 2 * MIB;
    let mut failures = 0;
    for nth in 0..4000 {
        let source = Disk::new(size, &[(0, Kind::Data(1))], Codec::Deflate, None);
        let mut target = Sink::new(size, true);
        target.fail_nth = Some(nth);
        let options = with_threads(3, &options());
        let result = convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false));
        match result {
            Err(ConvertError::Write { at, .. }) => {
                let history = target.history();
                assert_eq!(history.len(), nth + 1, "tried to write after the failure");
                assert_eq!(position(history.last().unwrap()), at);
                failures += 1;
            }
            Ok(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((50..4000).contains(&failures), "{failures}");
}

#[test]
fn cancelling_ends_the_work_soon() {
    let size = 64 * MIB;
    for (threads, ordered) in [(1, true), (2, true), (4, false)] {
        let source = Disk::new(size, &[(0, Kind::Data(2))], Codec::Deflate, None);
        let cancel = Arc::new(AtomicBool::new(false));
        let mut target = Sink::new(size, ordered);
        target.cancel_nth = Some((40, cancel.clone()));
        let options = with_threads(threads, &options());
        let result = convert(&[&source], &target, &options, &Silent, &cancel);
        assert!(matches!(result, Err(ConvertError::Cancelled)), "{result:?}");
        let history = target.history();
        assert!(history.len() <= 41 + threads, "{}", history.len());
        assert!(!history.contains(&Done::Flush));
    }
}

#[test]
fn a_slow_rate_does_not_keep_a_cancellation_waiting() {
    let source = Disk::new(8 * MIB, &[(0, Kind::Data(2))], Codec::Deflate, None);
    let target = Sink::new(8 * MIB, true);
    let mut options = with_threads(2, &options());
    options.bytes_per_second = std::num::NonZeroU64::new(1024);
    let cancel = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            cancel.store(true, Ordering::Relaxed);
        });
        let start = std::time::Instant::now();
        let result = convert(&[&source], &target, &options, &Silent, &cancel);
        assert!(matches!(result, Err(ConvertError::Cancelled)), "{result:?}");
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    });
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let source = Disk::new(MIB, &[(0, Kind::Data(2))], Codec::Deflate, None);
    let refuse = |target: &Sink, edit: &dyn Fn(&mut ConvertOptions)| {
        let mut options = options();
        edit(&mut options);
        let error = convert(&[&source], target, &options, &Silent, &AtomicBool::new(false));
        assert_eq!(target.history(), []);
        error.unwrap_err().to_string()
    };
    let sink = Sink::new(MIB, true);
    assert_eq!(
        refuse(&sink, &|options| options.compress = true),
        "Compression not supported for this file format"
    );
    assert_eq!(
        refuse(&Sink::new(MIB - 512, true), &|_| ()),
        "output file is smaller than input file"
    );
    assert!(
        refuse(&sink, &|options| options.sparse_bytes = 1000)
            .starts_with("Invalid buffer size for sparse output specified.")
    );
    assert_eq!(
        refuse(&sink, &|options| (options.copy_offload, options.salvage) = (true, true)),
        "Cannot use copy offloading in salvaging mode"
    );
    let read_only = convert(&[&source], &source, &options(), &Silent, &AtomicBool::new(false));
    assert!(matches!(read_only, Err(ConvertError::ReadOnly)));
}

#[test]
fn a_panic_in_an_image_does_not_leave_anyone_waiting() {
    #[derive(Debug)]
    struct Trap(Disk);
    impl BlockImage for Trap {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }
        fn read_at(&self, _buf: &mut [u8], _at: u64) -> rimg_core::Result<()> {
            panic!("a bug in a format")
        }
        fn extent_at(&self, range: std::ops::Range<u64>) -> rimg_core::Result<rimg_core::Extent> {
            self.0.extent_at(range)
        }
        fn info(&self) -> rimg_core::Result<rimg_core::ImageInfo> {
            self.0.info()
        }
        fn file(&self, _index: u16) -> Option<&Arc<dyn rimg_core::Storage>> {
            None
        }
        fn close(self: Box<Self>) -> rimg_core::Result<()> {
            Ok(())
        }
    }
    let source = Trap(Disk::new(64 * MIB, &[(0, Kind::Data(2))], Codec::Deflate, None));
    let target = Sink::new(64 * MIB, true);
    let options = with_threads(4, &options());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        convert(&[&source], &target, &options, &Silent, &AtomicBool::new(false))
    }));
    assert!(result.is_err());
}
