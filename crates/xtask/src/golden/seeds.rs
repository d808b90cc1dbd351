//! The two file systems from which the other images are made.

use crate::{Result, run};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// An image that is kept as it is, because making it again would give other inode times.
pub(super) struct Seed {
    /// Path below `testdata/`.
    pub(super) file: &'static str,
    licences: &'static [&'static str],
    generated_files: u32,
    make: &'static [&'static str],
}

pub(super) const SEEDS: &[Seed] = &[
    Seed {
        file: "raw/ext4.raw",
        licences: &["BSD", "CC0-1.0"],
        generated_files: 4,
        make: RAW_COMMANDS,
    },
    Seed {
        file: "qcow2/ext4-zlib.qcow2",
        licences: &["Apache-2.0", "Artistic", "BSD", "CC0-1.0", "GPL-2", "GPL-3", "MPL-2.0"],
        generated_files: 64,
        make: ZLIB_COMMANDS,
    },
];

pub(super) const RAW_COMMANDS: &[&str] = &[
    "mke2fs -q -F -t ext4 -b 1024 -O ^has_journal,^resize_inode -m 0 -L rimg-small -d tree ext4.raw 1m",
];

pub(super) const ZLIB_COMMANDS: &[&str] = &[
    "mke2fs -q -F -t ext4 -b 4096 -L rimg-golden -d tree seed.raw 16m",
    "qemu-img convert -c -f raw -O qcow2 seed.raw ext4-zlib.qcow2",
];

/// Makes a seed anew, below `work`.
pub(super) fn make(seed: &Seed, work: &Path) -> Result {
    let folder = work.join(Path::new(seed.file).parent().unwrap_or(Path::new("")));
    let tree = folder.join("tree");
    plant(seed, &tree)?;
    for command in seed.make {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).current_dir(&folder).env("PATH", format!("{path}:/usr/sbin"));
        run::output(&mut shell)?;
    }
    Ok(fs::remove_dir_all(tree)?)
}

/// A tree of real texts (whose licences allow to copy them) and of generated files: what a small
/// system has, with names short and long, deep folders, links, empty, sparse and random files.
fn plant(seed: &Seed, tree: &Path) -> Result {
    let licences = tree.join("usr/share/common-licenses");
    fs::create_dir_all(&licences)?;
    for name in seed.licences {
        fs::copy(Path::new("/usr/share/common-licenses").join(name), licences.join(name))?;
    }
    let etc = tree.join("etc");
    fs::create_dir_all(etc.join("conf.d/deeper/still"))?;
    fs::write(etc.join("hostname"), "golden\n")?;
    fs::write(etc.join("empty"), "")?;
    symlink("hostname", etc.join("link"))?;
    fs::hard_link(etc.join("hostname"), etc.join("hard-link"))?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..seed.generated_files {
        let lines = 1 + random.next() % 60;
        let text: String =
            (0..lines).map(|line| format!("key_{line} = {:x}\n", random.next())).collect();
        fs::write(etc.join(format!("conf.d/{number:03}-settings.conf")), text)?;
    }
    let noise: Vec<u8> = (0..2048).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(etc.join("conf.d/deeper/still/noise.bin"), noise)?;
    let sparse = File::create(etc.join("sparse"))?;
    Ok(sparse.set_len(200_000)?)
}

/// Marsaglia's xorshift64*: the same numbers everywhere and always.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
