//! New images are the same, byte for byte, as those that qemu-img creates.

use crate::folder::{Folder, folder, options};
use rimg_core::Error;
use rimg_testkit::peer::Peer;
use std::fs;
use std::path::Path;

const SIZES: &[u64] = &[0, 512, 1000, 65_536, 1 << 20, (1 << 20) + 512, 100 << 20, 1 << 30];

#[test]
fn plain_images() {
    let mut lines = Vec::new();
    for bits in 9..=21 {
        let cluster = 1_u64 << bits;
        for refcount_bits in [1, 2, 4, 8, 16, 32, 64] {
            let size = SIZES[(bits + refcount_bits) % SIZES.len()];
            lines.push((format!("cluster_size={cluster},refcount_bits={refcount_bits}"), size));
        }
        for size in SIZES.iter().filter(|size| bits > 9 || **size < 1 << 30) {
            lines.push((format!("cluster_size={cluster}"), *size));
            lines.push((format!("cluster_size={cluster},compat=0.10"), *size));
        }
    }
    assert!(lines.len() > 250);
    compare(&lines);
}

#[test]
fn features() {
    let mut lines = Vec::new();
    for one in ["", "lazy_refcounts=on", "extended_l2=on", "compression_type=zstd"] {
        for two in
            ["", "data_file=d", "data_file=d,data_file_raw=on", "backing_file=base,backing_fmt=raw"]
        {
            for cluster in ["", "cluster_size=16384", "cluster_size=2097152"] {
                let line: Vec<&str> =
                    [one, two, cluster].into_iter().filter(|t| !t.is_empty()).collect();
                for size in [0, 512, 10 << 20, 300 << 20] {
                    lines.push((line.join(","), size));
                }
            }
        }
    }
    for cluster in ["512", "1024", "4096", "8192"] {
        let long = "x".repeat(368);
        lines.push((format!("cluster_size={cluster},backing_file=base,backing_fmt=raw"), 1 << 20));
        lines
            .push((format!("cluster_size={cluster},backing_file={long},backing_fmt=raw"), 1 << 20));
        lines.push((
            format!("cluster_size={cluster},compat=v2,backing_file=base,backing_fmt=raw"),
            7,
        ));
        lines.push((format!("cluster_size={cluster},data_file=d"), 1 << 20));
    }
    compare(&lines);
}

#[test]
fn large_disks() {
    compare(&lines(&[
        ("", 1 << 40),
        ("", 2 << 50),
        ("cluster_size=2097152", 64 << 50),
        ("cluster_size=2097152,refcount_bits=64", 1 << 60),
        ("cluster_size=4096", 1 << 40),
        ("extended_l2=on", 1 << 50),
    ]));
}

/// L1 tables that need further refcount blocks, up to a refcount table that has to move.
#[test]
fn large_l1_tables() {
    let mut lines = lines(&[
        ("cluster_size=512", 1 << 30),
        ("cluster_size=1024,refcount_bits=64", 20 << 30),
        ("cluster_size=512,refcount_bits=1", 8 << 30),
    ]);
    for mib in [4096, 7900, 8000, 8054, 8060, 8062, 8064, 8066, 8188, 8190, 8192] {
        lines.push(("cluster_size=512,refcount_bits=64".into(), mib << 20));
    }
    compare(&lines);
}

#[test]
fn preallocation() {
    let mut lines = Vec::new();
    for mode in ["metadata", "falloc", "full"] {
        for more in [
            "",
            ",cluster_size=512",
            ",cluster_size=4096,refcount_bits=64",
            ",cluster_size=2097152",
            ",compat=0.10",
            ",refcount_bits=1",
            ",extended_l2=on",
            ",extended_l2=on,backing_file=base,backing_fmt=raw",
            ",data_file=d",
            ",data_file=d,data_file_raw=on,extended_l2=on",
            ",lazy_refcounts=on",
        ] {
            for size in [512, 3 << 20, (3 << 20) + 512] {
                lines.push((format!("preallocation={mode}{more}"), size));
            }
        }
    }
    lines.push(("preallocation=metadata".into(), 1 << 30));
    lines.push(("preallocation=metadata,cluster_size=4096".into(), 100 << 20));
    compare(&lines);
}

/// Where guest data makes the refcount table move, it may lie elsewhere, but it has to be right.
#[test]
fn moved_refcount_tables_are_clean() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = prepared();
    for cluster in [512, 1024] {
        let line = format!("preallocation=metadata,refcount_bits=64,cluster_size={cluster}");
        folder.create("r", 64 << 20, &options(&line)).unwrap();
        let report = qemu.in_dir(&dir).ok(["check", "r"]);
        assert!(report.contains("No errors were found on the image."), "{line}: {report}");
    }
}

#[test]
fn refusals_are_in_qemu_imgs_words() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = prepared();
    let qemu = qemu.in_dir(&dir);
    let mut count = 0;
    let versions = ["compat=0.10", "compat=1.1", "compat=0.9"];
    let others = [
        "lazy_refcounts=on",
        "extended_l2=on",
        "extended_l2=on,cluster_size=8192",
        "compression_type=zstd",
        "compression_type=lzo",
        "refcount_bits=3",
        "refcount_bits=8",
        "data_file=d",
        "data_file_raw=on",
        "data_file=d,data_file_raw=on,backing_file=base,backing_fmt=raw",
        "preallocation=some",
        "preallocation=full,backing_file=base,backing_fmt=raw",
        "cluster_size=500",
        "backing_fmt=raw",
        "nonsense=1",
    ];
    for (i, one) in others.iter().enumerate() {
        for two in &others[i..] {
            for version in versions {
                let line = format!("{version},{one},{two}");
                let outcome =
                    qemu.run(["create", "-q", "-u", "-f", "qcow2", "-o", &line, "q", "1048576"]);
                match folder.create("r", 1 << 20, &options(&line)) {
                    Ok(()) => assert_eq!(outcome.status, Some(0), "{line}: {}", outcome.stderr),
                    Err(Error::InvalidOption { reason, .. }) => {
                        count += 1;
                        assert_eq!(outcome.stderr, format!("qemu-img: q: {reason}\n"), "{line}");
                    }
                    Err(other) => panic!("{line}: {other}"),
                }
            }
        }
    }
    assert!(count > 100);
    for (line, size) in lines(&[
        ("", 3 << 50),
        ("", (1 << 63) - 512),
        ("cluster_size=512", (128 << 30) + 1),
        (&format!("cluster_size=512,backing_file={},backing_fmt=raw", "x".repeat(377)), 1),
        (&format!("backing_file={},backing_fmt=raw", "x".repeat(1024)), 1),
    ]) {
        let size_text = size.to_string();
        let outcome = qemu.run(args(&line, "q", &size_text));
        let error = folder.create("r", size, &options(&line)).unwrap_err();
        assert_eq!(outcome.stderr, format!("qemu-img: q: {error}\n"), "{line} {size}");
    }
}

fn lines(lines: &[(&str, u64)]) -> Vec<(String, u64)> {
    lines.iter().map(|(line, size)| ((*line).to_owned(), *size)).collect()
}

fn args<'a>(line: &'a str, name: &'a str, size: &'a str) -> Vec<&'a str> {
    let mut args = vec!["create", "-q", "-u", "-f", "qcow2"];
    if !line.is_empty() {
        args.extend(["-o", line]);
    }
    args.extend([name, size]);
    args
}

fn prepared() -> (tempfile::TempDir, Folder) {
    let (dir, folder) = folder();
    fs::File::create(folder.path("base")).unwrap().set_len(1 << 20).unwrap();
    (dir, folder)
}

/// Creates each image with both and compares all bytes.
fn compare(lines: &[(String, u64)]) {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = prepared();
    let qemu = qemu.in_dir(&dir);
    let mut wrong = Vec::new();
    for (line, size) in lines {
        for name in ["q", "r", "d"] {
            let _ = fs::remove_file(folder.path(name));
        }
        qemu.ok(args(line, "q", &size.to_string()));
        let data = fs::metadata(folder.path("d")).map(|data| data.len()).ok();
        let _ = fs::remove_file(folder.path("d"));
        if let Err(error) = folder.create("r", *size, &options(line)) {
            wrong.push(format!("{line} {size}: {error}"));
            continue;
        }
        let data_here = fs::metadata(folder.path("d")).map(|data| data.len()).ok();
        if data != data_here {
            wrong.push(format!("{line} {size}: data file of {data_here:?}, not {data:?}"));
        }
        if let Some(difference) = difference(&folder.path("q"), &folder.path("r")) {
            wrong.push(format!("{line} {size}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

fn difference(theirs: &Path, ours: &Path) -> Option<String> {
    let [theirs, ours] = [theirs, ours].map(|path| fs::read(path).unwrap());
    if theirs.len() != ours.len() {
        return Some(format!("length {:#x}, not {:#x}", ours.len(), theirs.len()));
    }
    if theirs == ours {
        return None;
    }
    let at = theirs.iter().zip(&ours).position(|(a, b)| a != b)?;
    let end = (at + 16).min(ours.len());
    Some(format!("at {at:#x}: {:02x?}, not {:02x?}", &ours[at..end], &theirs[at..end]))
}
