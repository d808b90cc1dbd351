//! Any answers of an NBD server.

use super::input::Input;
use crate::nbd::{FakeNbd, Talk};
use rimg_core::{Storage, StorageWrite, Zeroing};
use rimg_storage::{CacheMode, NbdAddress, NbdOptions, NbdServer, NbdStorage};

const DISK_BYTES: u64 = 1 << 20;

/// Connects to a server that answers as the input says, and reads, writes and asks for holes.
///
/// The first byte says how much of its part the server plays: bit 0, that it negotiates as it
/// should, with the flags of transmission that follow; bit 1, that it does so with structured
/// replies; bit 2, that it then answers each request with a chunk, of a simple reply or a
/// structured one, that names the request. What is left of the input is said as it is.
///
/// # Panics
/// When the client does; when it waits for a server that has hung up, the replay ends it.
pub fn nbd(input: &[u8]) {
    let said = input.to_vec();
    let server = FakeNbd::start(move |mut talk| play(&mut talk, &said));
    let address =
        NbdAddress { server: NbdServer::Unix(server.socket().to_owned()), export: "e".to_owned() };
    let options =
        NbdOptions { writable: true, cache: CacheMode::Writethrough, ..NbdOptions::default() };
    if let Ok(disk) = NbdStorage::connect(&address, options) {
        use_it(&disk);
    }
}

fn play(talk: &mut Talk, input: &[u8]) {
    let mut input = Input::new(input);
    let part = input.byte();
    if part & 1 != 0 {
        let flags = u16::try_from(input.number(2)).unwrap();
        talk.negotiate(DISK_BYTES, flags, part & 2 != 0);
    }
    while part & 4 != 0 && !input.is_empty() {
        let Some(cookie) = talk.whole_request() else { return };
        let kind = input.byte();
        if kind & 0x80 == 0 {
            let (error, len) = (u32::try_from(input.number(1)).unwrap(), input.number(2));
            talk.simple(cookie, error, &vec![kind; usize::try_from(len).unwrap()]);
            continue;
        }
        // Several chunks may belong together: bit 6 says that more follow.
        let mut last = kind;
        loop {
            let shape = [input.number(2), input.number(2), input.number(1)];
            let [flags, kind, len] = shape.map(|number| u16::try_from(number).unwrap());
            let data: Vec<u8> = (0..len).map(|_| input.byte()).collect();
            talk.chunk(cookie, (flags, kind), &data);
            if last & 0x40 == 0 || input.is_empty() {
                break;
            }
            last = input.byte();
        }
    }
    talk.send(&[input.rest()]);
    talk.hang_up();
}

/// Everything may fail, and nothing may panic.
fn use_it(disk: &NbdStorage) {
    let mut buf = vec![0; 5000];
    let size = disk.len_bytes().unwrap_or_default();
    let _ = disk.read_exact_at(&mut buf, 0);
    for at in [0, size / 2, size.saturating_sub(1)] {
        if let Ok(run) = disk.run_at(at) {
            assert!(run.len_bytes > 0 && run.len_bytes <= size - at, "{at:#x}: {run:?}");
        }
    }
    let _ = disk.write_all_at(&buf, 512);
    let _ = disk.write_zeroes_at(0..4096.min(size), Zeroing::MayPunch);
    let _ = disk.discard_at(0..4096.min(size));
    let _ = disk.sync();
    let _ = disk.read_exact_at(&mut buf, size.saturating_sub(5000));
}
