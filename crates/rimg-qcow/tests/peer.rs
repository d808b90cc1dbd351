//! What rimg writes, QEMU reads, checks and goes on writing, and rimg reads that.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{BlockImage, FormatDriver, RawOptions, Storage};
use rimg_testkit::peer::Peer;
use rimg_testkit::{MemoryDir, MemoryStorage, ModelDisk, Rng};
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];
const FORMAT: &str = "qcow";

type Options = &'static [(&'static str, &'static str)];

/// Options, and sizes that the disk gets one after the other.
const IMAGES: &[(Options, &[u64])] = &[
    (&[], &[5 << 20]),
    (&[], &[1 << 20, 9 << 20, 3 << 20, 6 << 20]),
    (&[], &[(1 << 20) + 512, 200 << 10, 5 << 20]),
];

#[test]
fn qemu_goes_on_with_what_rimg_wrote() {
    let (Some(qemu), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (qemu, io) = (qemu.in_dir(&folder), io.in_dir(&folder));
    for ((options, sizes), seed) in IMAGES.iter().zip(0..) {
        let what = format!("{options:?} {sizes:?}");
        let mut rng = Rng::new(seed);
        let dir = MemoryDir::new(DRIVERS);
        let mut raw = RawOptions::new();
        for (name, value) in *options {
            raw.set(*name, *value);
        }
        let size = sizes[0];
        dir.create("disk", FORMAT, size, &raw).unwrap();
        let mut model = ModelDisk::new(size);
        let image = dir.open("disk", FORMAT, true).unwrap();
        write_here_and_there(image.as_ref(), &mut model, &mut rng);
        for &size in &sizes[1..] {
            image.resizer().unwrap().resize(size, Default::default()).unwrap();
            model.resize(size);
            write_here_and_there(image.as_ref(), &mut model, &mut rng);
        }
        image.close().unwrap();

        let path = folder.path().join("disk");
        std::fs::write(&path, bytes_of(dir.file("disk").as_ref())).unwrap();
        std::fs::write(folder.path().join("wanted"), model.read(0..model.size_bytes())).unwrap();
        let compared = qemu.ok(["compare", "-f", FORMAT, "-F", "raw", "disk", "wanted"]);
        assert_eq!(compared, "Images are identical.\n", "{what}");
        io.ok(["-f", FORMAT, "-c", "write -P 5 1000 70000", "-c", "write -z 80k 10k", "disk"]);
        model.write(&[5; 70000], 1000);
        model.zero(80 << 10..90 << 10);
        let file = MemoryStorage::from(std::fs::read(&path).unwrap());
        dir.put("disk", Arc::new(file));
        let image = dir.open("disk", FORMAT, false).unwrap();
        model.assert_same(image.as_ref(), &what);
    }
}

fn write_here_and_there(image: &dyn BlockImage, model: &mut ModelDisk, rng: &mut Rng) {
    let writer = image.writer().unwrap();
    let size = model.size_bytes();
    for turn in 0..30 {
        let at = rng.below(size);
        let len = (1 + rng.below(30_000)).min(size - at);
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        rng.fill(&mut bytes);
        writer.write_at(&bytes, at).unwrap();
        model.write(&bytes, at);
        if turn % 5 == 4 {
            writer.write_zeroes_at(at..at + len / 2).unwrap();
            model.zero(at..at + len / 2);
            writer.flush().unwrap();
        }
    }
    let compressor = image.compressor().unwrap();
    let cluster = u64::from(compressor.cluster_bytes());
    for nth in (0..size / cluster).step_by(7) {
        let bytes = vec![u8::try_from(nth % 251).unwrap(); usize::try_from(cluster).unwrap()];
        compressor.write_compressed_at(&bytes, nth * cluster).unwrap();
        model.write(&bytes, nth * cluster);
    }
}

fn bytes_of(file: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
