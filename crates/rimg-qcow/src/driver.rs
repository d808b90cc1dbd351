//! How qcow presents itself: probe, open, create.

use crate::error::{CorruptKind, FORMAT};
use crate::header::Header;
use crate::image::{Access, QcowImage};
use crate::map::QcowMap;
use crate::measure::QcowMeasure;
use crate::{create, crypt, options};
use rimg_blocks::{Below, Blocks, SectorCipher, Setup};
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, FormatDriver, FormatInfo, Match, Measure,
    OpenOptions, ProbeWindow, RawOptions, Result, Storage, TargetFiles, num,
};
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: QcowDriver = QcowDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "QEMU copy-on-write, version 1",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: &[],
    compresses: true,
    writable: true,
    backing: true,
};

/// Recognises, opens and creates qcow images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct QcowDriver(());

impl FormatDriver for QcowDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        if Header::is_magic(window.head) { Match::Sure } else { Match::No }
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(open(file, how)?))
    }

    fn create(
        &self,
        target: &dyn TargetFiles,
        size_bytes: u64,
        options: &RawOptions,
    ) -> Result<()> {
        create::create(target, size_bytes, options)
    }

    fn measure(&self, size_bytes: u64, options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        Ok(Some(Box::new(QcowMeasure::new(size_bytes, options)?)))
    }
}

fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<QcowImage> {
    let header = read_header(file.as_ref())?;
    let access = match (how.inspect_only, how.writable) {
        (true, true) => Access::Repair,
        (true, false) => Access::Inspect,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    };
    if how.writable && file.writer().is_none() {
        return Err(Error::ReadOnly("its file was opened for reading"));
    }
    let is_encrypted = header.is_encrypted();
    let cipher = crypt::open(is_encrypted, !how.inspect_only, how.options)?;
    let cipher = cipher.map(|cipher| -> Box<dyn SectorCipher> { Box::new(cipher) });
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut map = QcowMap::open(Arc::clone(&file), header, len)?;
    if access == Access::Write {
        map.prepare_writing(&mut how.limits.metadata_budget())?;
    }
    let backing = match &map.header.backing {
        Some(name) => how.gate.open_image(&Dependency {
            role: DependencyRole::Backing,
            name,
            format: None,
            writable: false,
        })?,
        None => None,
    };
    let below = match &backing {
        Some(image) => Below::Image(Arc::clone(image)),
        None if map.header.backing.is_some() => Below::LeftOut,
        None => Below::Nothing,
    };
    let writable = access == Access::Write;
    let was_blank = writable && matches!(below, Below::Nothing) && map.is_blank()?;
    let block_bytes = map.header.geometry.cluster_bytes();
    let setup = Setup { file, below, map, block_bytes, cipher, writable };
    let blocks = Blocks::new(setup)?;
    Ok(QcowImage { blocks, backing, access, limits: how.limits, was_blank, is_encrypted })
}

/// Reads the header, and the name of the backing file.
pub(crate) fn read_header(file: &dyn Storage) -> Result<Header> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let wanted = num::to_u64(Header::RAW_BYTES).min(len);
    let mut start = vec![0; num::to_usize(wanted)?];
    file.read_exact_at(&mut start, 0).map_err(Error::io("read header", 0))?;
    let (at, name_len) = Header::name_place(&start)?;
    if at.checked_add(name_len.into()).is_none_or(|end| end > len) {
        return Err(CorruptKind::BackingName(name_len).at("header", "backing_file_offset", 8));
    }
    let mut name = vec![0; num::to_usize(name_len.into())?];
    file.read_exact_at(&mut name, at).map_err(Error::io("read name of backing file", at))?;
    Header::parse(&start, &name)
}
