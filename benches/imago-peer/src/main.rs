//! `imago-peer SOURCE.qcow2 TARGET`: converts to a sparse raw file, the quickest way that imago has.
//!
//! What the image maps is read in buffers of 2 MiB and written where a 4 KiB block of it is not
//! zero, as `convert` does by default; what it does not map is never read.
#![forbid(unsafe_code)]

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, Mapping, PermissiveImplicitOpenGate};
use std::error::Error;
use std::os::unix::fs::FileExt;

const BUFFER_BYTES: u64 = 2 << 20;
const BLOCK_BYTES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = args.as_slice() else {
        return Err("usage: imago-peer SOURCE.qcow2 TARGET".into());
    };
    let image = Qcow2::<File>::builder_path(source).open(PermissiveImplicitOpenGate::default())?;
    let image = FormatAccess::new(image);
    let size = image.size();
    let target = std::fs::File::create(target)?;
    target.set_len(size)?;

    let mut buffer = vec![0_u8; usize::try_from(BUFFER_BYTES)?];
    let mut at = 0;
    while at < size {
        let (mapping, length) = image.get_mapping(at, size - at)?;
        if length == 0 {
            break;
        }
        if !matches!(mapping, Mapping::Zero { .. } | Mapping::Eof { .. }) {
            copy(&image, &target, at, length, &mut buffer)?;
        }
        at += length;
    }
    Ok(())
}

fn copy(
    image: &FormatAccess<File>,
    target: &std::fs::File,
    start: u64,
    length: u64,
    buffer: &mut [u8],
) -> Result<(), Box<dyn Error>> {
    let mut done = 0;
    while done < length {
        let step = (length - done).min(BUFFER_BYTES);
        let part = &mut buffer[..usize::try_from(step)?];
        image.read(&mut *part, start + done)?;
        write_sparse(target, part, start + done)?;
        done += step;
    }
    Ok(())
}

/// Writes each run of blocks that are not all zero.
fn write_sparse(target: &std::fs::File, data: &[u8], at: u64) -> Result<(), Box<dyn Error>> {
    let is_zero = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) == 0;
    let mut from = 0;
    while from < data.len() {
        let mut to = from;
        while to < data.len() && !is_zero(&data[to..data.len().min(to + BLOCK_BYTES)]) {
            to = data.len().min(to + BLOCK_BYTES);
        }
        if to > from {
            target.write_all_at(&data[from..to], at + u64::try_from(from)?)?;
        }
        // What stopped the run is a zero block, or the end.
        from = to + BLOCK_BYTES;
    }
    Ok(())
}
