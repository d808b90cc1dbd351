//! Writers at the same time: of whole sectors, of parts of the same one, of zeroes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, create, kinds, open};
use rimg_testkit::MemoryDir;
use std::thread;

/// A byte that one writer read before another wrote it used to come back.
#[test]
fn writers_of_parts_of_a_sector_keep_each_others_bytes() {
    const WRITERS: usize = 8;
    const BYTES: usize = 96 << 10;
    let dir = MemoryDir::new(DRIVERS);
    create(&dir, 96 << 10, "preallocation=full");
    let image = open(&dir, true).unwrap();
    // Each writes the bytes of its own, in runs that cross sectors and are shorter than they are.
    let runs: Vec<(usize, usize)> = (0_usize..)
        .scan(0, |at, index| {
            let start = *at;
            *at += [100, 700, 1536, 13, 512, 3][index % 6];
            (start < BYTES).then_some((start, (*at).min(BYTES)))
        })
        .collect();
    for round in 1..=4_u8 {
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (image, runs) = (image.as_ref(), &runs);
                scope.spawn(move || {
                    for (start, end) in runs.iter().skip(writer).step_by(WRITERS) {
                        let value = round + u8::try_from(writer).unwrap();
                        let buf = vec![value; end - start];
                        let at = u64::try_from(*start).unwrap();
                        image.writer().unwrap().write_at(&buf, at).unwrap();
                    }
                });
            }
        });
        let mut all = vec![0; BYTES];
        image.read_at(&mut all, 0).unwrap();
        for (index, (start, end)) in runs.iter().enumerate() {
            let value = round + u8::try_from(index % WRITERS).unwrap();
            assert!(all[*start..*end].iter().all(|&byte| byte == value), "{start}..{end}");
        }
    }
}

#[test]
fn threads_do_not_get_in_each_others_way() {
    for kind in kinds() {
        kind.concurrent(4, 4);
    }
}
