//! Encrypted images: laid out as qemu-img lays them out, and each reads what the other wrote.

use crate::folder::{Folder, folder, options};
use rimg_core::{
    BlockImage, Error, ExtentKind, FormatDriver as _, OpenOptions, RawOptions, Result, num,
};
use rimg_qcow2::DRIVER;
use rimg_storage::FileOptions;
use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use std::fs;

const MIB: u64 = 1 << 20;
const SECRET: &str = "secret,id=s,data=swordfish";
const AES: &str = "encrypt.format=aes,encrypt.key-secret=s";
/// What lies below shows where a cluster is taken away, so that clusters of zeroes are needed.
const BACKING: &str = ",backing_file=base,backing_fmt=raw";
const LUKS: &str = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";
/// Where key material of the first slot lies in a LUKS header.
const MATERIAL: usize = 4096;

/// Further options, for both methods.
const IMAGES: &[&str] = &[
    "",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=2097152",
    "extended_l2=on,cluster_size=16384",
    "refcount_bits=64,cluster_size=4096",
    "data_file=d",
    "backing_file=base,backing_fmt=raw",
    "preallocation=metadata",
    "preallocation=falloc,cluster_size=4096",
    "preallocation=full",
    "data_file=d,data_file_raw=on",
];

/// What only LUKS has.
const CIPHERS: &[&str] = &[
    "encrypt.cipher-alg=aes-128",
    "encrypt.cipher-alg=aes-192,encrypt.hash-alg=sha1",
    "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain",
    "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.hash-alg=sha512",
    "encrypt.cipher-mode=ecb,encrypt.cipher-alg=aes-128",
    "encrypt.ivgen-hash-alg=sha1",
];

fn lines() -> Vec<String> {
    let all = [AES, LUKS].into_iter().flat_map(|method| {
        IMAGES.iter().map(move |more| format!("{method},{more}").trim_end_matches(',').to_owned())
    });
    all.chain(CIPHERS.iter().map(|more| format!("{LUKS},{more}"))).collect()
}

fn with_secret(line: &str) -> RawOptions {
    options(line).with_secret("s", "swordfish".into())
}

fn open(
    folder: &Folder,
    name: &str,
    writable: bool,
    key: &RawOptions,
) -> Result<Box<dyn BlockImage>> {
    let file = if writable { FileOptions::write() } else { FileOptions::read() };
    let how = OpenOptions { writable, options: key, ..folder.how() };
    DRIVER.open(folder.storage(name, file), &how)
}

fn key() -> RawOptions {
    with_secret("encrypt.key-secret=s")
}

fn prepared(guest: &GuestContents) -> (tempfile::TempDir, Folder) {
    let (dir, folder) = folder();
    fs::File::create(folder.path("base")).unwrap().set_len(MIB).unwrap();
    guest.write_file(folder.path("wanted")).unwrap();
    (dir, folder)
}

#[test]
fn new_images_are_laid_out_as_qemu_img_does_and_its_own_are_read() {
    let (Some(qemu), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let guest = GuestContents::with_segments_up_to(2, 3 * MIB, 100 << 10);
    for line in lines() {
        let (dir, folder) = prepared(&guest);
        let (qemu, io) = (qemu.in_dir(&dir), io.in_dir(&dir));
        let size = (3 * MIB).to_string();
        let create = ["create", "-q", "-u", "-f", "qcow2", "--object", SECRET, "-o"];
        qemu.ok(create.into_iter().chain([&*line, "q", &*size]));
        compare_layout(&folder, &line);
        let image = "driver=qcow2,encrypt.key-secret=s,file.filename=q";
        io.ok([
            "--object",
            SECRET,
            "--image-opts",
            image,
            "-c",
            "write -s wanted 0 3145728",
            "-c",
            "discard 0 65536",
            "-c",
            "write -z 1048576 100000",
            "-c",
            "write -P 9 70000 1536",
        ]);
        let convert = ["convert", "--object", SECRET, "--image-opts", image, "-O", "raw"];
        qemu.ok(convert.into_iter().chain(["expected"]));
        compare_contents(&folder, &line);
    }
}

fn compare_layout(folder: &Folder, line: &str) {
    let data = fs::read(folder.path("d")).ok();
    folder.create("r", 3 * MIB, &with_secret(line)).unwrap();
    if let Some(data) = data {
        fs::write(folder.path("d"), data).unwrap();
    }
    let [mut theirs, mut ours] = ["q", "r"].map(|name| fs::read(folder.path(name)).unwrap());
    assert_eq!(ours.len(), theirs.len(), "{line}");
    if line.contains("luks") {
        let at = theirs.windows(8).position(|w| w == b"LUKS\xba\xbe\0\x01").unwrap();
        for bytes in [&mut theirs, &mut ours] {
            blank_random(&mut bytes[at..]);
        }
    }
    let difference = theirs.iter().zip(&ours).position(|(a, b)| a != b);
    assert_eq!(difference.map(|at| format!("{at:#x}")), None, "{line}");
}

fn compare_contents(folder: &Folder, line: &str) {
    let expected = fs::read(folder.path("expected")).unwrap();
    let image = open(folder, "q", false, &key()).unwrap();
    let mut all = vec![0; expected.len()];
    image.read_at(&mut all, 0).unwrap();
    assert!(all == expected, "{line}");
    // In pieces that are no sectors.
    let mut at = 0;
    for piece in expected.chunks(70_001) {
        let mut read = vec![0; piece.len()];
        image.read_at(&mut read, at).unwrap();
        assert!(read == piece, "{line} at {at}");
        at += num::to_u64(piece.len());
    }
    let kind = image.extent_at(2 * MIB..3 * MIB).unwrap().kind;
    assert!(!matches!(kind, ExtentKind::Data(_)), "{line}: shown as if it could be read");
}

/// Overwrites what differs between any two LUKS headers: digests, salts, iterations, the
/// identifier, key material.
fn blank_random(luks: &mut [u8]) {
    let key_bytes = u32::from_be_bytes(*luks[108..].first_chunk().unwrap());
    let material = usize::try_from(key_bytes).unwrap() * 4000;
    assert!(luks[MATERIAL..MATERIAL + material].iter().any(|byte| *byte != 0));
    for range in [112..208, 212..248, MATERIAL..MATERIAL + material.next_multiple_of(512)] {
        luks[range].fill(0xaa);
    }
}

#[test]
fn qemu_reads_and_goes_on_writing() {
    let (Some(qemu), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let guest = GuestContents::with_segments_up_to(3, 3 * MIB, 100 << 10);
    for line in lines() {
        let (dir, folder) = prepared(&guest);
        folder.create("r", 3 * MIB, &with_secret(&line)).unwrap();
        let image = open(&folder, "r", true, &key()).unwrap();
        for _ in 0..2 {
            guest.write_to(image.writer().unwrap()).unwrap();
        }
        image.writer().unwrap().write_at(&[5; 1000], 1_000_001).unwrap();
        image.writer().unwrap().write_zeroes_at(2_000_001..2_001_000).unwrap();
        let mut wanted = vec![0; num::to_usize(3 * MIB).unwrap()];
        image.read_at(&mut wanted, 0).unwrap();
        assert_eq!(wanted[1_000_001..1_001_001], [5; 1000]);
        image.close().unwrap();
        fs::write(folder.path("wanted"), &wanted).unwrap();

        let opts = "driver=qcow2,encrypt.key-secret=s,file.filename=r";
        let qemu = qemu.in_dir(&dir);
        let report = qemu.ok(["check", "--object", SECRET, "--image-opts", opts]);
        assert!(report.starts_with("No errors were found"), "{line}: {report}");
        let raw = "driver=raw,file.filename=wanted";
        let compared = qemu.ok(["compare", "--object", SECRET, "--image-opts", opts, raw]);
        assert_eq!(compared, "Images are identical.\n", "{line}");
        let out = io.in_dir(&dir).ok([
            "--object",
            SECRET,
            "--image-opts",
            opts,
            "-c",
            "write -P 7 12345 6789",
            "-c",
            "write -P 8 2500000 200000",
        ]);
        assert!(!out.contains("failed"), "{line}: {out}");
        wanted[12_345..12_345 + 6789].fill(7);
        wanted[2_500_000..2_700_000].fill(8);
        let image = open(&folder, "r", false, &key()).unwrap();
        let mut read = vec![0; wanted.len()];
        image.read_at(&mut read, 0).unwrap();
        assert!(read == wanted, "{line}");
    }
}

#[test]
fn refusals_are_in_qemu_imgs_words() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = prepared(&GuestContents::new(4, 512));
    let qemu = qemu.in_dir(&dir);
    for (name, line) in [("aes", AES), ("luks", LUKS), ("plain", "compat=1.1")] {
        folder.create(name, MIB, &with_secret(line)).unwrap();
        for key in [
            "",
            "encrypt.key-secret=s",
            "encrypt.key-secret=wrong",
            "encrypt.key-secret=t",
            "encrypt.key-secret=s,encrypt.format=aes",
            "encrypt.key-secret=s,encrypt.format=luks",
            "encrypt.key-secret=s,encrypt.format=none",
            "encrypt.key-secret=s,encrypt.cipher-alg=aes-128",
        ] {
            let opts = format!("driver=qcow2,file.filename={name},{key}");
            let opts = opts.trim_end_matches(',');
            let outcome = qemu.run([
                "map",
                "--object",
                SECRET,
                "--object",
                "secret,id=wrong,data=x",
                "--image-opts",
                opts,
            ]);
            let given = with_secret(key).with_secret("wrong", "x".into());
            match open(&folder, name, false, &given) {
                Ok(_) => assert_eq!(outcome.status, Some(0), "{opts}: {}", outcome.stderr),
                Err(error @ Error::InvalidOption { .. }) => assert_eq!(
                    outcome.stderr,
                    format!("qemu-img: Could not open '{opts}': {error}\n"),
                ),
                Err(other) => panic!("{opts}: {other}"),
            }
        }
    }
}

/// Version 2 has no word for zeroes: they become data, which has to be encrypted as all data is.
#[test]
fn zeroes_stay_zeroes_in_version_2() {
    let Some(qemu) = Peer::qemu_img() else { return };
    for (line, backing) in [(AES, ""), (LUKS, ""), (AES, BACKING), (LUKS, BACKING)] {
        let (dir, folder) = prepared(&GuestContents::new(5, 512));
        folder.create("r", MIB, &with_secret(&format!("{line}{backing}"))).unwrap();
        let image = open(&folder, "r", true, &key()).unwrap();
        let writer = image.writer().unwrap();
        writer.write_at(&vec![7; 1 << 20], 0).unwrap();
        writer.write_zeroes_at(131_072..262_144).unwrap();
        writer.flush().unwrap();
        let amender = image.amender().unwrap();
        amender.amend(&options("compat=0.10"), false, &mut |_, _| ()).unwrap();
        image.close().unwrap();
        let mut wanted = vec![7; 1 << 20];
        wanted[131_072..262_144].fill(0);
        fs::write(folder.path("wanted"), &wanted).unwrap();
        let opts = "driver=qcow2,encrypt.key-secret=s,file.filename=r";
        let raw = "driver=raw,file.filename=wanted";
        let compared =
            qemu.in_dir(&dir).ok(["compare", "--object", SECRET, "--image-opts", opts, raw]);
        assert_eq!(compared, "Images are identical.\n", "{line}{backing}");
    }
}
