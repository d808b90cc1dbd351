//! Pictures of images, against the map that qemu-img prints.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// A compressed base, a layer with zeroes and data, and a top written out of order.
fn make_chain(folder: &Path) -> Option<()> {
    let (img, io) = (Peer::qemu_img()?.in_dir(folder), Peer::qemu_io()?.in_dir(folder));
    let mut disk = vec![0; 4 << 20];
    // Noise stays as it is; letters compress.
    disk[..256 << 10].copy_from_slice(&GuestContents::new(1, 256 << 10).to_vec());
    disk[1 << 20..(1 << 20) + (256 << 10)].fill(b'a');
    fs::write(folder.join("disk"), disk).unwrap();
    img.ok(["convert", "-c", "-O", "qcow2", "disk", "base"]);
    img.ok(["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "mid"]);
    io.ok(["-c", "write -P 1 2M 256k", "-c", "write -z 3M 256k", "mid"]);
    img.ok(["create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top"]);
    for at in ["3584k", "1536k", "2560k"] {
        io.ok(["-c", &format!("write -P 7 {at} 64k"), "top"]);
    }
    Some(())
}

#[test]
fn a_chain_is_drawn_cell_by_cell() {
    let folder = tempfile::tempdir().unwrap();
    if make_chain(folder.path()).is_none() {
        return;
    }
    // 64 cells of 64 KiB.
    let picture = rimg(folder.path(), &["map", "--picture", "top"], "28");
    let letters: String = picture.lines().filter_map(|line| line.split('|').nth(1)).collect();
    assert_eq!(letters.len(), 16 * 16, "{picture}");
    let json = Peer::qemu_img().unwrap().in_dir(folder.path()).ok(["map", "--output=json", "top"]);
    let map: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let mut expected = String::new();
    for run in &map {
        let depth = run["depth"].as_u64().unwrap();
        let is = |what: &str| run[what].as_bool().unwrap();
        let letter = match (is("compressed"), is("data"), is("present")) {
            (true, _, _) => ["c", "d", "e"][usize::try_from(depth).unwrap()],
            (_, true, _) => ["#", "1", "2"][usize::try_from(depth).unwrap()],
            (_, _, true) => "z",
            _ => ".",
        };
        let cells = run["length"].as_u64().unwrap() / (16 << 10);
        expected.push_str(&letter.repeat(usize::try_from(cells).unwrap()));
    }
    assert_eq!(letters, expected, "{picture}");
    assert!(picture.contains("  # data: 192 KiB (4%)\n"), "{picture}");
    assert!(picture.contains("  1 data of the image below: 256 KiB (6%)\n"), "{picture}");
    assert!(picture.contains("  z known to be zero: 256 KiB (6%)\n"), "{picture}");
}

#[test]
fn a_drawing_is_well_formed_and_has_every_look() {
    let folder = tempfile::tempdir().unwrap();
    if make_chain(folder.path()).is_none() {
        return;
    }
    assert_eq!(rimg(folder.path(), &["map", "--picture", "-o", "top.svg", "top"], "80"), "");
    let svg = fs::read_to_string(folder.path().join("top.svg")).unwrap();
    assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    for colour in ["#1d4ed8", "#0f766e", "#b45309", "#fbbf24", "#cbd5e1", "#f1f5f9"] {
        // In the rows and in the legend.
        assert!(svg.matches(colour).count() >= 2, "{colour}");
    }
}

#[test]
fn qemu_img_draws_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (args, message) in [
        (["map", "--picture", "x"], "qemu-img map: unrecognized option '--picture'"),
        (["map", "-o", "x"], "qemu-img map: invalid option -- 'o'"),
    ] {
        let said =
            String::from_utf8(called("qemu-img", folder.path(), &args, "80").stderr).unwrap();
        assert_eq!(said.lines().next(), Some(message));
    }
    let out = called("rimg", folder.path(), &["map", "-o", "y", "x"], "80");
    assert!(String::from_utf8(out.stderr).unwrap().starts_with("rimg: -o is for --picture\n"));
}

fn rimg(folder: &Path, args: &[&str], columns: &str) -> String {
    let out = called("rimg", folder, args, columns);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn called(name: &str, folder: &Path, args: &[&str], columns: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
    command.arg0(name).args(args).env("COLUMNS", columns).current_dir(folder).output().unwrap()
}
