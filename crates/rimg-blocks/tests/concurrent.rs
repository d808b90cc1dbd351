//! Readers and writers at the same place of the file.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{BlockImage, RawOptions, Storage};
use rimg_testkit::MemoryDir;
use rimg_testkit::storages::{Hook, Hooked, Operation, OperationKind};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

const BLOCK: usize = 4096;

/// Holds the first read of a whole block up, from when it is about to begin until it is let go.
#[derive(Debug)]
struct HoldUp {
    arrived: SyncSender<()>,
    go: Mutex<Option<Receiver<()>>>,
}

impl Hook for HoldUp {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        let len = operation.range.end - operation.range.start;
        if operation.kind == OperationKind::Read && len == 4096 {
            let go = self.go.lock().unwrap().take();
            if let Some(go) = go {
                self.arrived.send(()).unwrap();
                go.recv().unwrap();
            }
        }
        Ok(())
    }
}

#[test]
fn a_place_is_not_used_again_while_somebody_reads_there() {
    let dir = MemoryDir::new(DRIVERS);
    dir.create("disk", "toy", 4 * 4096, &RawOptions::new()).unwrap();
    let image = dir.open("disk", "toy", true).unwrap();
    image.writer().unwrap().write_at(&[1; BLOCK], 0).unwrap();
    image.close().unwrap();
    let (arrived, has_arrived) = sync_channel(1);
    let (let_go, go) = sync_channel(1);
    let hold_up = HoldUp { arrived, go: Mutex::new(Some(go)) };
    let held_up: Arc<dyn Storage> = Arc::new(Hooked::with_hook(dir.file("disk"), hold_up));
    dir.put("disk", held_up);
    let image = dir.open("disk", "toy", true).unwrap();
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| read(image.as_ref(), 0));
        has_arrived.recv().unwrap();
        let writer = image.writer().unwrap();
        writer.write_zeroes_at(0..4096).unwrap();
        writer.flush().unwrap();
        writer.write_at(&[2; BLOCK], 4096).unwrap();
        let_go.send(()).unwrap();
        reader.join().unwrap()
    });
    assert_eq!(seen, [1; BLOCK]);
    // With the reader gone it is: the file does not grow any more.
    let writer = image.writer().unwrap();
    let before = dir.file("disk").len_bytes().unwrap();
    writer.flush().unwrap();
    writer.write_at(&[3; BLOCK], 8192).unwrap();
    assert_eq!(dir.file("disk").len_bytes().unwrap(), before);
    assert_eq!(read(image.as_ref(), 4096), [2; BLOCK]);
    assert_eq!(read(image.as_ref(), 8192), [3; BLOCK]);
}

fn read(image: &dyn BlockImage, at: u64) -> [u8; BLOCK] {
    let mut buf = [0; BLOCK];
    image.read_at(&mut buf, at).unwrap();
    buf
}
