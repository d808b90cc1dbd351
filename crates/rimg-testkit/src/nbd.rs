//! Servers of the NBD protocol: real ones, and one that says what a test wants it to say.

use crate::peer::{Peer, Running};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A `qemu-nbd` that listens until it is dropped.
#[derive(Debug)]
pub struct QemuNbd {
    _running: Running,
    socket: PathBuf,
}

impl QemuNbd {
    /// Exports `disk` on the socket `socket`, with further arguments. `None` as for
    /// [`Peer::require`].
    ///
    /// # Panics
    /// When it does not listen after a while.
    #[must_use]
    pub fn export(disk: &Path, socket: &Path, args: &[&str]) -> Option<Self> {
        let peer = Peer::qemu_nbd()?;
        let paths = [socket.to_str().unwrap(), disk.to_str().unwrap()];
        let own = ["-t", "-e", "8", "-k", paths[0]];
        let running = peer.start([&own[..], args, &paths[1..]].concat());
        for _ in 0..1000 {
            if UnixStream::connect(socket).is_ok() {
                return Some(Self { _running: running, socket: socket.to_owned() });
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("qemu-nbd does not listen on {}", socket.display());
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// A server that plays its part once, for one client.
#[derive(Debug)]
pub struct FakeNbd {
    socket: PathBuf,
    player: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl FakeNbd {
    /// Starts it; `part` gets the connection.
    ///
    /// # Panics
    /// When there is no room for a socket.
    #[must_use]
    pub fn start(part: impl FnOnce(Talk) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nbd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let player = thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                part(Talk(stream));
            }
        });
        Self { socket, player: Some(player), _folder: folder }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for FakeNbd {
    fn drop(&mut self) {
        // Who was never called waits no longer.
        let _ = UnixStream::connect(&self.socket);
        if let Some(player) = self.player.take() {
            let _ = player.join();
        }
    }
}

/// The server's end of a connection. A client that hangs up ends the part quietly.
#[derive(Debug)]
pub struct Talk(UnixStream);

impl Talk {
    /// Sends bytes.
    pub fn send(&mut self, parts: &[&[u8]]) {
        let _ = self.0.write_all(&parts.concat());
    }

    /// Receives as many bytes.
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let _ = self.0.read_exact(&mut bytes);
        bytes
    }

    /// Greets, and answers options until one chooses the export: a disk of `size` bytes with these
    /// transmission flags; structured replies and `base:allocation`, as number 1, if `structured`.
    pub fn negotiate(&mut self, size: u64, flags: u16, structured: bool) {
        self.greet();
        loop {
            let (option, _) = self.option();
            match option {
                8 if structured => self.reply(8, 1, &[]),
                10 => {
                    self.reply(10, 4, &[&[0, 0, 0, 1], &b"base:allocation"[..]].concat());
                    self.reply(10, 1, &[]);
                }
                7 => {
                    let info = [&[0, 0], &size.to_be_bytes()[..], &flags.to_be_bytes()].concat();
                    self.reply(7, 3, &info);
                    self.reply(7, 1, &[]);
                    return;
                }
                0 => return,
                other => self.reply(other, 0x8000_0001, &[]),
            }
        }
    }

    /// The first words, and the client's answer.
    pub fn greet(&mut self) {
        self.send(&[b"NBDMAGICIHAVEOPT", &[0, 3]]);
        self.receive(4);
    }

    /// The next option and its data.
    pub fn option(&mut self) -> (u32, Vec<u8>) {
        let header = self.receive(16);
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let data = self.receive(usize::try_from(number(12)).unwrap());
        (number(8), data)
    }

    /// A reply to an option.
    pub fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        let magic = 0x0003_e889_0455_65a9_u64;
        let len = u32::try_from(data.len()).unwrap();
        self.send(&[
            &magic.to_be_bytes(),
            &option.to_be_bytes(),
            &kind.to_be_bytes(),
            &len.to_be_bytes(),
            data,
        ]);
    }

    /// The cookie of the next request, and its data if it writes.
    pub fn request(&mut self) -> [u8; 8] {
        let header = self.receive(28);
        header[8..16].try_into().unwrap()
    }

    /// As [`request`](Self::request), without the data; `None` when no request comes any more, or
    /// none for a moment: the client may be waiting for more of an answer.
    pub fn whole_request(&mut self) -> Option<[u8; 8]> {
        const WRITE: [u8; 2] = [0, 1];
        let _ = self.0.set_read_timeout(Some(Duration::from_millis(100)));
        let header = self.receive(28);
        if header[..4] != 0x2560_9513_u32.to_be_bytes() {
            return None;
        }
        if header[6..8] == WRITE {
            let len = u32::from_be_bytes(header[24..28].try_into().unwrap());
            self.receive(usize::try_from(len).unwrap());
        }
        Some(header[8..16].try_into().unwrap())
    }

    /// Says nothing any more, and listens until the client is gone.
    pub fn hang_up(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut self.0, &mut std::io::sink());
    }

    /// A simple reply.
    pub fn simple(&mut self, cookie: [u8; 8], error: u32, data: &[u8]) {
        self.send(&[&0x6744_6698_u32.to_be_bytes(), &error.to_be_bytes(), &cookie, data]);
    }

    /// A chunk of a structured reply, with a length of its own telling if it is not that of
    /// `data`.
    pub fn chunk(&mut self, cookie: [u8; 8], (done, kind): (u16, u16), data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        self.send(&[
            &0x668e_33ef_u32.to_be_bytes(),
            &done.to_be_bytes(),
            &kind.to_be_bytes(),
            &cookie,
            &len.to_be_bytes(),
            data,
        ]);
    }
}
