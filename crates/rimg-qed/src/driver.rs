//! How QED presents itself: probe, open, create.

use crate::error::{CorruptKind, FORMAT};
use crate::header::Header;
use crate::image::{Access, QedImage};
use crate::map::QedMap;
use crate::measure::QedMeasure;
use crate::spec::feature;
use crate::{check, create, options, spec};
use rimg_blocks::{Below, Blocks, Setup};
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, Finding, FormatDriver, FormatInfo, Match,
    Measure, OpenOptions, ProbeWindow, RawOptions, Repair, Result, Storage, TargetFiles, num,
};
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: QedDriver = QedDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "QEMU enhanced disk",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: &[],
    compresses: false,
    writable: true,
    backing: true,
};

/// Recognises, opens and creates QED images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct QedDriver(());

impl FormatDriver for QedDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        match window.head.first_chunk() {
            Some(magic) if u32::from_le_bytes(*magic) == spec::MAGIC => Match::Sure,
            _ => Match::No,
        }
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        how.refuse_options(FORMAT)?;
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
        Ok(Some(Box::new(QedMeasure::new(size_bytes, options)?)))
    }
}

fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<QedImage> {
    let mut header = read_header(file.as_ref())?;
    let access = match (how.inspect_only, how.writable) {
        (true, true) => Access::Repair,
        (true, false) => Access::Inspect,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    };
    if how.writable && file.writer().is_none() {
        return Err(Error::ReadOnly("its file was opened for reading"));
    }
    if access == Access::Write && header.has(feature::NEED_CHECK) {
        // Somebody wrote to it, and did not come to say that all went well.
        let tell = &mut |finding: &Finding| how.gate.repairing(finding);
        let summary = check::repair_unclean(&file, &mut header, how.limits, Repair::All, tell)?;
        let wrong = summary.corruptions.saturating_add(summary.check_errors);
        if wrong > 0 {
            return Err(CorruptKind::NotRepaired(wrong).at("header", "features", 16));
        }
    }
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut map = QedMap::open(Arc::clone(&file), header, len)?;
    if access == Access::Write {
        map.prepare_writing(&mut how.limits.metadata_budget())?;
    }
    let backing = match &map.header.backing {
        Some(name) => how.gate.open_image(&Dependency {
            role: DependencyRole::Backing,
            name,
            format: map.header.backing_format(),
            writable: false,
        })?,
        None => None,
    };
    let below = match &backing {
        Some(image) => Below::Image(Arc::clone(image)),
        None if map.header.backing.is_some() => Below::LeftOut,
        None => Below::Nothing,
    };
    let was_blank = map.is_blank() && matches!(below, Below::Nothing);
    let block_bytes = map.header.geometry.cluster_bytes();
    let writable = access == Access::Write;
    let setup = Setup { file, below, map, block_bytes, cipher: None, writable };
    let blocks = Blocks::new(setup)?;
    Ok(QedImage { blocks, backing, access, limits: how.limits, was_blank })
}

/// Reads the header, and the name of the backing file.
pub(crate) fn read_header(file: &dyn Storage) -> Result<Header> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let read = |wanted: u64| -> Result<Vec<u8>> {
        let mut start = vec![0; num::to_usize(len.min(wanted))?];
        file.read_exact_at(&mut start, 0).map_err(Error::io("read header", 0))?;
        Ok(start)
    };
    let needed = Header::needed_bytes(&read(num::to_u64(Header::RAW_BYTES))?)?;
    Header::parse(&read(needed)?)
}
