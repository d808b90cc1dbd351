//! A process that is killed while it writes leaves an image that opens, holds what was flushed,
//! and is damaged by leaks at worst.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rimg::{BlockImage, Creator, FindingKind, Opener, Repair};
use rimg_testkit::Rng;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the image to the process that is going to be killed.
const IMAGE: &str = "RIMG_KILLED_IMAGE";
const SECTORS: u64 = 4096;
const SECTOR_BYTES: u64 = 512;
const FLUSH_EVERY: u64 = 8;
const KILLS: u64 = 200;

/// Step number `step` of the writes, which every process can work out: the sectors that it fills
/// with its number.
fn step(step: u64) -> (u64, u64) {
    let mut rng = Rng::new(step.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let first = rng.below(SECTORS);
    (first, (1 + rng.below(40)).min(SECTORS - first))
}

fn bytes(number: u64, sectors: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(usize::try_from(sectors * SECTOR_BYTES / 8).unwrap())
}

/// Not a test of its own: the process that the other one kills. Without an image it has nothing to
/// do.
#[test]
fn write_until_killed() {
    let Some(path) = std::env::var_os(IMAGE) else { return };
    let image = Opener::new().format("qcow2").writable(true).open(Path::new(&path)).unwrap();
    let writer = image.writer().unwrap();
    for number in 1.. {
        let (first, sectors) = step(number);
        writer.write_at(&bytes(number, sectors), first * SECTOR_BYTES).unwrap();
        if number % FLUSH_EVERY == 0 {
            writer.flush().unwrap();
            // In one piece, so that a kill leaves whole lines.
            std::io::stderr().write_all(format!("flushed {number}\n").as_bytes()).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_only_what_it_did_not_flush() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let mut most = 0;
    for kill in 0..KILLS {
        let cluster = ["512", "4096", "65536"][usize::try_from(kill % 3).unwrap()];
        Creator::new("qcow2")
            .size(SECTORS * SECTOR_BYTES)
            .option("cluster_size", cluster)
            .create(&path)
            .unwrap();
        let flushed = write_and_kill(&path, 1 + kill % 13);
        most = most.max(flushed);
        let image = Opener::new().format("qcow2").writable(true).open(&path).unwrap();
        let what = format!("kill {kill}, {flushed} flushed");
        image
            .checker()
            .unwrap()
            .check(Repair::Nothing, &mut |found| {
                assert_eq!(found.kind, FindingKind::Leak, "{}: {what}", found.message);
            })
            .unwrap();
        assert_contents(&*image, flushed, &what);
    }
    assert!(most > FLUSH_EVERY, "no process came far enough to show anything");
}

/// Starts a process that writes, kills it when it has flushed a few times, and returns up to which
/// step it had.
fn write_and_kill(path: &Path, flushes: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_until_killed", "--nocapture"])
        .env(IMAGE, path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let number = |line: String| line.strip_prefix("flushed ").map(|n| n.parse::<u64>().unwrap());
    let mut flushed = 0;
    for _ in 0..flushes {
        let line = lines.next().expect("the process ended by itself").unwrap();
        flushed = number(line.clone()).unwrap_or_else(|| panic!("{line}"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died counts.
    lines.map_while(Result::ok).filter_map(number).last().unwrap_or(flushed)
}

/// Every sector is what the last flushed step left there, or what a later one did.
fn assert_contents(image: &dyn BlockImage, flushed: u64, what: &str) {
    let mut oldest = vec![0; usize::try_from(SECTORS).unwrap()];
    for number in 1..=flushed {
        let (first, sectors) = step(number);
        for sector in first..first + sectors {
            oldest[usize::try_from(sector).unwrap()] = number;
        }
    }
    let mut sector = vec![0; usize::try_from(SECTOR_BYTES).unwrap()];
    for (at, oldest) in (0..).zip(oldest) {
        image.read_at(&mut sector, at * SECTOR_BYTES).unwrap();
        let number = u64::from_le_bytes(*sector.first_chunk().unwrap());
        assert_eq!(sector, bytes(number, 1), "sector {at} is torn: {what}");
        let (first, sectors) = step(number);
        let is_later = number > flushed && (first..first + sectors).contains(&at);
        assert!(number == oldest || is_later, "sector {at} holds {number}, not {oldest}: {what}");
    }
}
