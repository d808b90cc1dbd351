//! How VDI presents itself: probe, open, create.

use crate::error::{CorruptKind, FORMAT};
use crate::header::{Header, offset};
use crate::image::{Access, VdiImage};
use crate::map::{VdiMap, read_entries};
use crate::measure::VdiMeasure;
use crate::{create, options};
use rimg_blocks::{Below, Blocks, Setup};
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, FormatDriver, FormatInfo, Match, Measure,
    OpenOptions, ProbeWindow, RawOptions, Result, Storage, TargetFiles, Uuid, num,
};
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: VdiDriver = VdiDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "VirtualBox disk images",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: options::EXTRA_SPECS,
    writable: true,
    backing: false,
    compresses: false,
};

/// Recognises, opens and creates VDI images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct VdiDriver(());

impl FormatDriver for VdiDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        if Header::is_image(window.head) { Match::Sure } else { Match::No }
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
        Ok(Some(Box::new(VdiMeasure::new(size_bytes, options)?)))
    }
}

fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<VdiImage> {
    refuse_unknown(how)?;
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
    let has_parent = header.image_type.has_parent();
    let parent = if has_parent { open_parent(&header, how)? } else { None };
    let parent_name = how.options.value(options::PARENT).filter(|_| has_parent);
    let mut budget = how.limits.metadata_budget();
    let entries = match access {
        // Who only looks at the header does not wait for what may be large; a check reads it.
        Access::Inspect => {
            header.check_bounds()?;
            Vec::new()
        }
        _ => read_entries(file.as_ref(), &header, &mut budget)?,
    };
    let mut map = VdiMap::new(Arc::clone(&file), header, entries, has_parent);
    if access == Access::Write {
        // To be sorted, as large again.
        budget.reserve("block map", header.map_bytes())?;
        map.prepare_for_writing()?;
    }
    let below = match &parent {
        None if has_parent => Below::LeftOut,
        parent => Below::from(parent.clone()),
    };
    let block_bytes = u64::from(header.block_bytes);
    let setup = Setup { file, below, map, block_bytes, cipher: None, writable: how.writable };
    Ok(VdiImage {
        blocks: Blocks::new(setup)?,
        access,
        limits: how.limits,
        parent_name: parent_name.map(str::to_owned),
    })
}

fn refuse_unknown(how: &OpenOptions<'_>) -> Result<()> {
    match how.options.iter().find(|(name, _)| *name != options::PARENT) {
        Some((name, _)) => Err(Error::unknown_open_option(FORMAT, name)),
        None => Ok(()),
    }
}

pub(crate) fn read_header(file: &dyn Storage) -> Result<Header> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut start = vec![0; num::to_usize(len.min(num::to_u64(Header::MAX_BYTES)))?];
    file.read_exact_at(&mut start, 0).map_err(Error::io("read header", 0))?;
    Header::parse(&start)
}

/// The image below. Only its UUID is known: the name has to come from the caller.
fn open_parent(header: &Header, how: &OpenOptions<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
    let Some(name) = how.options.value(options::PARENT) else {
        if how.inspect_only {
            return Ok(None);
        }
        let feature = format!(
            "differencing image: it does not name its parent, {}; open it with the option \
             'parent'",
            header.parent_uuid
        );
        return Err(Error::Unsupported { format: FORMAT, feature });
    };
    let role = DependencyRole::Backing;
    let wanted = Dependency { role, name, format: Some(FORMAT), writable: false };
    let Some(parent) = how.gate.open_image(&wanted)? else { return Ok(None) };
    let checked = parent.file(0).map(|file| check_parent(header, file.as_ref()));
    match checked {
        Some(Ok(())) => Ok(Some(parent)),
        Some(Err(source)) => {
            Err(Error::Dependency { role, name: name.to_owned(), source: Box::new(source) })
        }
        None => Err(Error::WrongFormat { format: FORMAT }),
    }
}

/// The image below has to be the one that this was made over, as it was then.
fn check_parent(header: &Header, file: &dyn Storage) -> Result<()> {
    let parent = read_header(file)?;
    let pairs = [
        (header.parent_uuid, parent.uuid, "uuid_link"),
        (header.parent_modification_uuid, parent.modification_uuid, "uuid_parent"),
    ];
    for (wanted, found, field) in pairs {
        // What the image does not say cannot be wrong.
        if wanted != Uuid::NIL && wanted != found {
            let kind = CorruptKind::ParentUuid { wanted, found };
            return Err(kind.at("header", field, offset::PARENT_UUID));
        }
    }
    Ok(())
}
