//! Keeps an image in a storage of one's own: here bytes in memory, encrypted in a way that
//! protects nothing.

use rimg::{Opener, Storage, StorageRun, StorageWrite, Zeroing};
use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes, each turned upside down.
#[derive(Debug, Default)]
struct UpsideDown(Mutex<Vec<u8>>);

impl UpsideDown {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn index(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(io::Error::other)
}

impl Storage for UpsideDown {
    fn len_bytes(&self) -> io::Result<u64> {
        self.with(|bytes| u64::try_from(bytes.len()).map_err(io::Error::other))
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.with(|bytes| {
            let at = index(at)?;
            let from = at.checked_add(buf.len()).and_then(|end| bytes.get(at..end));
            let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
            for (to, from) in buf.iter_mut().zip(from) {
                *to = !from;
            }
            Ok(())
        })
    }

    // It does not know about holes: everything is data, which is always a correct answer.
    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun::data(self.len_bytes()?.saturating_sub(at)))
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }
}

impl StorageWrite for UpsideDown {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.with(|bytes| {
            let at = index(at)?;
            let end = at.checked_add(buf.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            if bytes.len() < end {
                bytes.resize(end, !0);
            }
            for (to, from) in bytes.iter_mut().skip(at).zip(buf) {
                *to = !from;
            }
            Ok(())
        })
    }

    fn write_zeroes_at(&self, range: Range<u64>, _how: Zeroing) -> io::Result<()> {
        let zeroes = vec![0; index(range.end.saturating_sub(range.start))?];
        self.write_all_at(&zeroes, range.start)
    }

    fn discard_at(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.with(|bytes| {
            bytes.resize(index(len)?, !0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let storage = Arc::new(UpsideDown::default());
    storage.set_len_bytes(1 << 20)?;

    let image = Opener::new().format("raw").writable(true).open_storage(storage.clone())?;
    image.writer().ok_or("opened for writing")?.write_at(b"secret", 1000)?;
    let mut bytes = [1; 8];
    image.read_at(&mut bytes, 1000)?;
    assert_eq!(&bytes, b"secret\0\0");
    image.close()?;

    let stored = storage.with(|bytes| Ok(bytes.get(1000..1006).map(<[u8]>::to_vec)))?;
    assert_eq!(stored, Some(b"secret".map(|byte| !byte).to_vec()));
    println!("the image is in {} bytes upside down", storage.len_bytes()?);
    Ok(())
}
