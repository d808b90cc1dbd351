//! New volumes.

use crate::header::AT;
use crate::options::{CreateOptions, invalid};
use crate::resize::MAX_BYTES;
use rimg_core::{
    Error, Preallocation, RawOptions, Result, StorageWrite, TargetFiles, Zeroing, num, op,
};
use rimg_crypto::luks1::{Iterations, Volume};
use rimg_crypto::{OsRandom, SectorCipher};

/// How many zeroes are written at a time, in bytes.
const BUFFER_BYTES: u64 = 1 << 20;

/// Writes a volume with a random key. With a detached header nothing but that is written.
pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(options)?;
    let wanted = &options.volume;
    let data_at = wanted.volume.header_bytes();
    let size_bytes = if options.detached_header { 0 } else { size_bytes };
    let end = data_at
        .checked_add(size_bytes)
        .filter(|&end| end <= MAX_BYTES)
        .ok_or_else(|| invalid("size", "The requested file size is too large".to_owned()))?;
    let iterations = Iterations::measured(&wanted.volume, wanted.iter_time_ms)?;
    let mut made = Volume::new(&wanted.volume, &wanted.passphrase, iterations, &mut OsRandom)?;
    if options.detached_header {
        made.header.detach();
    }
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
    let area = &made.area;
    file.write_all_at(&area.bytes, area.offset)
        .map_err(Error::io("write key slot", area.offset))?;
    match options.preallocation {
        Preallocation::Off | Preallocation::Metadata => {}
        Preallocation::Falloc => file
            .write_zeroes_at(data_at..end, Zeroing::KeepAllocated)
            .map_err(Error::io(op::RESERVE_SPACE, data_at))?,
        Preallocation::Full => {
            write_zeroes(file, &made.header.data_cipher(&made.master_key)?, data_at, end)?;
        }
    }
    file.write_all_at(&made.header.encode(), AT).map_err(Error::io("write LUKS header", AT))
}

/// Writes sectors that read as zeroes, the last one whole.
fn write_zeroes(file: &dyn StorageWrite, cipher: &SectorCipher, at: u64, end: u64) -> Result<()> {
    let sector = num::to_u64(cipher.sector_bytes());
    let mut buffer = Vec::new();
    let mut host = at;
    while host < end {
        let len = end.saturating_sub(host).min(BUFFER_BYTES);
        buffer.clear();
        buffer.resize(num::to_usize(num::align_up(len, sector).unwrap_or(len))?, 0);
        cipher.encrypt(&mut buffer, host.saturating_sub(at) / crate::SECTOR_BYTES)?;
        file.write_all_at(&buffer, host).map_err(Error::io(op::WRITE_RESERVED_ZEROES, host))?;
        host = host.saturating_add(len);
    }
    Ok(())
}
