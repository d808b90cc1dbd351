//! A large disk with data here and there.
#![cfg(feature = "qcow2")]

use rimg::{ChainExtents, Creator, ExtentKind, Opener};
use std::time::Instant;

const CLUSTERS: u64 = 500;
const SIZE_BYTES: u64 = 16 << 30;

/// As many extents as there are clusters and gaps. The time is printed, for `--nocapture`.
#[test]
fn scattered_clusters_are_walked_over_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    Creator::new("qcow2").size(SIZE_BYTES).create(&path).unwrap();
    let image = Opener::new().format("qcow2").writable(true).open(&path).unwrap();
    let step = SIZE_BYTES / CLUSTERS / 65_536 * 65_536;
    let writer = image.writer().unwrap();
    writer.relax_until_flush();
    for cluster in 0..CLUSTERS {
        writer.write_at(&[7; 512], cluster * step).unwrap();
    }
    image.close().unwrap();

    let image = Opener::new().format("qcow2").open(&path).unwrap();
    for round in ["cold", "warm"] {
        let start = Instant::now();
        let data = ChainExtents::new(&*image)
            .map(|extent| u64::from(matches!(extent.unwrap().kind, ExtentKind::Data(_))))
            .sum::<u64>();
        println!("{round}: {:?}", start.elapsed());
        assert_eq!(data, CLUSTERS);
    }
    assert_eq!(image.size_bytes(), SIZE_BYTES);
}
