//! Images made from the formats' descriptions read as what they were made of, however they are read.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, samples};
use rimg_core::{ExtentKind, Match, ProbeWindow};
use rimg_testkit::{MemoryDir, MemoryStorage, Rng};
use std::sync::Arc;

#[test]
fn images_hold_what_they_were_made_of() {
    for sample in samples() {
        let dir = MemoryDir::new(DRIVERS);
        dir.put("disk", Arc::new(MemoryStorage::from(sample.image.clone())));
        let image = dir.open("disk", sample.format, false).unwrap();
        let name = &sample.name;
        let size = image.size_bytes();
        assert_eq!(size, u64::try_from(sample.disk.len()).unwrap(), "{name}");
        let mut all = vec![1; sample.disk.len()];
        image.read_at(&mut all, 0).unwrap();
        assert!(all == sample.disk, "{name}");
        let mut rng = Rng::new(8);
        for _ in 0..200 {
            let at = rng.below(size);
            let len = rng.below(70_000).min(size - at);
            let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
            let mut piece = vec![1; range.len()];
            image.read_at(&mut piece, at).unwrap();
            assert!(piece == sample.disk[range], "{name} {at} {len}");
        }
        let mut at = 0;
        while at < size {
            let extent = image.extent_at(at..size).unwrap();
            let range =
                usize::try_from(at).unwrap()..usize::try_from(at + extent.len_bytes).unwrap();
            let expected = &sample.disk[range];
            match extent.kind {
                ExtentKind::Zero { .. } => assert!(expected.iter().all(|byte| *byte == 0)),
                ExtentKind::Data(place) => {
                    let from = usize::try_from(place.host.bytes()).unwrap();
                    assert!(sample.image[from..].starts_with(expected), "{name} {at}");
                }
                ExtentKind::Opaque => {}
                other => panic!("{name}: {other:?}"),
            }
            at += extent.len_bytes;
        }
        assert!(image.writer().is_none() && image.resizer().is_none());
        assert!(dir.open("disk", sample.format, true).is_err(), "{name}");
    }
}

#[test]
fn each_format_knows_its_own() {
    for sample in samples() {
        let name = format!("disk.{}", sample.format);
        let head = &sample.image[..2048];
        let window = ProbeWindow { head, name: Some(&name), len_bytes: 1 << 20 };
        for driver in DRIVERS {
            let found = driver.probe(&window);
            let own = driver.format().name == sample.format;
            let expected = match sample.format {
                _ if !own => Match::No,
                "dmg" => Match::Weak,
                _ => Match::Sure,
            };
            assert_eq!(found, expected, "{}", sample.name);
        }
    }
}
