//! Holding an archive against what Compute Engine asks of it.

use super::tar::{self, BLOCK_BYTES, Header, REGULAR_FILE, SPARSE_FILE};
use super::{ArchiveError, DISK_NAME};
use crate::rules::Verdict;
use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, ErrorKind, Read};

/// Holds a compressed archive against the rules of
/// [`Platform::Gcp`](crate::Platform::Gcp). All of it is decompressed, in bounded memory: so its
/// checksum is verified, too.
///
/// # Errors
/// [`ArchiveError::Archive`] when it cannot be read; what is not as it should be is no error, but
/// a verdict.
pub fn inspect_archive(archive: &mut dyn BufRead) -> Result<Vec<Verdict>, ArchiveError> {
    let mut seen = Seen::default();
    let result = seen.read(&mut GzDecoder::new(&mut *archive));
    match result {
        Ok(()) => match archive.fill_buf() {
            Ok([]) => {}
            Ok(_) => seen.damage = Some("something follows its end".to_owned()),
            Err(source) => return Err(ArchiveError::Archive { doing: "reading", source }),
        },
        Err(error) if is_damage(&error) => seen.damage = Some(error.to_string()),
        Err(source) => return Err(ArchiveError::Archive { doing: "reading", source }),
    }
    Ok(seen.verdicts())
}

/// Whether an error is about what was read, and not about reading.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

/// What was found in an archive.
#[derive(Debug, Default)]
struct Seen {
    first: Option<Header>,
    /// How many files it has.
    files: u64,
    /// What ended the reading early.
    damage: Option<String>,
}

impl Seen {
    fn read(&mut self, archive: &mut dyn Read) -> io::Result<()> {
        let mut block = [0; 512];
        loop {
            archive.read_exact(&mut block)?;
            if block == [0; 512] {
                // To the end, where the checksum is.
                return io::copy(archive, &mut io::sink()).map(|_| ());
            }
            let header = Header::parse(&block)
                .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no header of a file"))?;
            let mut more = header.is_extended;
            while more {
                archive.read_exact(&mut block)?;
                more = tar::is_extended(&block);
            }
            let stored = header.stored_bytes.checked_next_multiple_of(BLOCK_BYTES);
            let stored = stored.unwrap_or(u64::MAX);
            let skipped = io::copy(&mut archive.take(stored), &mut io::sink())?;
            if skipped < stored {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.files = self.files.saturating_add(1);
            self.first.get_or_insert(header);
        }
    }

    fn verdicts(self) -> Vec<Verdict> {
        const GIB: u64 = 1 << 30;
        let Self { first, files, damage } = self;
        let rule = "The file is a tar archive, compressed with gzip, and whole";
        let whole = Verdict::new(rule, damage.is_none(), || damage.unwrap_or_default());
        let mut verdicts = vec![whole];
        let Some(disk) = first else { return verdicts };
        let rule = "The archive is of GNU tar's old format";
        verdicts.push(Verdict::new(rule, disk.is_old_gnu, || "it is of another".to_owned()));
        let is_disk =
            disk.name == DISK_NAME.as_bytes() && matches!(disk.kind, SPARSE_FILE | REGULAR_FILE);
        let rule = "The disk is a file named disk.raw";
        verdicts.push(Verdict::new(rule, is_disk, || {
            format!("the first entry is '{}'", String::from_utf8_lossy(&disk.name).escape_debug())
        }));
        let rule = "Nothing else is in the archive";
        verdicts.push(Verdict::new(rule, files <= 1, || format!("it has {files} files")));
        let size = disk.size_bytes;
        let rule = "The size of the disk is a whole number of GiB";
        let is_whole = size > 0 && size.is_multiple_of(GIB);
        verdicts.push(Verdict::new(rule, is_whole, || format!("it is {size} bytes")));
        verdicts
    }
}
