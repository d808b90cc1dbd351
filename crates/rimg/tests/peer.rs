//! Chains, maps and guarded writes as qemu-img and qemu-io have them.
#![cfg(feature = "qcow2")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg::{Creator, LocalFiles, MapEntries, MapEntry, Opener};
use rimg_testkit::Rng;
use rimg_testkit::peer::Peer;
use std::path::Path;

/// What `map --output=json` prints, read back.
fn their_map(qemu_img: &Peer, name: &str) -> Vec<MapEntry> {
    let map: serde_json::Value =
        serde_json::from_str(&qemu_img.ok(["map", "--output=json", name])).unwrap();
    let entry = |run: &serde_json::Value| {
        let number = |field: &str| run[field].as_u64().unwrap();
        let flag = |field: &str| run[field].as_bool().unwrap();
        MapEntry {
            start: number("start"),
            len_bytes: number("length"),
            depth: usize::try_from(number("depth")).unwrap(),
            present: flag("present"),
            zero: flag("zero"),
            data: flag("data"),
            compressed: flag("compressed"),
            place: run["offset"]
                .as_u64()
                .map(|host| rimg::FileOffset { file: 0, host: rimg::HostOffset(host) }),
        }
    };
    map.as_array().unwrap().iter().map(entry).collect()
}

fn our_map(path: &Path) -> Vec<MapEntry> {
    let image = Opener::new().policy(LocalFiles).open(path).unwrap();
    MapEntries::new(&*image).collect::<rimg::Result<_>>().unwrap()
}

#[test]
fn maps_of_chains_are_the_same() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (qemu_img, qemu_io) = (qemu_img.in_dir(dir.path()), qemu_io.in_dir(dir.path()));
    let mut rng = Rng::new(0x6d61_7073);
    let (mut done, mut refused) = (0, 0);
    for round in 0..6 {
        let base = format!("base-{round}");
        std::fs::File::create(dir.path().join(&base)).unwrap().set_len(700_001).unwrap();
        qemu_io.ok(["-f", "raw", "-c", "write -P 1 65536 200000", &base]);
        let mut below = (base, "raw");
        for (layer, cluster, size) in
            [("middle", "64k", "3M"), ("upper", "4k", "1M"), ("top", "64k", "2M")]
        {
            let name = format!("{layer}-{round}");
            let options = format!("cluster_size={cluster}");
            qemu_img.ok([
                "create", "-q", "-f", "qcow2", "-o", &options, "-b", &below.0, "-F", below.1,
                &name, size,
            ]);
            for _ in 0..6 {
                let at = rng.below(15) * 65_536;
                let command = match rng.below(4) {
                    0 => format!("write -z {at} 64k"),
                    1 => format!("write -zu {at} 128k"),
                    2 => format!("write -c {at} 64k"),
                    // Whole clusters: holes inside of one are the file's, and a map that looks into
                    // the file is a matter of its own.
                    _ => format!("write -P 3 {at} {}", 65_536 * (1 + rng.below(3))),
                };
                // Some reach past the end, and compressing over data fails: both change nothing.
                let outcome = qemu_io.run(["-f", "qcow2", "-c", &command, &name]);
                let worked = outcome.status == Some(0) && !outcome.stdout.contains("failed");
                *if worked { &mut done } else { &mut refused } += 1;
            }
            below = (name, "qcow2");
        }
        let top = dir.path().join(&below.0);
        assert_eq!(our_map(&top), their_map(&qemu_img, &below.0), "round {round}");
    }
    assert!(done > 2 * refused, "{done} writes, {refused} refused: too little to look at");
}

#[test]
fn writes_to_a_guessed_raw_image_are_refused_by_both() {
    let Some(qemu_io) = Peer::qemu_io() else { return };
    let dir = tempfile::tempdir().unwrap();
    let name = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
    // As much of a qcow2 header as a probe looks at.
    let header = [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 504]].concat();
    std::fs::write(name("header"), &header).unwrap();
    let whole = header.clone();
    let mut refusals = Vec::new();
    for (at, bytes) in [(0, &whole[..]), (512, &whole[..]), (0, &whole[..7]), (0, &[1; 512][..])] {
        Creator::new("raw").size(1 << 20).create(name("disk")).unwrap();
        std::fs::write(name("pattern"), bytes).unwrap();
        let command = format!("write -s {} {at} {}", name("pattern"), bytes.len());
        let theirs = qemu_io.run(["-c", &command, &name("disk")]);
        let refused = theirs.stdout.contains("Operation not permitted")
            || theirs.stderr.contains("Operation not permitted");

        Creator::new("raw").size(1 << 20).create(name("disk")).unwrap();
        let image = Opener::new().writable(true).open(name("disk")).unwrap();
        let ours = image.writer().unwrap().write_at(bytes, at);
        assert_eq!(ours.is_err(), refused, "{} bytes at {at}: {ours:?}", bytes.len());
        refusals.push(refused);
    }
    assert!(refusals.contains(&true) && refusals.contains(&false), "{refusals:?}");
}

#[test]
fn relative_names_mean_the_same_files() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for base in ["base", "sub/base", "./a:b"] {
        std::fs::write(dir.path().join(base), [7; 4096]).unwrap();
    }
    std::os::unix::fs::symlink("sub/top", dir.path().join("link")).unwrap();
    let qemu_img = qemu_img.in_dir(dir.path());
    for (top, opened_as, base) in [
        ("top", "top", "base".to_owned()),
        ("top", "top", "./a:b".to_owned()),
        ("top", "top", "a:b".to_owned()),
        ("sub/top", "sub/top", "base".to_owned()),
        ("sub/top", "sub/top", "../base".to_owned()),
        ("sub/top", "link", "base".to_owned()),
        ("sub/top", "link", "../base".to_owned()),
        ("top", "top", format!("file:{}", dir.path().join("base").display())),
    ] {
        qemu_img.ok(["create", "-q", "-f", "qcow2", "-u", "-b", &base, "-F", "raw", top, "4096"]);
        let path = dir.path().join(opened_as);
        let theirs = qemu_io.run(["-r", "-c", "read -P 7 0 4096", path.to_str().unwrap()]);
        let works = theirs.status == Some(0) && !theirs.stdout.contains("verification failed");
        let ours = Opener::new().policy(LocalFiles).open(&path).map(|image| {
            let mut bytes = [0; 4096];
            image.read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, [7; 4096]);
        });
        assert_eq!(ours.is_ok(), works, "{opened_as} over {base}: {ours:?} {theirs:?}");
    }
}
