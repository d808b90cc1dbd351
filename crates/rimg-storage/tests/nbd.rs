//! Disks of NBD servers: of qemu-nbd, and of servers that break the protocol.
#![expect(
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "small numbers; a test that cannot go on has failed"
)]

use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing};
use rimg_storage::{
    CacheMode, FileOptions, FileStorage, NbdAddress, NbdError, NbdOptions, NbdServer, NbdStorage,
};
use rimg_testkit::Rng;
use rimg_testkit::nbd::{FakeNbd, QemuNbd, Talk};
use std::fs;
use std::io;
use std::path::Path;

const SIZE: u64 = 4 << 20;

fn connect(socket: &Path, export: &str, writable: bool) -> Result<NbdStorage, NbdError> {
    let address =
        NbdAddress { server: NbdServer::Unix(socket.to_owned()), export: export.to_owned() };
    NbdStorage::connect(
        &address,
        NbdOptions { writable, cache: CacheMode::Writethrough, context: None },
    )
}

/// A disk of a server, the file that it exports, and what has to be dropped after them.
fn exported(args: &[&str]) -> Option<(NbdStorage, FileStorage, QemuNbd, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("disk"), folder.path().join("nbd.sock"));
    fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    let all = [&["-f", "raw", "--discard=unmap", "--detect-zeroes=off", "-x", "e"][..], args];
    let server = QemuNbd::export(&file, &socket, &all.concat())?;
    let disk = connect(server.socket(), "e", true).unwrap();
    let options = FileOptions::read().locking(rimg_storage::Locking::Off);
    Some((disk, FileStorage::open(&file, options).unwrap(), server, folder))
}

#[test]
fn what_is_written_is_on_the_server() {
    let Some((disk, file, _server, _folder)) = exported(&[]) else { return };
    assert_eq!(disk.len_bytes().unwrap(), SIZE);
    assert_eq!(disk.run_at(0).unwrap(), StorageRun::hole(SIZE));
    let mut rng = Rng::new(7);
    let mut model = vec![0; usize::try_from(SIZE).unwrap()];
    for round in 0..60_u8 {
        let start = rng.below(SIZE - 1);
        let end = start + 1 + rng.below((SIZE - start).min(300_000) - 1);
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        match rng.below(4) {
            0 => {
                disk.write_zeroes_at(start..end, Zeroing::MayPunch).unwrap();
                model[range].fill(0);
            }
            1 => {
                disk.write_zeroes_at(start..end, Zeroing::KeepAllocated).unwrap();
                model[range].fill(0);
            }
            _ => {
                model[range.clone()].fill(round + 1);
                disk.write_all_at(&model[range], start).unwrap();
            }
        }
    }
    let mut bytes = vec![0; model.len()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == model);
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == model);
    let mut at = 0;
    while at < SIZE {
        let run = disk.run_at(at).unwrap();
        let range = usize::try_from(at).unwrap()..usize::try_from(at + run.len_bytes).unwrap();
        assert!(run.is_data || model[range].iter().all(|byte| *byte == 0), "hole at {at}");
        at += run.len_bytes;
    }
    disk.discard_at(0..SIZE).unwrap();
    disk.sync().unwrap();
    assert_eq!(disk.run_at(0).unwrap(), StorageRun::hole(SIZE));
}

#[test]
fn threads_share_a_connection() {
    let Some((disk, _file, _server, _folder)) = exported(&[]) else { return };
    std::thread::scope(|scope| {
        for thread in 0..64_u8 {
            let disk = &disk;
            scope.spawn(move || {
                let base = u64::from(thread) * (SIZE / 64);
                for piece in 0..16_u8 {
                    // Replies that are read together, and such as are not.
                    let (at, len) =
                        if piece % 2 == 0 { (base, 40_000) } else { (base + 40_960, 4096) };
                    let bytes = vec![thread.wrapping_mul(16) ^ piece; len];
                    disk.write_all_at(&bytes, at).unwrap();
                    let mut read = vec![0; bytes.len()];
                    disk.read_exact_at(&mut read, at).unwrap();
                    assert!(read == bytes, "thread {thread}, piece {piece}");
                    disk.run_at(at).unwrap();
                }
            });
        }
    });
}

#[test]
fn the_end_of_the_disk_is_the_end() {
    let Some((disk, _file, _server, _folder)) = exported(&[]) else { return };
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(disk.read_exact_at(&mut [0; 2], SIZE - 1)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(disk.write_all_at(&[0; 2], SIZE - 1)), io::ErrorKind::StorageFull);
    let zeroes = disk.write_zeroes_at(SIZE - 1..SIZE + 1, Zeroing::MayPunch);
    assert_eq!(kind(zeroes), io::ErrorKind::StorageFull);
    assert!(disk.set_len_bytes(SIZE).is_ok());
    assert_eq!(disk.set_len_bytes(SIZE + 1).unwrap_err().to_string(), "Cannot grow NBD nodes");
}

#[test]
fn an_export_for_reading_is_not_opened_for_writing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("disk"), folder.path().join("nbd.sock"));
    fs::write(&file, [7; 1000]).unwrap();
    let Some(server) = QemuNbd::export(&file, &socket, &["-f", "raw", "-r"]) else { return };
    let disk = connect(server.socket(), "", false).unwrap();
    let mut bytes = [0; 1000];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == [7; 1000] && disk.writer().is_none());
    let refused = connect(server.socket(), "", true).unwrap_err().to_string();
    assert_eq!(refused, "Could not open image: Permission denied");
    let refused = connect(server.socket(), "x", true).unwrap_err().to_string();
    let words = "Requested export not available\nserver reported: export 'x' not present";
    assert_eq!(refused, words);
}

#[test]
fn a_server_that_hangs_up_is_told_from_one_that_is_not_there() {
    let server = FakeNbd::start(|mut talk| {
        talk.negotiate(4096, 1, false);
        let cookie = talk.request();
        talk.simple(cookie, 0, &[1; 100]);
    });
    let disk = connect(server.socket(), "", false).unwrap();
    let error = disk.read_exact_at(&mut [0; 1024], 0).unwrap_err();
    assert_eq!(error.to_string(), "the NBD server hung up");
    let nowhere = server.socket().with_extension("gone");
    let error = connect(&nowhere, "", false).unwrap_err().to_string();
    let words = format!("Failed to connect to '{}': No such file or directory", nowhere.display());
    assert_eq!(error, words);
}

fn refused(part: impl FnOnce(Talk) + Send + 'static) -> String {
    let server = FakeNbd::start(part);
    connect(server.socket(), "e", false).unwrap_err().to_string()
}

#[test]
fn servers_that_do_not_negotiate_are_refused() {
    let reason = refused(|mut talk| talk.send(&[&[0; 8]]));
    assert_eq!(reason, "Bad initial magic received");
    let reason = refused(|mut talk| talk.send(&[b"NBDMAGIC12345678"]));
    assert_eq!(reason, "Bad server magic received");
    let reason =
        refused(|mut talk| talk.send(&[b"NBDMAGIC", &[0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53]]));
    assert_eq!(reason, "The server speaks the oldstyle protocol only");
    let reason = refused(|mut talk| talk.send(&[b"NBDMAGICIHAVEOPT", &[0, 0]]));
    assert_eq!(reason, "The server does not speak the fixed newstyle protocol");
    let reason = refused(drop);
    assert_eq!(reason, "Failed to read data: Unexpected end-of-file before all data were read");
    let reason = refused(|mut talk| {
        talk.greet();
        talk.option();
        talk.reply(8, 0x8000_0005, b"no\x1b[31m way");
    });
    let words = "Server requires TLS, which is not supported\nserver reported: no[31m way";
    assert_eq!(reason, words);
    let reason = refused(|mut talk| {
        talk.greet();
        talk.option();
        talk.reply(9, 1, &[]);
    });
    assert_eq!(reason, "Unexpected option type 9 (expected 8)");
    let reason = refused(|mut talk| {
        talk.greet();
        talk.option();
        talk.reply(8, 1, &[0; 40_000]);
    });
    assert_eq!(reason, "server replied to option structured reply with a reply that is too long");
    let reason = refused(|mut talk| talk.negotiate(u64::MAX, 1, false));
    assert_eq!(reason, format!("export length {} is too large", u64::MAX));
    let reason = refused(|mut talk| talk.negotiate(512, 0, false));
    assert_eq!(reason, "The server's transmission flags are missing");
    let reason = refused(|mut talk| {
        talk.greet();
        talk.option();
        talk.reply(8, 0x8000_0001, &[]);
        talk.option();
        for _ in 0..2000 {
            talk.reply(7, 3, &[0, 9]);
        }
    });
    assert_eq!(reason, "The server does not stop telling of the export");
    let reason = refused(|mut talk| {
        talk.greet();
        talk.option();
        talk.reply(8, 0x8000_0001, &[]);
        talk.option();
        talk.reply(7, 3, &[0, 3, 0, 0, 0, 3, 0, 0, 16, 0, 0, 0, 32, 0]);
    });
    assert_eq!(reason, "server minimum block size 3 is not a power of two of at most 65536");
    let reason = refused(|mut talk| {
        talk.greet();
        talk.option();
        talk.reply(8, 0x8000_0001, &[]);
        talk.option();
        talk.reply(7, 0x8000_0006, b"export 'e' not present");
    });
    let words = "Requested export not available\nserver reported: export 'e' not present";
    assert_eq!(reason, words);
}

/// What a read of 1024 bytes at 512 fails with.
fn misread(structured: bool, part: impl FnOnce(&mut Talk, [u8; 8]) + Send + 'static) -> String {
    let server = FakeNbd::start(move |mut talk| {
        talk.negotiate(4096, 1, structured);
        let cookie = talk.request();
        part(&mut talk, cookie);
        // What comes from a client that goes on.
        talk.receive(28);
    });
    let disk = connect(server.socket(), "", false).unwrap();
    let error = disk.read_exact_at(&mut [0; 1024], 512).unwrap_err().to_string();
    // A connection that was given up stays so.
    let again = disk.read_exact_at(&mut [0; 512], 0);
    assert!(error.contains("os error") || again.is_err(), "{error}");
    error
}

#[test]
fn replies_that_make_no_sense_end_the_connection() {
    let data = |at: u64, len: usize| [&at.to_be_bytes()[..], &vec![1; len]].concat();
    let hole = |at: u64, len: u32| [&at.to_be_bytes()[..], &len.to_be_bytes()].concat();
    let nbd = |reason: &str| format!("NBD server: {reason}");
    let simple = |cookie: [u8; 8], error: u32| {
        move |talk: &mut Talk, own: [u8; 8]| {
            talk.simple(if cookie == [0; 8] { own } else { cookie }, error, &[]);
        }
    };
    assert_eq!(misread(false, simple([9; 8], 0)), nbd("reply to no request"));
    assert_eq!(misread(false, simple([0; 8], 28)), "No space left on device (os error 28)");
    assert_eq!(misread(false, simple([0; 8], 4)), "Invalid argument (os error 22)");
    let wrong = nbd("simple reply to a read, where replies are structured");
    assert_eq!(misread(true, simple([0; 8], 0)), wrong);
    let wrong = misread(false, |talk, _| talk.send(&[&[7; 16]]));
    assert_eq!(wrong, nbd("unexpected reply magic"));
    /// Flags, kind and payload.
    type Chunk = (u16, u16, Vec<u8>);
    let chunks: [(&str, Vec<Chunk>); 10] = [
        ("data outside of what was asked for", vec![(1, 1, data(0, 1024))]),
        ("data outside of what was asked for", vec![(1, 1, data(1024, 1024))]),
        ("data outside of what was asked for", vec![(1, 2, hole(512, 2048))]),
        ("data that came before", vec![(0, 2, hole(512, 1024)), (1, 1, data(512, 8))]),
        ("data that came before", vec![(0, 1, data(512, 512)), (1, 1, data(512, 512))]),
        ("less than was asked for", vec![(0, 1, data(512, 8)), (1, 0, vec![])]),
        ("chunk of data without data", vec![(1, 1, data(512, 0))]),
        ("hole without a length", vec![(1, 2, hole(512, 0))]),
        ("block status that was not asked for", vec![(1, 5, vec![0; 12])]),
        ("error chunk that is cut off", vec![(1, 0x8001, vec![0, 0, 0, 5, 0, 9])]),
    ];
    for (reason, parts) in chunks {
        let wrong = misread(true, move |talk, cookie| {
            for (done, kind, bytes) in &parts {
                talk.chunk(cookie, (*done, *kind), bytes);
            }
        });
        assert_eq!(wrong, nbd(reason));
    }
    let endless = misread(true, |talk, cookie| {
        for _ in 0..2000 {
            talk.chunk(cookie, (0, 0), &[]);
        }
    });
    assert_eq!(endless, nbd("reply that does not end"));
}

#[test]
fn block_status_of_nothing_is_no_answer() {
    let server = FakeNbd::start(|mut talk| {
        talk.negotiate(4096, 1, true);
        let header = talk.receive(28);
        // Of the first extent only.
        assert_eq!(header[4..8], [0, 8, 0, 7]);
        talk.chunk(header[8..16].try_into().unwrap(), (0, 5), &[]);
        talk.receive(28);
    });
    let disk = connect(server.socket(), "", false).unwrap();
    assert_eq!(disk.run_at(0).unwrap_err().to_string(), "NBD server: unexpected chunk of a reply");
}

/// How many read at the same time, and how much: more than is read ahead.
const READERS: usize = 8;
const PIECE: usize = 20_000;

/// Who asks, and the cookie of the request.
type Asked = (usize, [u8; 8]);

/// What each reader gets; the server's part begins when all requests are there, in any order.
fn read_together(serve: fn(&mut Talk, Vec<Asked>)) -> Vec<io::Result<bool>> {
    let server = FakeNbd::start(move |mut talk| {
        talk.negotiate((READERS * PIECE) as u64, 1, true);
        let requests = (0..READERS).map(|_| {
            let header = talk.receive(28);
            let offset = u64::from_be_bytes(header[16..24].try_into().unwrap());
            (offset as usize / PIECE, header[8..16].try_into().unwrap())
        });
        let mut requests: Vec<_> = requests.collect();
        requests.sort_unstable();
        serve(&mut talk, requests);
    });
    let disk = &connect(server.socket(), "", false).unwrap();
    std::thread::scope(|scope| {
        let readers = (0..READERS).map(|reader| {
            scope.spawn(move || {
                let mut bytes = vec![0; PIECE];
                disk.read_exact_at(&mut bytes, (reader * PIECE) as u64)?;
                Ok(bytes == vec![reader as u8 + 1; PIECE])
            })
        });
        let readers: Vec<_> = readers.collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    })
}

#[test]
fn answers_to_many_come_in_pieces_and_mixed() {
    let got = read_together(|talk, requests| {
        let half = |reader: usize, from: usize| {
            let at = (reader * PIECE + from) as u64;
            [&at.to_be_bytes()[..], &vec![reader as u8 + 1; PIECE / 2]].concat()
        };
        for (reader, cookie) in &requests {
            talk.chunk(*cookie, (0, 1), &half(*reader, PIECE / 2));
        }
        for (reader, cookie) in requests.iter().rev() {
            talk.chunk(*cookie, (1, 1), &half(*reader, 0));
        }
        talk.receive(28);
    });
    assert!(got.iter().all(|got| matches!(got, Ok(true))), "{got:?}");
}

#[test]
fn a_server_that_hangs_up_lets_nobody_wait() {
    let got = read_together(|talk, requests| {
        let (reader, cookie) = requests[3];
        let at = (reader * PIECE) as u64;
        let data = [&at.to_be_bytes()[..], &vec![reader as u8 + 1; PIECE]].concat();
        talk.chunk(cookie, (1, 1), &data);
    });
    for (reader, got) in got.iter().enumerate() {
        match got {
            Ok(whole) => assert!(*whole && reader == 3),
            Err(error) => assert_eq!(error.to_string(), "the NBD server hung up"),
        }
    }
    assert_eq!(got.iter().filter(|got| got.is_ok()).count(), 1);
}

#[test]
fn pieces_of_an_answer_come_in_any_order() {
    let server = FakeNbd::start(|mut talk| {
        talk.negotiate(4096, 1, true);
        let cookie = talk.request();
        talk.chunk(cookie, (0, 1), &[&1024_u64.to_be_bytes()[..], &[2; 512]].concat());
        talk.chunk(cookie, (0, 0), &[]);
        talk.chunk(cookie, (1, 2), &[&512_u64.to_be_bytes()[..], &512_u32.to_be_bytes()].concat());
        let cookie = talk.request();
        talk.chunk(cookie, (1, 5), &[0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 3, 0, 0, 16, 0, 0, 0, 0, 3]);
        talk.receive(28);
    });
    let disk = connect(server.socket(), "", false).unwrap();
    let mut bytes = [7; 1024];
    disk.read_exact_at(&mut bytes, 512).unwrap();
    assert_eq!((bytes[..512] == [0; 512], bytes[512..] == [2; 512]), (true, true));
    assert_eq!(disk.run_at(0).unwrap(), StorageRun::hole(4096));
}
