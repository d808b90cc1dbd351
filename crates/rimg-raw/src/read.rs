//! Reading, and where the holes are.

use crate::image::{RawImage, range_of};
use core::ops::Range;
use rimg_core::{Error, Extent, ExtentKind, FileOffset, HostOffset, Result, num};
use std::sync::atomic::Ordering;

impl RawImage {
    pub(crate) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.check_range(&range_of(buf, at)?)?;
        let file_len = self.file_len.load(Ordering::Acquire);
        let in_file = num::to_usize(file_len.saturating_sub(at).min(num::to_u64(buf.len())))?;
        let (bytes, tail) = buf.split_at_mut(in_file);
        tail.fill(0);
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.note("read_aio");
        self.file.read_exact_at(bytes, self.host(at)).map_err(Error::io("read", at))
    }

    pub(crate) fn first_run(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        let file_len = self.file_len.load(Ordering::Acquire);
        let at = FileOffset { file: 0, host: HostOffset(self.host(range.start)) };
        let wanted = range.end.saturating_sub(range.start);
        if range.start >= file_len {
            return Ok(Extent {
                len_bytes: wanted,
                kind: ExtentKind::Zero { allocation: Some(at) },
            });
        }
        let host = self.host(range.start);
        let run = self.file.run_at(host).map_err(Error::io("look for holes", range.start))?;
        let kind = match (run.is_data, run.is_allocated) {
            (true, true) => ExtentKind::Data(at),
            // Whatever it is, it comes from nowhere.
            (true, false) => ExtentKind::Opaque,
            (false, _) => ExtentKind::Zero { allocation: Some(at) },
        };
        let in_file = file_len.saturating_sub(range.start);
        let mut len_bytes = run.len_bytes.clamp(1, in_file);
        if run.is_data && len_bytes == in_file {
            // A file that is read in whole blocks has all of its last one.
            let end = num::align_up(file_len, self.file.align_bytes().into()).unwrap_or(file_len);
            len_bytes = end.saturating_sub(range.start);
        }
        Ok(Extent { len_bytes: len_bytes.min(wanted), kind })
    }
}
