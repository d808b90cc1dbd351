//! The data set: made once, kept under its version.

use super::memory;
use super::options::{Options, Set};
use crate::{Result, run};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// To be raised whenever the data below change: figures of different data do not compare.
const VERSION: u32 = 5;

/// Virtual size of the file system's images.
const DISK_BYTES: u64 = 8 << 30;
/// Virtual size of the scattered image.
const SCATTERED_BYTES: u64 = 1 << 40;
/// One cluster is written in each: as much as one L2 table maps, so that every table has one entry.
const SCATTERED_STEP_BYTES: u64 = 512 << 20;

/// A folder with the images in it; commands run there, targets go into `out/`.
pub(super) struct DataSet {
    pub(super) folder: PathBuf,
}

impl DataSet {
    /// The data set, made if it is not there.
    pub(super) fn ready(options: &Options) -> Result<Self> {
        for program in ["qemu-img", "qemu-io", "mke2fs"] {
            run::need(program)?;
        }
        let top = match &options.dir {
            Some(dir) => dir.clone(),
            None => default_dir(options.set)?,
        };
        let folder = top.join(format!("rimg-bench-v{VERSION}-{}", options.set.name()));
        if !folder.join("complete").is_file() {
            println!("making the data set in {}", folder.display());
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)?;
            Maker { folder: &folder, set: options.set }.make()?;
            File::create(folder.join("complete"))?;
        }
        let out = folder.join("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out)?;
        Ok(Self { folder: folder.canonicalize()? })
    }
}

fn default_dir(set: Set) -> Result<PathBuf> {
    // About eighteen copies of the files in various shapes, a target and the pages touched for it.
    let needed = set.files_bytes() * 22 + (1 << 30);
    let candidates = [Some(PathBuf::from("/dev/shm")), std::env::var_os("TMPDIR").map(Into::into)];
    for dir in candidates.into_iter().flatten() {
        let made = dir.join(format!("rimg-bench-v{VERSION}-{}", set.name()));
        let enough = memory::room_bytes(&dir).is_some_and(|room| room >= needed);
        if made.join("complete").is_file() || (memory::is_memory(&dir) && enough) {
            return Ok(dir);
        }
    }
    let dir = run::root().join("target").join("bench");
    fs::create_dir_all(&dir)?;
    println!("no room in memory for {} MiB: using {}", needed >> 20, dir.display());
    Ok(dir)
}

struct Maker<'a> {
    folder: &'a Path,
    set: Set,
}

impl Maker<'_> {
    fn make(&self) -> Result {
        self.file_system()?;
        self.qemu_img("convert -f raw -O qcow2 plain.raw plain.qcow2")?;
        self.qemu_img("convert -c -f raw -O qcow2 plain.raw zlib.qcow2")?;
        self.qemu_img("convert -c -f raw -O qcow2 -o compression_type=zstd plain.raw zstd.qcow2")?;
        self.other_formats()?;
        self.fragmented()?;
        self.fine()?;
        self.set_aside()?;
        self.chain()?;
        self.encrypted()?;
        self.incompressible()?;
        self.scattered()?;
        self.small()
    }

    /// `plain.raw`: an ext4 of real files.
    fn file_system(&self) -> Result {
        let tree = self.folder.join("tree");
        plant(&tree, self.set.files_bytes())?;
        let mut mke2fs = Command::new(run::need("mke2fs")?);
        mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&tree);
        mke2fs.arg(self.folder.join("plain.raw")).arg(format!("{}k", DISK_BYTES >> 10));
        run::output(&mut mke2fs)?;
        Ok(fs::remove_dir_all(tree)?)
    }

    /// `plain.raw` in the other formats, and `stream.vmdk`, compressed.
    fn other_formats(&self) -> Result {
        for format in ["vmdk", "vhdx", "vdi", "vpc", "qed"] {
            self.qemu_img(&format!("convert -f raw -O {format} plain.raw plain.{format}"))?;
        }
        self.qemu_img("convert -f raw -O vmdk -o subformat=streamOptimized plain.raw stream.vmdk")
    }

    /// `fragmented.qcow2`: 64 KiB and 4 KiB writes all over the disk, snapshots between them.
    fn fragmented(&self) -> Result {
        let size = format!("{DISK_BYTES}");
        self.qemu_img(&format!("create -q -f qcow2 fragmented.qcow2 {size}"))?;
        let mut random = Random(3);
        let third = self.set.files_bytes() / (64 << 10) / 3;
        for round in 0..3 {
            let mut script = String::new();
            for _ in 0..third {
                script.push_str(&write(&mut random, DISK_BYTES, 64 << 10));
                script.push_str(&write(&mut random, DISK_BYTES, 4 << 10));
            }
            self.qemu_io("fragmented.qcow2", &script)?;
            if round < 2 {
                self.qemu_img(&format!("snapshot -c s{round} fragmented.qcow2"))?;
            }
        }
        Ok(())
    }

    /// `fine.qcow2`: clusters of 4 KiB all over the disk, and a snapshot of the first half of them.
    fn fine(&self) -> Result {
        self.qemu_img(&format!("create -q -f qcow2 -o cluster_size=4k fine.qcow2 {DISK_BYTES}"))?;
        let mut random = Random(13);
        for round in 0..2 {
            let script: String =
                (0..16_384).map(|_| write(&mut random, DISK_BYTES, 4 << 10)).collect();
            self.qemu_io("fine.qcow2", &script)?;
            if round == 0 {
                self.qemu_img("snapshot -c s0 fine.qcow2")?;
            }
        }
        Ok(())
    }

    /// `set-aside.qcow2`: every cluster has its place, and few were written to.
    fn set_aside(&self) -> Result {
        let options = "-o preallocation=metadata";
        self.qemu_img(&format!("create -q -f qcow2 {options} set-aside.qcow2 {DISK_BYTES}"))?;
        let mut random = Random(7);
        let script: String = (0..1000).map(|_| write(&mut random, DISK_BYTES, 64 << 10)).collect();
        self.qemu_io("set-aside.qcow2", &script)
    }

    /// `chain-top.qcow2` over `chain-middle.qcow2` over `plain.qcow2`.
    fn chain(&self) -> Result {
        let mut random = Random(5);
        for (name, below) in [("chain-middle", "plain"), ("chain-top", "chain-middle")] {
            self.qemu_img(&format!("create -q -f qcow2 -b {below}.qcow2 -F qcow2 {name}.qcow2"))?;
            let writes = self.set.files_bytes() / (64 << 10) / 4;
            let script: String = (0..writes)
                .map(|number| {
                    let length = if number % 2 == 0 { 64 << 10 } else { 4 << 10 };
                    write(&mut random, DISK_BYTES, length)
                })
                .collect();
            self.qemu_io(&format!("{name}.qcow2"), &script)?;
        }
        Ok(())
    }

    /// `luks.qcow2`: `plain.raw` encrypted. Hardly any time goes into its passphrase.
    fn encrypted(&self) -> Result {
        self.qemu_img(
            "convert --object secret,id=key,data=swordfish -f raw -O qcow2 -o \
             encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 plain.raw luks.qcow2",
        )
    }

    /// `random.raw`: nothing that could be made smaller, then a hole to the end. `dense.raw`: the
    /// same without the hole, and `dense.luks`, that encrypted, as all of such a disk is.
    fn incompressible(&self) -> Result {
        let mut file = File::create(self.folder.join("random.raw"))?;
        let mut random = Random(7);
        let mut block = vec![0_u8; 1 << 20];
        for _ in 0..self.set.files_bytes() / (2 << 20) {
            for bytes in block.chunks_exact_mut(8) {
                bytes.copy_from_slice(&random.next().to_le_bytes());
            }
            file.write_all(&block)?;
        }
        fs::copy(self.folder.join("random.raw"), self.folder.join("dense.raw"))?;
        file.set_len(DISK_BYTES)?;
        self.qemu_img(
            "convert --object secret,id=key,data=swordfish -f raw -O luks -o \
             key-secret=key,iter-time=10 dense.raw dense.luks",
        )
    }

    /// `scattered.qcow2`: 1 TiB with one cluster for each L2 table.
    fn scattered(&self) -> Result {
        self.qemu_img(&format!("create -q -f qcow2 scattered.qcow2 {SCATTERED_BYTES}"))?;
        let mut random = Random(11);
        let script: String = (0..SCATTERED_BYTES / SCATTERED_STEP_BYTES)
            .map(|step| {
                let within = random.below(SCATTERED_STEP_BYTES >> 16) << 16;
                let at = step * SCATTERED_STEP_BYTES + within;
                format!("write -q -P {} {at} 64k\n", 1 + random.below(255))
            })
            .collect();
        self.qemu_io("scattered.qcow2", &script)?;
        self.qemu_img("convert -f qcow2 -O qcow2 scattered.qcow2 scattered-copy.qcow2")
    }

    /// `small.qcow2`: for commands whose time is their start.
    fn small(&self) -> Result {
        self.qemu_img("create -q -f qcow2 small.qcow2 64M")?;
        self.qemu_io("small.qcow2", "write -q -P 1 0 1M\nwrite -q -P 2 20M 300k\n")
    }

    /// Runs qemu-img with arguments separated by spaces.
    fn qemu_img(&self, args: &str) -> Result {
        println!("  qemu-img {args}");
        let mut command = Command::new(run::need("qemu-img")?);
        run::output(command.args(args.split(' ')).current_dir(self.folder))?;
        Ok(())
    }

    fn qemu_io(&self, image: &str, script: &str) -> Result {
        println!("  {} writes into {image}", script.lines().count());
        // No flush between the writes: nobody will pull the plug.
        let mut child = Command::new(run::need("qemu-io")?)
            .args(["-t", "unsafe", "-f", "qcow2", image])
            .current_dir(self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        child.stdin.take().ok_or("no pipe to qemu-io")?.write_all(script.as_bytes())?;
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("qemu-io {image}: {status}").into()) }
    }
}

/// One qemu-io line that writes something that is not zero, aligned to its length.
fn write(random: &mut Random, disk_bytes: u64, length: u64) -> String {
    let at = random.below(disk_bytes / length) * length;
    format!("write -q -P {} {at} {length}\n", 1 + random.below(255))
}

/// Copies files of the system, up to a budget: programs, libraries, texts. Which ones follows from
/// their paths alone.
fn plant(tree: &Path, budget_bytes: u64) -> Result {
    let mut planted = 0;
    for (folder, percent) in [("/usr/bin", 30), ("/usr/lib", 40), ("/usr/share", 30)] {
        let limit = planted + budget_bytes / 100 * percent;
        plant_folder(Path::new(folder), tree, &mut planted, limit)?;
    }
    if planted < budget_bytes / 2 {
        return Err(format!("found only {planted} bytes of files below /usr").into());
    }
    println!("  {} MiB of files from /usr", planted >> 20);
    Ok(())
}

fn plant_folder(folder: &Path, tree: &Path, planted: &mut u64, limit: u64) -> Result {
    const LARGEST_BYTES: u64 = 32 << 20;
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let target = tree.join(folder.strip_prefix("/").unwrap_or(folder));
    fs::create_dir_all(&target)?;
    for path in paths {
        let Ok(kind) = path.symlink_metadata() else { continue };
        if kind.is_dir() {
            plant_folder(&path, tree, planted, limit)?;
        } else if kind.is_file() && kind.len() <= LARGEST_BYTES && *planted + kind.len() <= limit {
            let mut bytes = Vec::new();
            let readable = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            if readable.is_ok() {
                fs::write(target.join(path.file_name().unwrap_or_default()), &bytes)?;
                *planted += kind.len();
            }
        }
    }
    Ok(())
}

/// Marsaglia's xorshift64*: the same data everywhere and always.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}
