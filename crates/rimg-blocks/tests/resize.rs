//! Growing over an image below that is longer.

mod common;

use common::DRIVERS;
use rimg_core::{Preallocation, RawOptions, Storage, StorageRun};
use rimg_testkit::MemoryDir;
use rimg_testkit::storages::{Fault, FaultyStorage};
use std::io;
use std::sync::Arc;

/// More blocks of 512 bytes than a disk grows by at once.
const BELOW_BYTES: u64 = 300 << 20;

/// A file of ones.
#[derive(Debug)]
struct Ones;

impl Storage for Ones {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(BELOW_BYTES)
    }

    fn read_exact_at(&self, buf: &mut [u8], _: u64) -> io::Result<()> {
        buf.fill(1);
        Ok(())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun::data(BELOW_BYTES - at))
    }
}

/// What lies below never comes up, wherever the storage stops working.
#[test]
fn a_disk_that_grows_part_of_the_way_ends_where_its_zeroes_do() {
    let mut sizes = Vec::new();
    for after in (0..24_000).step_by(2000).chain([u64::MAX]) {
        let dir = MemoryDir::new(DRIVERS);
        dir.put("base", Arc::new(Ones));
        let options = RawOptions::new().with("block_size", "512").with("backing_file", "base");
        dir.create("disk", "toy", 1024, &options).unwrap();
        let file = dir.file("disk");
        let faulty = Arc::new(FaultyStorage::new(Arc::clone(&file)));
        let disk: Arc<dyn Storage> = faulty.clone();
        dir.put("disk", disk);
        let image = dir.open("disk", "toy", true).unwrap();
        faulty.fail(Fault::all_after(after, io::ErrorKind::StorageFull));
        let _ = image.resizer().unwrap().resize(BELOW_BYTES, Preallocation::Off);
        dir.put("disk", file);
        let image = dir.open("disk", "toy", false).unwrap();
        let mut sector = [0xFF; 512];
        image.read_at(&mut sector, 0).unwrap();
        assert_eq!(sector, [1; 512]);
        for at in (1024..image.size_bytes()).step_by(64 << 10) {
            image.read_at(&mut sector, at).unwrap();
            assert_eq!(sector, [0; 512], "at {at} of {}", image.size_bytes());
        }
        sizes.push(image.size_bytes());
    }
    // Some of them stopped between the old size and the new one.
    assert!(sizes.is_sorted() && sizes.contains(&1024) && sizes.ends_with(&[BELOW_BYTES]));
    assert!(sizes.iter().any(|size| (1025..BELOW_BYTES).contains(size)), "{sizes:?}");
}
