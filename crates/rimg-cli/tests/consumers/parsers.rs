//! What other programs read of rimg's answers is there, of the type that they expect, and says what
//! was made. Above a table stands who reads it, and where.
//!
//! That rimg prints what qemu-img prints is for the cases to show; this is about what must never
//! go missing, and it needs no qemu-img.

use rimg_testkit::peer::Peer;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What is at a place of the answer.
#[derive(Debug, Clone, Copy)]
enum Reads {
    Text(&'static str),
    Number(u64),
    /// Any number that is not negative, an integer.
    AnyNumber,
    Truth(bool),
    /// A list of so many.
    List(usize),
    Nothing,
}
use Reads::{AnyNumber, List, Nothing, Number, Text, Truth};

/// A command line, and what is read of its answer, by JSON pointers (RFC 6901).
type Answer = (&'static str, &'static [(&'static str, Reads)]);

const MIB: u64 = 1 << 20;

/// OpenStack: `oslo_utils/imageutils/qemu.py` of oslo.utils 10.2, `QemuImgInfo`, for Nova and Cinder;
/// `nova/virt/images.py` (`fetch_to_raw`, `check_vmdk_image`), `nova/virt/libvirt/driver.py`
/// (`payload-offset`), `cinder/image/image_utils.py` (`check_qcow2_image`, `check_vmdk_image`) and
/// `glance/async_/flows/plugins/image_conversion.py`.
#[test]
fn openstack() {
    check(&[
        (
            "info overlay --force-share --output=json",
            &[
                ("/filename", Text("overlay")),
                ("/backing-filename", Text("base")),
                ("/backing-filename-format", Text("raw")),
                ("/format", Text("qcow2")),
                ("/virtual-size", Number(8 * MIB)),
                ("/cluster-size", Number(65536)),
                ("/actual-size", AnyNumber),
                ("/snapshots", List(1)),
                ("/encrypted", Nothing),
                ("/format-specific/type", Text("qcow2")),
                ("/format-specific/data/data-file", Nothing),
            ],
        ),
        (
            "info base --force-share --output=json",
            &[
                ("/format", Text("raw")),
                ("/backing-filename", Nothing),
                ("/cluster-size", Nothing),
                ("/format-specific/data/data-file", Nothing),
            ],
        ),
        (
            "info -f qcow2 --output=json encrypted",
            &[("/encrypted", Truth(true)), ("/format-specific/data/encrypt/format", Text("luks"))],
        ),
        ("info -f qcow2 --output=json apart", &[("/format-specific/data/data-file", Text("data"))]),
        (
            "info -f vmdk --output=json stream.vmdk",
            &[("/format-specific/data/create-type", Text("streamOptimized"))],
        ),
        (
            "info -f vmdk --output=json flat.vmdk",
            &[("/format-specific/data/create-type", Text("monolithicFlat"))],
        ),
        (
            "info -f luks --output=json volume.luks",
            &[
                ("/format", Text("luks")),
                ("/encrypted", Truth(true)),
                ("/virtual-size", Number(8 * MIB)),
                ("/format-specific/data/payload-offset", Number(2_068_480)),
            ],
        ),
    ]);
}

/// `KubeVirt`'s Containerized Data Importer: `pkg/image/qemu.go`, `ImgInfo` and `isSupportedFormat`.
#[test]
fn cdi() {
    check(&[
        (
            "info --output=json overlay",
            &[
                ("/format", Text("qcow2")),
                ("/backing-filename", Text("base")),
                ("/virtual-size", Number(8 * MIB)),
                ("/actual-size", AnyNumber),
            ],
        ),
        ("info --output=json base", &[("/format", Text("raw")), ("/backing-filename", Nothing)]),
        ("info --output=json disk.vhd", &[("/format", Text("vpc")), ("/virtual-size", AnyNumber)]),
        ("info --output=json disk.vhdx", &[("/format", Text("vhdx")), ("/actual-size", AnyNumber)]),
        ("info --output=json disk.vdi", &[("/format", Text("vdi")), ("/actual-size", AnyNumber)]),
        ("info --output=json stream.vmdk", &[("/format", Text("vmdk"))]),
    ]);
}

/// Lima: `pkg/qemuimgutil/qemuimgutil.go`, `Info` and what is in it, `AcceptableAsBaseDisk`: no
/// backing file, no extent and no child in another file.
#[test]
fn lima() {
    check(&[
        (
            "info --output=json --force-share plain",
            &[
                ("/filename", Text("plain")),
                ("/format", Text("qcow2")),
                ("/virtual-size", Number(8 * MIB)),
                ("/actual-size", AnyNumber),
                ("/dirty-flag", Truth(false)),
                ("/cluster-size", Number(65536)),
                ("/backing-filename", Nothing),
                ("/full-backing-filename", Nothing),
                ("/backing-filename-format", Nothing),
                ("/format-specific/type", Text("qcow2")),
                ("/format-specific/data/compat", Text("1.1")),
                ("/format-specific/data/lazy-refcounts", Truth(false)),
                ("/format-specific/data/corrupt", Truth(false)),
                ("/format-specific/data/refcount-bits", Number(16)),
                ("/format-specific/data/compression-type", Text("zlib")),
                ("/format-specific/data/extended-l2", Truth(false)),
                ("/children", List(1)),
                ("/children/0/name", Text("file")),
                ("/children/0/info/filename", Text("plain")),
                ("/children/0/info/children", List(0)),
            ],
        ),
        (
            "info --output=json --force-share overlay",
            &[
                ("/backing-filename", Text("base")),
                ("/full-backing-filename", Text("base")),
                ("/backing-filename-format", Text("raw")),
            ],
        ),
        (
            "info --output=json --force-share stream.vmdk",
            &[
                ("/format-specific/type", Text("vmdk")),
                ("/format-specific/data/create-type", Text("streamOptimized")),
                ("/format-specific/data/cid", AnyNumber),
                ("/format-specific/data/parent-cid", Number(0xffff_ffff)),
                ("/format-specific/data/extents", List(1)),
                ("/format-specific/data/extents/0/filename", Text("stream.vmdk")),
                ("/format-specific/data/extents/0/format", Text("")),
                ("/format-specific/data/extents/0/virtual-size", Number(8 * MIB)),
                ("/format-specific/data/extents/0/cluster-size", Number(65536)),
                ("/children", List(1)),
                ("/children/0/info/filename", Text("stream.vmdk")),
            ],
        ),
        (
            "info --output=json --force-share flat.vmdk",
            &[("/format-specific/data/extents/0/filename", Text("flat-flat.vmdk"))],
        ),
    ]);
}

/// Proxmox VE: `src/PVE/Storage/Plugin.pm`, `file_size_info` and `volume_snapshot_info`;
/// `src/PVE/Storage/LVMPlugin.pm` reads what `measure` says.
#[test]
fn proxmox() {
    check(&[
        (
            "info --output=json overlay -f qcow2",
            &[
                ("/virtual-size", Number(8 * MIB)),
                ("/format", Text("qcow2")),
                ("/actual-size", AnyNumber),
                ("/backing-filename", Text("base")),
            ],
        ),
        (
            "info --output=json apart",
            &[
                ("/format-specific/type", Text("qcow2")),
                ("/format-specific/data/data-file", Text("data")),
            ],
        ),
        (
            "info --output=json flat.vmdk",
            &[
                ("/format-specific/type", Text("vmdk")),
                ("/format-specific/data/extents", List(1)),
                ("/children", List(2)),
            ],
        ),
        (
            "info --output=json overlay --backing-chain",
            &[
                ("", List(2)),
                ("/0/filename", Text("overlay")),
                ("/0/backing-filename", Text("base")),
                ("/0/snapshots/0/name", Text("first")),
                ("/0/snapshots/0/id", Text("1")),
                ("/0/snapshots/0/date-sec", AnyNumber),
                ("/1/filename", Text("base")),
                ("/1/backing-filename", Nothing),
            ],
        ),
        (
            "measure --output=json --size 33554432K -O qcow2",
            &[("/required", AnyNumber), ("/fully-allocated", AnyNumber)],
        ),
    ]);
}

/// `vagrant-libvirt`: `lib/vagrant-libvirt/action/package_domain.rb` and `tools/create_box.sh`, which
/// cut the human form: the third word of a line, and what is behind the first colon of one.
#[test]
fn vagrant() {
    check(&[("info --output=json overlay", &[("/virtual-size", Number(8 * MIB))])]);
    let folder = images();
    let answer = text(&run(folder.path(), "info overlay"));
    let line = |key: &str| answer.lines().find(|line| line.contains(key)).unwrap();
    assert_eq!(line("virtual size").split_whitespace().nth(2), Some("8"));
    assert_eq!(line("backing file:").split(':').nth(1), Some(" base"));
    let answer = text(&run(folder.path(), "info plain"));
    assert!(!answer.contains("backing file:"), "{answer}");
}

/// Cinder: `cinder/image/image_utils.py`, `get_qemu_img_version`: digits and dots behind the name, each
/// piece a number.
#[test]
fn version() {
    let folder = images();
    let answer = text(&run(folder.path(), "--version"));
    let rest = answer.strip_prefix("qemu-img version ").unwrap();
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap();
    let numbers: Vec<u32> = rest[..end].split('.').map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, [10, 0, 2]);
}

/// CDI reads `\((\d?\d\.\d\d)\/100%\)` (`pkg/image/qemu.go`), Proxmox `\((\S+)\/100\%\)`
/// (`src/PVE/QemuServer/QemuImage.pm`), both from standard output.
#[test]
fn progress() {
    let folder = images();
    fs::write(folder.path().join("full"), vec![7; 64 << 20]).unwrap();
    let output = run(folder.path(), "convert -p -f raw -O raw full out");
    let answer = text(&output);
    let steps: Vec<f64> = answer
        .trim_end_matches('\n')
        .split_terminator('\r')
        .map(|step| {
            let percent = step.strip_prefix("    (").and_then(|step| step.strip_suffix("/100%)"));
            let percent = percent.unwrap_or_else(|| panic!("{step:?}"));
            let (_, decimals) = percent.split_once('.').unwrap();
            assert_eq!(decimals.len(), 2, "{step:?}");
            percent.parse().unwrap()
        })
        .collect();
    assert!(steps.is_sorted(), "{steps:?}");
    assert!(steps.len() > 3, "nothing between the start and the end: {steps:?}");
    assert_eq!((steps.first(), steps.last()), (Some(&0.0), Some(&100.0)));
}

/// CDI tries another way where an error has these words (`pkg/image/qemu.go`,
/// `isUnsupportedPreallocation`).
#[test]
fn preallocation_that_is_not_supported() {
    let folder = images();
    for line in [
        "convert -o preallocation=metadata -t writeback -p -O raw plain out",
        "resize --preallocation=metadata -f raw base 16777216",
    ] {
        let output = answer(folder.path(), line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(error.contains("Unsupported preallocation mode"), "{line}: {error}");
    }
}

/// Nova, Glance and CDI let qemu-img have 1 GiB of addresses and 2 (Glance) or 30 seconds for an image
/// (`nova/privsep/qemu.py`, `glance/async_/utils.py`, `pkg/image/qemu.go`), older CDI for conversions.
#[test]
fn limits_of_memory_and_time() {
    let Some(prlimit) = Peer::require("prlimit") else { return };
    let folder = images();
    run(folder.path(), "create -q -f qcow2 huge 60T");
    std::fs::write(folder.path().join("base"), vec![7; 8 << 20]).unwrap();
    run(folder.path(), "convert -f raw -O qcow2 -c base packed");
    let prlimit = prlimit.in_dir(folder.path());
    for line in [
        "info huge --force-share --output=json",
        "info --output=json overlay",
        "info --output=json stream.vmdk",
        "convert -p -f qcow2 -O raw overlay out",
        "convert -p -f qcow2 -O raw packed out",
    ] {
        let mut args = vec!["--as=1073741824", "--cpu=2", "./qemu-img"];
        args.extend(line.split_whitespace());
        prlimit.ok(&args);
    }
}

/// What is looked at. The sizes and names in the tables are those that stand here.
fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "create -q -f raw base 8M",
        "create -q -f qcow2 plain 8M",
        "create -q -f qcow2 -b base -F raw overlay",
        "snapshot -c first overlay",
        "create -q -f qcow2 -o data_file=data apart 8M",
        "create -q -f qcow2 --object secret,id=s,data=abc -o \
         encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 encrypted 8M",
        "create -q -f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 \
         volume.luks 8M",
        "create -q -f vmdk -o subformat=streamOptimized stream.vmdk 8M",
        "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 8M",
        "create -q -f vpc disk.vhd 8M",
        "create -q -f vhdx disk.vhdx 8M",
        "create -q -f vdi disk.vdi 8M",
    ] {
        run(folder.path(), line);
    }
    folder
}

fn check(answers: &[Answer]) {
    let folder = images();
    let mut wrong = Vec::new();
    for (line, fields) in answers {
        let answer: Value = serde_json::from_slice(&run(folder.path(), line).stdout).unwrap();
        for (pointer, expected) in *fields {
            let found = answer.pointer(pointer);
            if !expected.is(found) {
                wrong.push(format!("{line}: {pointer} is {found:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Reads {
    fn is(self, found: Option<&Value>) -> bool {
        match self {
            Text(text) => found.and_then(Value::as_str) == Some(text),
            Number(number) => found.and_then(Value::as_u64) == Some(number),
            AnyNumber => found.is_some_and(Value::is_u64),
            Truth(truth) => found.and_then(Value::as_bool) == Some(truth),
            List(len) => found.and_then(Value::as_array).map(Vec::len) == Some(len),
            Nothing => found.is_none(),
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs a line that has to succeed, and to say nothing on standard error: Glance takes anything
/// there for an error.
fn run(folder: &Path, line: &str) -> Output {
    let output = answer(folder, line);
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    output
}

/// Runs rimg by the name of qemu-img.
fn answer(folder: &Path, line: &str) -> Output {
    let link = folder.join("qemu-img");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rimg"), &link).unwrap();
    }
    Command::new(link).args(line.split_whitespace()).current_dir(folder).output().unwrap()
}
