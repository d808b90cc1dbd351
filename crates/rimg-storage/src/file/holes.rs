//! Where a file has data and where it has holes.

use rimg_core::StorageRun;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// The run at `at` in a file that is `len` bytes long. Moves the file position, which nobody uses.
pub(crate) fn run_at(file: &File, at: u64, len: u64) -> io::Result<StorageRun> {
    let Some(left) = len.checked_sub(at).filter(|&left| left > 0) else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no run past the end"));
    };
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return Ok(StorageRun::hole(left)),
        // Devices and some file systems do not know.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(StorageRun::data(left)),
        Err(errno) => return Err(errno.into()),
    };
    if data > at {
        return Ok(StorageRun::hole((data - at).min(left)));
    }
    match seek(file, SeekFrom::Hole(at)) {
        Ok(hole) if hole > at => Ok(StorageRun::data((hole - at).min(left))),
        // The hole was made just now; data is always a correct answer.
        Ok(_) | Err(Errno::NXIO) => Ok(StorageRun::data(left)),
        Err(errno) => Err(errno.into()),
    }
}
