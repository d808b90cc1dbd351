//! How Parallels presents itself: probe, open, create.

use crate::error::{CorruptKind, FORMAT};
use crate::header::{Extension, Header, Keeping};
use crate::image::{Access, ParallelsImage};
use crate::map::{ParallelsMap, slots_in_use};
use crate::measure::ParallelsMeasure;
use crate::table::Bat;
use crate::{check, create, descriptor, options, spec};
use rimg_blocks::{Below, Blocks, Setup};
use rimg_core::{
    BlockImage, Error, FormatDriver, FormatInfo, Limits, Match, Measure, MetadataBudget,
    OpenOptions, ProbeWindow, RawOptions, Repair, Result, Storage, TargetFiles, num,
};
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: ParallelsDriver = ParallelsDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "Parallels expandable disk, and bundles of such",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: &[],
    compresses: false,
    writable: true,
    backing: false,
};

/// Recognises, opens and creates Parallels images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct ParallelsDriver(());

impl FormatDriver for ParallelsDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        if Header::is_magic(window.head) || descriptor::is_descriptor(window.head) {
            Match::Sure
        } else {
            Match::No
        }
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        how.refuse_options(FORMAT)?;
        if descriptor::is_descriptor(&read_head(file.as_ref())?) {
            return Ok(Box::new(descriptor::open(file, how)?));
        }
        let access = match (how.inspect_only, how.writable) {
            (true, true) => Access::Repair,
            (true, false) => Access::Inspect,
            (false, true) => Access::Write,
            (false, false) => Access::Read,
        };
        Ok(Box::new(open(file, access, how.limits)?))
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
        Ok(Some(Box::new(ParallelsMeasure::new(size_bytes, options)?)))
    }
}

/// Opens an expandable image.
pub(crate) fn open(
    file: Arc<dyn Storage>,
    access: Access,
    limits: Limits,
) -> Result<ParallelsImage> {
    if matches!(access, Access::Repair | Access::Write) && file.writer().is_none() {
        return Err(Error::ReadOnly("its file was opened for reading"));
    }
    let mut budget = limits.metadata_budget();
    let mut found = Metadata::read(file.as_ref(), &mut budget)?;
    let writable = access == Access::Write;
    let mut keeping = Keeping::Drop;
    if writable {
        if let Some(extension) = found.read_extension(file.as_ref(), &mut budget)? {
            keeping = extension.keeping()?;
        }
        repair_before_writing(&file, &mut found, limits)?;
    }
    let Metadata { header, bat, len_bytes } = found;
    let slots = if writable {
        let mut slots = slots_in_use(&header, bat.entries(), len_bytes, &mut budget)?;
        if keeping == Keeping::Keep {
            // Nobody knows what of the file belongs to it.
            slots.take_all_before(len_bytes);
        }
        slots
    } else {
        Default::default()
    };
    let was_blank = bat.entries().iter().all(|entry| *entry == 0);
    let block_bytes = header.cluster_bytes();
    let map = ParallelsMap::new(header, bat, slots, keeping, len_bytes, limits);
    let setup = Setup { file, below: Below::Nothing, map, block_bytes, cipher: None, writable };
    Ok(ParallelsImage { blocks: Blocks::new(setup)?, access, limits, was_blank })
}

/// Everything that a file says of itself.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) header: Header,
    pub(crate) bat: Bat,
    /// The length of the file, of which only whole sectors count.
    pub(crate) len_bytes: u64,
}

impl Metadata {
    pub(crate) fn read(file: &dyn Storage, budget: &mut MetadataBudget) -> Result<Self> {
        let header = Header::parse(&read_head(file)?)?;
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        if header.bat_end() > len {
            let at = num::to_u64(Header::BYTES);
            return Err(CorruptKind::BatTruncated.at("BAT", "entries", at));
        }
        // Once as bytes, once as numbers.
        let bytes = u64::from(header.bat_entries).saturating_mul(4);
        budget.reserve("BAT", bytes)?;
        let mut bytes = budget.buffer("BAT", bytes)?;
        let at = num::to_u64(Header::BYTES);
        file.read_exact_at(&mut bytes, at).map_err(Error::io("read BAT", at))?;
        let mut bat = Bat::parse(&bytes);
        if header.flags & spec::EMPTY_IMAGE != 0 {
            bat.clear();
        }
        let len_bytes = len.checked_next_multiple_of(spec::SECTOR_BYTES).unwrap_or(len);
        Ok(Self { header, bat, len_bytes })
    }

    /// The Format Extension, where there is one that counts.
    pub(crate) fn read_extension(
        &self,
        file: &dyn Storage,
        budget: &mut MetadataBudget,
    ) -> Result<Option<Extension>> {
        if !self.header.has_extension() {
            return Ok(None);
        }
        let at = self.header.ext_off.saturating_mul(spec::SECTOR_BYTES);
        let end = at.checked_add(self.header.cluster_bytes());
        if at < self.header.bat_end() || end.is_none_or(|end| end > self.len_bytes) {
            return Err(CorruptKind::OutsideFile(at).at("header", "ext_off", 56));
        }
        let mut cluster = budget.buffer("Format Extension", self.header.cluster_bytes())?;
        file.read_exact_at(&mut cluster, at).map_err(Error::io("read Format Extension", at))?;
        Extension::parse(&cluster, at).map(Some)
    }
}

/// As QEMU does: an image that is to be written is put right before.
fn repair_before_writing(
    file: &Arc<dyn Storage>,
    found: &mut Metadata,
    limits: Limits,
) -> Result<()> {
    let looked = check::check(file.as_ref(), limits, Repair::Nothing, &mut |_| {})?;
    if looked.corruptions == 0 {
        return Ok(());
    }
    let summary = check::check(file.as_ref(), limits, Repair::All, &mut |_| {})?;
    if summary.corruptions > 0 {
        return Err(CorruptKind::NotRepaired(summary.corruptions).at("BAT", "entries", 64));
    }
    *found = Metadata::read(file.as_ref(), &mut limits.metadata_budget())?;
    Ok(())
}

fn read_head(file: &dyn Storage) -> Result<Vec<u8>> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let wanted = num::to_u64(ProbeWindow::HEAD_BYTES).min(len);
    let mut head = vec![0; num::to_usize(wanted)?];
    file.read_exact_at(&mut head, 0).map_err(Error::io("read header", 0))?;
    Ok(head)
}
