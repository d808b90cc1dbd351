//! Images that no program here writes, built from the specification alone: every state, parents,
//! large sectors, logs.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod blocks;
mod damage;
mod log;
mod parents;

use rimg_core::{
    BlockImage, Error, ExtentKind, FormatDriver, Limits, OpenOptions, RawOptions, Result, Storage,
};
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::error::Error as _;
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vhdx::DRIVER];

const MIB: u64 = 1 << 20;

fn folder() -> MemoryDir {
    MemoryDir::new(DRIVERS)
}

fn put(dir: &MemoryDir, name: &str, bytes: &MemoryStorage) {
    dir.put(name, Arc::new(bytes.clone()));
}

fn open(dir: &MemoryDir, writable: bool) -> Box<dyn BlockImage> {
    dir.open("disk", "vhdx", writable).unwrap()
}

/// Opens an image for `check`.
fn inspect(dir: &MemoryDir, writable: bool) -> Box<dyn BlockImage> {
    let how = OpenOptions {
        writable,
        inspect_only: true,
        limits: Limits::default(),
        gate: dir,
        options: RawOptions::NONE,
    };
    DRIVERS[0].open(dir.file("disk"), &how).unwrap()
}

fn read(image: &dyn BlockImage, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    image.read_at(&mut bytes, at).unwrap();
    bytes
}

fn bytes_of(file: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// An error and what it comes from.
fn words(result: Result<Box<dyn BlockImage>>) -> String {
    let error: Error = result.err().unwrap();
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The runs of an image: length and kind.
fn runs(image: &dyn BlockImage) -> Vec<(u64, &'static str)> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < image.size_bytes() {
        let extent = image.extent_at(at..image.size_bytes()).unwrap();
        let kind = match extent.kind {
            ExtentKind::Data(_) => "data",
            ExtentKind::Zero { allocation: Some(_) } => "zero with place",
            ExtentKind::Zero { allocation: None } => "zero",
            ExtentKind::Backing { .. } => "below",
            other => panic!("{other:?}"),
        };
        runs.push((extent.len_bytes, kind));
        at += extent.len_bytes;
    }
    runs
}
