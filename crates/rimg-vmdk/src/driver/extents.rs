//! Opening the files of extents. Their names come from the image.

use super::with_footer;
use crate::descriptor::{Access as ExtentAccess, ExtentKind, ExtentLine};
use crate::error::CorruptKind;
use crate::header::SparseHeader;
use crate::header::cowd::CowdHeader;
use crate::header::sesparse::SeSparseHeader;
use crate::image::{Body, unsupported};
use crate::map::GrainMap;
use crate::overlay::{Below, Parent};
use crate::spec::SECTOR_BYTES;
use crate::stream::Stream;
use rimg_blocks::{Blocks, Setup};
use rimg_core::{Dependency, DependencyRole, Error, MetadataBudget, OpenOptions, Result, Storage};
use std::sync::Arc;

/// The files of an image as they are opened, the image's own first.
pub(super) struct ExtentFiles<'a> {
    files: Vec<Arc<dyn Storage>>,
    /// The names of all but the image's own.
    names: Vec<String>,
    parent: &'a Arc<Parent>,
    how: &'a OpenOptions<'a>,
    budget: MetadataBudget,
}

impl<'a> ExtentFiles<'a> {
    pub(super) fn new(
        file: Arc<dyn Storage>,
        parent: &'a Arc<Parent>,
        how: &'a OpenOptions<'a>,
    ) -> Self {
        let budget = how.limits.metadata_budget();
        Self { files: vec![file], names: Vec::new(), parent, how, budget }
    }

    pub(super) fn into_files(self) -> Vec<Arc<dyn Storage>> {
        self.files
    }

    /// Opens one extent, which starts at `start` on the disk and has `len` bytes of it.
    pub(super) fn open(&mut self, line: &ExtentLine, start: u64, len: u64) -> Result<(Body, u16)> {
        if line.access == ExtentAccess::None {
            return Err(unsupported("extents without access"));
        }
        if line.kind == ExtentKind::Zero {
            return Ok((Body::Zero, 0));
        }
        if line.kind == ExtentKind::Device {
            return Err(unsupported("extents on devices"));
        }
        let Some(file) = self.file(line)? else { return Ok((Body::Absent, 0)) };
        let body = match line.kind {
            ExtentKind::Flat | ExtentKind::Vmfs => self.flat_body(file, line, len)?,
            ExtentKind::Sparse => {
                let head = self.read_sector(file, 0)?;
                let storage = self.storage(file)?;
                let header = with_footer(storage.as_ref(), SparseHeader::parse(&head, 0)?)?;
                self.sparse_body(file, header, start, len)?
            }
            ExtentKind::VmfsSparse => self.cowd_body(file, start, Some(len))?.0,
            ExtentKind::SeSparse => self.sesparse_body(file, start, len)?,
            ExtentKind::Zero | ExtentKind::Device => return Err(unsupported("extents on devices")),
        };
        Ok((body, file))
    }

    /// Opens a file once, whatever the number of extents in it. `None`: the caller wants metadata
    /// only, and policy keeps it closed.
    fn file(&mut self, line: &ExtentLine) -> Result<Option<u16>> {
        check_name(&line.name)?;
        let known = self.names.iter().position(|name| *name == line.name);
        let number = known.unwrap_or(self.names.len()).saturating_add(1);
        let number = u16::try_from(number).map_err(|_| unsupported("more than 65535 files"))?;
        if known.is_some() {
            return Ok(Some(number));
        }
        let wanted = Dependency {
            role: DependencyRole::Extent,
            name: &line.name,
            format: None,
            writable: self.how.writable && line.access == ExtentAccess::ReadWrite,
        };
        match self.how.gate.open_file(&wanted) {
            Ok(file) => {
                self.files.push(file);
                self.names.push(line.name.clone());
                Ok(Some(number))
            }
            Err(Error::Denied(_)) if self.how.inspect_only => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn storage(&self, file: u16) -> Result<&Arc<dyn Storage>> {
        self.files.get(usize::from(file)).ok_or(Error::Misuse("no such file"))
    }

    fn read_sector(&self, file: u16, at: u64) -> Result<[u8; 512]> {
        let mut sector = [0; 512];
        let storage = self.storage(file)?;
        let len = storage.len_bytes().map_err(Error::io("read file length", 0))?;
        if at.saturating_add(SECTOR_BYTES) > len {
            return Err(CorruptKind::HeaderTruncated.at("extent header", "magicNumber", at));
        }
        storage.read_exact_at(&mut sector, at).map_err(Error::io("read header", at))?;
        Ok(sector)
    }

    fn flat_body(&self, file: u16, line: &ExtentLine, len: u64) -> Result<Body> {
        let wrong = |sector| CorruptKind::BehindEnd(sector).at("descriptor", "extents", 0);
        let at = line.offset_sectors.checked_mul(SECTOR_BYTES);
        let at = at.ok_or_else(|| wrong(line.offset_sectors))?;
        let there = self.storage(file)?.len_bytes().map_err(Error::io("read file length", 0))?;
        if at.checked_add(len).is_none_or(|end| end > there) {
            return Err(wrong(line.offset_sectors.saturating_add(line.sectors)));
        }
        Ok(Body::Flat { at })
    }

    /// Grains of a hosted sparse extent; `size` bytes of its capacity are used.
    pub(super) fn sparse_body(
        &mut self,
        file: u16,
        header: SparseHeader,
        start: u64,
        size: u64,
    ) -> Result<Body> {
        let storage = Arc::clone(self.storage(file)?);
        let len = storage.len_bytes().map_err(Error::io("read file length", 0))?;
        if header.overhead_bytes() > len && !header.is_compressed() {
            let kind = CorruptKind::OverheadTruncated(header.overhead_bytes());
            return Err(kind.at("sparse extent header", "overHead", 64));
        }
        if header.geometry.size_bytes < size {
            let kind = CorruptKind::ExtentSize {
                descriptor: size / SECTOR_BYTES,
                header: header.raw.capacity,
            };
            return Err(kind.at("sparse extent header", "capacity", 12));
        }
        let mut map = GrainMap::of_sparse(storage, &header, &mut self.budget)?;
        map.geometry.size_bytes = size;
        if self.how.writable && !self.how.inspect_only && !map.has_directory() {
            return Err(Error::ReadOnly("its grain directory is damaged and has to be repaired"));
        }
        if header.is_compressed() {
            let can_write = self.how.writable && header.has_markers();
            let blocks = self.blocks(map, start, false)?;
            return Ok(Body::Stream(Box::new(Stream::new(blocks, header, can_write)?)));
        }
        Ok(Body::Grains(Box::new(self.blocks(map, start, self.how.writable)?)))
    }

    pub(super) fn cowd_body(
        &mut self,
        file: u16,
        start: u64,
        size: Option<u64>,
    ) -> Result<(Body, u64)> {
        let header = CowdHeader::parse(&self.read_sector(file, 0)?)?;
        let capacity = header.geometry.size_bytes;
        let size = size.unwrap_or(capacity);
        if capacity < size {
            let (descriptor, header) = (size / SECTOR_BYTES, capacity / SECTOR_BYTES);
            let kind = CorruptKind::ExtentSize { descriptor, header };
            return Err(kind.at("COWD header", "numSectors", 12));
        }
        let storage = Arc::clone(self.storage(file)?);
        let mut map = GrainMap::of_cowd(storage, &header, &mut self.budget)?;
        map.geometry.size_bytes = size;
        Ok((Body::Grains(Box::new(self.blocks(map, start, false)?)), size))
    }

    fn sesparse_body(&mut self, file: u16, start: u64, size: u64) -> Result<Body> {
        let header = SeSparseHeader::parse(&self.read_sector(file, 0)?)?;
        let volatile = self.read_sector(file, header.volatile)?;
        SeSparseHeader::check_volatile(&volatile, header.volatile)?;
        let capacity = header.geometry.size_bytes;
        if capacity < size {
            let (descriptor, header) = (size / SECTOR_BYTES, capacity / SECTOR_BYTES);
            let kind = CorruptKind::ExtentSize { descriptor, header };
            return Err(kind.at("seSparse header", "capacity", 16));
        }
        let storage = Arc::clone(self.storage(file)?);
        let mut map = GrainMap::of_sesparse(storage, &header, &mut self.budget)?;
        map.geometry.size_bytes = size;
        Ok(Body::Grains(Box::new(self.blocks(map, start, false)?)))
    }

    fn blocks(&self, mut map: GrainMap, start: u64, writable: bool) -> Result<Blocks<GrainMap>> {
        let below = Below::of_extent(self.parent, start);
        map.below_bytes = below.as_ref().map_or(0, |below| below.size_bytes());
        Blocks::new(Setup {
            file: Arc::clone(&map.file),
            below: below.into(),
            block_bytes: map.geometry.grain_bytes(),
            map,
            cipher: None,
            writable,
        })
    }
}

/// Only plain names of files beside the image: an extent is read, and written, as the disk's bytes,
/// whatever is in it.
fn check_name(name: &str) -> Result<()> {
    let is_plain = !matches!(name, "" | "." | "..")
        && !name.chars().any(|letter| matches!(letter, '/' | '\\' | ':') || letter.is_control());
    if is_plain {
        return Ok(());
    }
    Err(Error::Denied(format!("extent '{name}' is not opened: it is no plain name of a file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_opened() {
        for name in ["a.vmdk", "..a", "a b", "a..vmdk", "-x"] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "/etc/passwd", "../a", "a/b", "nbd:x", "c:\\x", "a\\b", "a\nb"]
        {
            assert!(matches!(check_name(name), Err(Error::Denied(_))), "{name}");
        }
    }
}
