//! Walking over chains.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use core::ops::Range;
use proptest::prelude::*;
use rimg::{
    BlockImage, ChainExtent, ChainExtents, Codec, Error, Extent, ExtentKind, FileOffset,
    HostOffset, ImageInfo, MapEntries, MapEntry, Result, Storage,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A layer with one kind for every piece of 10 bytes, which it tells piece by piece or in longer
/// runs. Reading from it is a mistake.
#[derive(Debug)]
struct Layer {
    pieces: Vec<ExtentKind>,
    merges: bool,
    below: Option<Arc<dyn BlockImage>>,
    asked: AtomicU64,
}

const PIECE: u64 = 10;

fn data(host: u64) -> ExtentKind {
    ExtentKind::Data(FileOffset { file: 0, host: HostOffset(host) })
}

fn encoded(host: u64) -> ExtentKind {
    let at = FileOffset { file: 0, host: HostOffset(host) };
    ExtentKind::Encoded { at, len_bytes: 5, codec: Codec::Deflate }
}

const HOLE: ExtentKind = ExtentKind::Zero { allocation: None };
const BELOW: ExtentKind = ExtentKind::Backing { allocation: None };

impl Layer {
    fn new(pieces: &[ExtentKind], below: Option<Arc<dyn BlockImage>>) -> Arc<Self> {
        let pieces = pieces.to_vec();
        Arc::new(Self { pieces, merges: true, below, asked: AtomicU64::new(0) })
    }
}

impl BlockImage for Layer {
    fn size_bytes(&self) -> u64 {
        u64::try_from(self.pieces.len()).unwrap() * PIECE
    }

    fn read_at(&self, _buf: &mut [u8], _at: u64) -> Result<()> {
        Err(Error::Misuse("a walk reads no data"))
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        assert!(!range.is_empty() && range.end <= self.size_bytes(), "{range:?}");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let index = |at: u64| usize::try_from(at / PIECE).unwrap();
        let first = index(range.start);
        let kind = self.pieces[first].advanced(range.start % PIECE);
        let mut end = (range.start / PIECE + 1) * PIECE;
        while self.merges
            && end < range.end
            && !matches!(kind, ExtentKind::Encoded { .. })
            && self.pieces[index(end)] == kind.advanced(end - range.start)
        {
            end += PIECE;
        }
        Ok(Extent { len_bytes: end.min(range.end) - range.start, kind })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo::default())
    }

    fn file(&self, _index: u16) -> Option<&Arc<dyn Storage>> {
        None
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.below.as_ref()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn walk(top: &dyn BlockImage) -> Vec<(u64, u64, usize, ExtentKind)> {
    ChainExtents::new(top)
        .map(|extent| extent.map(|e| (e.start, e.len_bytes, e.depth, e.kind)))
        .collect::<Result<_>>()
        .unwrap()
}

#[test]
fn neighbours_come_as_one_only_if_they_belong_together() {
    let top = Layer::new(
        &[data(100), data(110), data(130), HOLE, HOLE, BELOW, encoded(7), encoded(7), encoded(12)],
        None,
    );
    assert_eq!(
        walk(top.as_ref()),
        [
            (0, 20, 0, data(100)),
            (20, 10, 0, data(130)),
            (30, 20, 0, HOLE),
            (50, 10, 0, BELOW),
            (60, 10, 0, encoded(7)),
            (70, 10, 0, encoded(7)),
            (80, 10, 0, encoded(12)),
        ]
    );
    let map: Vec<MapEntry> = MapEntries::new(top.as_ref()).collect::<Result<_>>().unwrap();
    let compressed = map.last().unwrap();
    assert_eq!((compressed.start, compressed.len_bytes), (60, 30));
    assert!(compressed.present && compressed.data && compressed.compressed && !compressed.zero);
    assert_eq!(map.len(), 5);
}

#[test]
fn layers_below_are_cut_by_those_above_and_end_where_they_end() {
    let base = Layer::new(&[data(0), data(10), data(20), BELOW], None);
    let top = Layer::new(&[BELOW, HOLE, BELOW, BELOW, BELOW, data(50), BELOW], Some(base));
    assert_eq!(
        walk(top.as_ref()),
        [
            (0, 10, 1, data(0)),
            (10, 10, 0, HOLE),
            (20, 10, 1, data(20)),
            (30, 10, 1, BELOW),
            (40, 10, 0, BELOW),
            (50, 10, 0, data(50)),
            (60, 10, 0, BELOW),
        ]
    );
    let part: Vec<_> = ChainExtents::within(top.as_ref(), 15..27)
        .map(|extent| extent.map(|e| (e.start, e.end(), e.kind)))
        .collect::<Result<_>>()
        .unwrap();
    assert_eq!(part, [(15, 20, HOLE), (20, 27, data(20))]);
    assert_eq!(ChainExtents::within(top.as_ref(), 70..100).count(), 0);
    assert_eq!(ChainExtents::within(top.as_ref(), 65..u64::MAX).count(), 1);
}

#[test]
fn long_runs_below_are_looked_up_once() {
    let base = Layer::new(&vec![BELOW; 1000], None);
    let pieces: Vec<_> =
        (0..1000).map(|i| if i % 2 == 0 { BELOW } else { data(i * 100) }).collect();
    let top = Layer::new(&pieces, Some(base.clone()));
    assert_eq!(walk(top.as_ref()).len(), 1000);
    assert_eq!(base.asked.load(Ordering::Relaxed), 1);
    assert_eq!(top.asked.load(Ordering::Relaxed), 1000);
}

#[test]
fn an_error_ends_the_walk() {
    #[derive(Debug)]
    struct Broken;
    impl BlockImage for Broken {
        fn size_bytes(&self) -> u64 {
            100
        }
        fn read_at(&self, _buf: &mut [u8], _at: u64) -> Result<()> {
            Err(Error::Cancelled)
        }
        fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
            match range.start {
                0 => Ok(Extent { len_bytes: 10, kind: HOLE }),
                // An extent of no bytes is an error, not an endless walk.
                _ => Ok(Extent { len_bytes: 0, kind: HOLE }),
            }
        }
        fn info(&self) -> Result<ImageInfo> {
            Ok(ImageInfo::default())
        }
        fn file(&self, _index: u16) -> Option<&Arc<dyn Storage>> {
            None
        }
        fn close(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }
    let mut walk = ChainExtents::new(&Broken);
    assert!(walk.next().unwrap().is_err());
    assert!(walk.next().is_none());
    let mut map = MapEntries::new(&Broken);
    assert!(map.next().unwrap().is_err());
    assert!(map.next().is_none());
}

fn pieces(layer: u64) -> impl Strategy<Value = Vec<ExtentKind>> {
    let piece = prop_oneof![
        Just(BELOW),
        Just(HOLE),
        (0..5_u64).prop_map(move |i| data(layer * 1000 + i * 10)),
        (0..3_u64).prop_map(encoded),
    ];
    prop::collection::vec(piece, 0..20)
}

/// What the chain says of one byte.
fn at(layers: &[Vec<ExtentKind>], byte: u64) -> (usize, ExtentKind) {
    let mut depth = 0;
    for (index, pieces) in layers.iter().enumerate() {
        let Some(piece) = pieces.get(usize::try_from(byte / PIECE).unwrap()) else { break };
        depth = index;
        if *piece != BELOW {
            return (index, piece.advanced(byte % PIECE));
        }
    }
    (depth, BELOW)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_byte_is_covered_once_and_right(
        layers in (pieces(1), pieces(2), pieces(3)),
        merges in any::<[bool; 3]>(),
        range in (0..250_u64, 0..250_u64),
    ) {
        let layers = [layers.0, layers.1, layers.2];
        let mut below: Option<Arc<dyn BlockImage>> = None;
        for (pieces, merges) in layers.iter().zip(merges).rev() {
            let pieces = pieces.clone();
            let asked = AtomicU64::new(0);
            below = Some(Arc::new(Layer { pieces, merges, below: below.take(), asked }));
        }
        let top = below.unwrap();
        let (start, end) = (range.0.min(top.size_bytes()), range.1.min(top.size_bytes()));
        let mut next = start;
        let mut last: Option<ChainExtent> = None;
        for extent in ChainExtents::within(top.as_ref(), range.0..range.1) {
            let extent = extent.unwrap();
            prop_assert_eq!(extent.start, next);
            prop_assert!(extent.len_bytes > 0);
            for byte in extent.start..extent.end() {
                let expected = at(&layers, byte);
                let found = (extent.depth, extent.kind.advanced(byte - extent.start));
                prop_assert_eq!(found, expected, "byte {}", byte);
            }
            if let Some(last) = last {
                let could_merge = last.depth == extent.depth
                    && !matches!(extent.kind, ExtentKind::Encoded { .. })
                    && last.kind.advanced(last.len_bytes) == extent.kind;
                prop_assert!(!could_merge, "{:?} and {:?}", last, extent);
            }
            next = extent.end();
            last = Some(extent);
        }
        prop_assert_eq!(next, end.max(start));
    }
}
