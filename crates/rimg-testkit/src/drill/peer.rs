//! QEMU makes the same images, and goes on with what was written.

use super::{Drill, assert_sound};
use crate::peer::Peer;
use crate::{MemoryDir, ModelDisk, Rng};
use rimg_core::{BlockImage, Preallocation, Storage};
use rimg_storage::{FileOptions, FileStorage};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// What QEMU can do with a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qemu {
    /// It checks images.
    pub checks: bool,
    /// It zeroes clusters without leaking them.
    pub zeroes: bool,
}

/// A size for which the tables of a small disk have to move.
const LARGE_BYTES: u64 = 3 << 30;

impl Drill {
    /// A new image has the bytes of that of qemu-img, but for those that `mask` zeroes in both.
    ///
    /// # Panics
    /// When it has not.
    pub fn made_as_by_qemu(&self, mask: fn(&mut [u8])) {
        let Some(qemu_img) = Peer::qemu_img() else { return };
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        self.make_file(&ours);
        let mut args: Vec<String> = ["create", "-q", "-f", self.format()].map(Into::into).into();
        for (name, value) in self.create.iter() {
            args.extend(["-o".to_owned(), format!("{name}={value}")]);
        }
        args.extend([theirs.to_str().unwrap().to_owned(), self.size_bytes.to_string()]);
        qemu_img.ok(&args);
        let masked = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            mask(&mut bytes);
            bytes
        };
        assert!(masked(&ours) == masked(&theirs), "{self:?}");
    }

    /// What was written here and there, while the disk got each of `sizes`, QEMU finds without a
    /// fault and writes on, and that is there when the image is opened again.
    ///
    /// # Panics
    /// When it is not.
    pub fn qemu_goes_on(&self, sizes: &[u64], qemu: Qemu) {
        let (Some(img), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
        let folder = tempfile::tempdir().unwrap();
        let (img, io) = (img.in_dir(&folder), io.in_dir(&folder));
        let path = folder.path().join("disk");
        let format = self.format();
        let mut rng = Rng::new(self.size_bytes);
        self.make_file(&path);
        let image = self.open_file(&path);
        let mut model = ModelDisk::new(image.size_bytes());
        write_here_and_there(image.as_ref(), &mut model, &mut rng);
        for &size in sizes {
            image.resizer().unwrap().resize(size, Preallocation::Off).unwrap();
            model.resize(size);
            write_here_and_there(image.as_ref(), &mut model, &mut rng);
        }
        image.close().unwrap();
        let check = || {
            if qemu.checks {
                let said = img.ok(["check", "-f", format, "disk"]);
                assert!(said.starts_with("No errors"), "{self:?} {sizes:?}: {said}");
            }
        };
        fs::write(folder.path().join("wanted"), model.read(0..model.size_bytes())).unwrap();
        check();
        let compared = img.ok(["compare", "-f", format, "-F", "raw", "disk", "wanted"]);
        assert_eq!(compared, "Images are identical.\n", "{self:?} {sizes:?}");
        let second = if qemu.zeroes { "write -z 80k 10k" } else { "write -P 6 80k 10k" };
        io.ok(["-f", format, "-c", "write -P 5 1000 70000", "-c", second, "disk"]);
        model.write(&[5; 70_000], 1000);
        model.write(&[if qemu.zeroes { 0 } else { 6 }; 10 << 10], 80 << 10);
        check();
        let image = self.open_file(&path);
        model.assert_same(image.as_ref(), &format!("{self:?} {sizes:?}"));
    }

    /// qemu-io goes on with an image whose disk became so large that tables had to move, and again
    /// when it is small.
    ///
    /// # Panics
    /// When it finds anything else, or a check does.
    pub fn qemu_goes_on_when_tables_moved(&self, qemu: Qemu) {
        let Some(io) = Peer::qemu_io() else { return };
        let folder = tempfile::tempdir().unwrap();
        let (path, io) = (folder.path().join("disk"), io.in_dir(&folder));
        self.make_file(&path);
        let read = |commands: &[&str]| {
            let mut args = vec!["-f", self.format()];
            args.extend(commands.iter().flat_map(|command| ["-c", *command]));
            args.push("disk");
            let out = io.ok(args);
            assert!(!out.contains("verification failed"), "{self:?}: {out}");
        };
        let image = self.open_file(&path);
        let writer = image.writer().unwrap();
        writer.write_at(&[1; 70_000], 3 << 20).unwrap();
        writer.write_at(&[2; 512], (9 << 20) + 512).unwrap();
        writer.write_zeroes_at((3 << 20)..(3 << 20) + 5000).unwrap();
        image.resizer().unwrap().resize(LARGE_BYTES, Preallocation::Off).unwrap();
        writer.write_at(&[3; 4096], LARGE_BYTES - 4096).unwrap();
        image.close().unwrap();
        let at_end = format!("read -P 3 {} 4096", LARGE_BYTES - 4096);
        let write = format!("write -P 4 {} 100k", LARGE_BYTES / 2);
        let small = ["read -P 0 3M 5000", "read -P 1 3150728 65000"];
        read(&[small[0], small[1], "read -P 2 9437696 512", &at_end, &write]);

        let image = self.open_file(&path);
        let mut seen = vec![0; 100 << 10];
        image.read_at(&mut seen, LARGE_BYTES / 2).unwrap();
        assert!(seen.iter().all(|byte| *byte == 4), "{self:?}");
        image.resizer().unwrap().resize(4 << 20, Preallocation::Off).unwrap();
        image.close().unwrap();
        read(&[small[1], "write -P 5 0 1M", "read -P 5 0 1M", small[0]]);
        assert_sound(self.open_file(&path).as_ref(), &format!("{self:?}"));
        if let Some(img) = Peer::qemu_img().filter(|_| qemu.checks) {
            img.in_dir(&folder).ok(["check", "-q", "-f", self.format(), "disk"]);
        }
    }

    fn make_file(&self, path: &Path) {
        let made = self.dir_with(path, FileOptions::create());
        made.create("disk", self.format(), self.size_bytes, &self.create).unwrap();
    }

    fn open_file(&self, path: &Path) -> Box<dyn BlockImage> {
        self.opened(&self.dir_with(path, FileOptions::write()), true)
    }

    /// A folder in memory in which a file of the file system is `disk`.
    fn dir_with(&self, path: &Path, options: FileOptions) -> MemoryDir {
        let dir = self.dir();
        let file: Arc<dyn Storage> = Arc::new(FileStorage::open(path, options).unwrap());
        dir.put("disk", file);
        dir
    }

    /// With all of these creation options.
    #[must_use]
    pub fn with_all(self, options: &[(&str, &str)]) -> Self {
        options.iter().fold(self, |drill, (name, value)| drill.with(name, value))
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
    let Some(compressor) = image.compressor() else { return };
    let cluster = u64::from(compressor.cluster_bytes());
    for nth in (0..size / cluster).step_by(7) {
        let bytes = vec![u8::try_from(nth % 251).unwrap(); usize::try_from(cluster).unwrap()];
        compressor.write_compressed_at(&bytes, nth * cluster).unwrap();
        model.write(&bytes, nth * cluster);
    }
}
