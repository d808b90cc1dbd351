//! What rimg writes and qemu-img does not read, read by other programs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::digest;
use rimg_testkit::libyal::Library;
use std::path::PathBuf;
use std::process::Command;

const MIB: usize = 1 << 20;

/// A format, and the options of an image and of those above it.
const CHAINS: &[(&str, &str, &str)] = &[
    ("vpc", "force_size=on", "force_size=on"),
    ("vpc", "force_size=on,subformat=fixed", "force_size=on"),
    ("vhdx", "block_size=1048576", "block_size=1048576"),
    ("vhdx", "block_size=1048576,subformat=fixed", "block_size=2097152"),
    ("vhdx", "block_size=1048576,logical_sector_size=4096", "logical_sector_size=4096"),
];

#[test]
fn differencing_images_are_read_by_libyal() {
    let Some(library) = Library::vhdi() else { return };
    let folder = tempfile::tempdir().unwrap();
    let rimg = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
        let output = command.args(args).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut disk = vec![0; 5 * MIB + 4096];
    rimg_testkit::Rng::new(5).fill(&mut disk);
    disk[MIB..2 * MIB].fill(0);
    std::fs::write(folder.path().join("raw"), &disk).unwrap();
    let base = disk;
    for (format, options, options_above) in CHAINS {
        let mut disk = base.clone();
        let mut chain: Vec<PathBuf> = Vec::new();
        for (generation, name) in ["base", "child", "grandchild"].iter().enumerate() {
            if let Some(below) = chain.first() {
                let below = below.file_name().unwrap().to_str().unwrap();
                let above = ["-f", format, "-o", options_above, "-b", below, "-F", format, name];
                rimg(&[&["create", "-q"], &above[..]].concat());
                write(&rimg, format, name, generation, &mut disk);
            } else {
                rimg(&["convert", "-f", "raw", "-O", format, "-o", options, "raw", name]);
            }
            chain.insert(0, folder.path().join(name));
            let paths: Vec<_> = chain.iter().map(PathBuf::as_path).collect();
            let wanted = digest::of_bytes(&disk);
            assert_eq!(library.sha256(&paths), wanted, "{format} {options}: {name}");
            let ours = rimg(&["checksum", "-f", format, name]);
            assert_eq!(ours.split(' ').next(), Some(&*wanted), "{format} {options}: {name}");
        }
    }
}

/// Writes some pieces that neither begin nor end with a block. The first block is always written to:
/// of one that a child has not, libvhdi takes the start of the file for the bitmap of its sectors.
fn write(
    rimg: &dyn Fn(&[&str]) -> String,
    format: &str,
    name: &str,
    generation: usize,
    disk: &mut [u8],
) {
    const LEN: usize = 12 << 10;
    let offset = generation * (300 << 10);
    let pattern = u8::try_from(generation).unwrap() + 64;
    for nth in 0..3 {
        disk[offset + nth * MIB..][..LEN].fill(pattern);
    }
    let (offset, pattern) = (offset.to_string(), format!("--pattern={pattern}"));
    let flags = ["bench", "-q", "-w", "-c", "3", "-s", "12k", "-S", "1M", "-o"];
    rimg(&[&flags[..], &[&offset, &pattern, "-f", format, name]].concat());
}
