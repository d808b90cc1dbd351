//! How qcow2 presents itself: probe, open, create.

use crate::allocate::Allocator;
use crate::check::repair_refcounts;
use crate::crypt::Encryption;
use crate::error::{CorruptKind, FORMAT};
use crate::header::Header;
use crate::image::{Access, Qcow2Image, State, codec_of};
use crate::options::OverlapCheck;
use crate::{amend, options, spec};
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, Finding, FormatDriver, FormatInfo, Limits,
    Match, Measure, MetadataBudget, OpenOptions, ProbeWindow, RawOptions, Result, Storage,
    TargetFiles, num, op,
};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};

/// The format's entry in a registry.
pub static DRIVER: Qcow2Driver = Qcow2Driver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "QEMU copy-on-write, versions 2 and 3",
    amend_options: amend::SPECS,
    create_options: options::SPECS,
    writable: true,
    backing: true,
    compresses: true,
    extra_options: &[],
};

/// Recognises, opens and creates qcow2 images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct Qcow2Driver(());

impl FormatDriver for Qcow2Driver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        let word = |at: usize| {
            window.head.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_be_bytes(*b))
        };
        // Version 1 is another format, qcow; later versions are to be refused by name.
        match (word(0), word(4)) {
            (Some(spec::MAGIC), Some(version)) if version >= 2 => Match::Sure,
            _ => Match::No,
        }
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
        crate::create::create(target, size_bytes, options)
    }

    fn measure(&self, size_bytes: u64, options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        Ok(Some(Box::new(crate::measure::measure(size_bytes, options)?)))
    }
}

/// Opens an image with everything that it refers to.
pub(crate) fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Qcow2Image> {
    let mut budget = how.limits.metadata_budget();
    let start = read_start(file.as_ref(), &mut budget)?;
    let mut header =
        if how.inspect_only { Header::parse_for_check(&start) } else { Header::parse(&start) }?;
    let access = access(&header, how)?;
    let overlap_check = OverlapCheck::parse(how.options)?;
    if how.writable && file.writer().is_none() {
        return Err(Error::ReadOnly("its file was opened for reading"));
    }
    if access == Access::Write && header.has(spec::incompatible::DIRTY) {
        // Where tables are missing, something else is wrong, and no zeroes are to take their place.
        read_l1(file.as_ref(), header.l1_offset, header.l1_entries, &mut budget)?;
        // Refcounts were postponed by somebody who did not come to write them.
        let tell = &mut |finding: &Finding| how.gate.repairing(finding);
        repair_refcounts(file.as_ref(), &mut header, how.limits, tell)?;
    }
    if !how.inspect_only && header.snapshot_count > how.limits.snapshots {
        return Err(Error::Limit {
            what: "number of snapshots",
            needed: header.snapshot_count.into(),
            limit: how.limits.snapshots.into(),
        });
    }
    let encryption = Encryption::open(file.as_ref(), &header, access, how)?;
    let data_file = open_data_file(&header, access, how)?;
    let given = |role| how.gate.is_given(role).then_some("");
    let backing_name = header.backing_name.as_deref();
    let backing = match backing_name.or_else(|| given(DependencyRole::Backing)) {
        Some(name) => how.gate.open_image(&Dependency {
            role: DependencyRole::Backing,
            name,
            format: header.backing_format(),
            writable: false,
        })?,
        None => None,
    };
    let encryption = encryption.map(Arc::new);
    let mut image = assemble(file, data_file, header, encryption, access, how.limits)?;
    image.set_overlap_check(overlap_check)?;
    image.backing_left_out = image.backing_left_out && backing.is_none();
    image.was_blank = image.was_blank && backing.is_none();
    image.backing = backing;
    Ok(image)
}

/// An image from its parts, without the one below. Without its encryption, the data of an
/// encrypted one must not be touched.
pub(crate) fn assemble(
    file: Arc<dyn Storage>,
    data_file: Option<Arc<dyn Storage>>,
    header: Header,
    encryption: Option<Arc<Encryption>>,
    access: Access,
    limits: Limits,
) -> Result<Qcow2Image> {
    let mut budget = limits.metadata_budget();
    let l1 = if access.is_metadata_only() {
        // A check reads it for itself, and finds words for what is wrong with it.
        Vec::new()
    } else {
        read_l1(file.as_ref(), header.l1_offset, header.l1_entries, &mut budget)?
    };
    let allocator = match access {
        Access::Write => {
            Some(Allocator::open(&file, &header, &l1, OverlapCheck::default(), &mut budget)?)
        }
        Access::Inspect | Access::Repair | Access::Read => None,
    };
    let has_backing = header.backing_name.is_some();
    Ok(Qcow2Image {
        was_blank: !has_backing && l1.iter().all(|entry| *entry == 0),
        file,
        data_file,
        backing: None,
        backing_left_out: has_backing,
        size_bytes: AtomicU64::new(header.size_bytes),
        geometry: header.geometry,
        codec: codec_of(&header)?,
        access,
        limits,
        state: Mutex::new(State::new(header, l1, allocator)),
        writer_done: Condvar::new(),
        readers: Default::default(),
        views: Arc::default(),
        flushing: Mutex::default(),
        decoders: Default::default(),
        encryption,
        overlap_check: OverlapCheck::default(),
    })
}

/// The part of the file that has the header: its first cluster, of which the beginning is enough
/// where nothing lies further on.
fn read_start(file: &dyn Storage, budget: &mut MetadataBudget) -> Result<Vec<u8>> {
    /// Hardly any header is longer.
    const USUAL_BYTES: u64 = 64 << 10;
    let read = |start: &mut [u8]| {
        file.read_exact_at(start, 0).map_err(Error::io(op::READ_QCOW2_HEADER, 0))
    };
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut start = vec![0; num::to_usize(len.min(num::to_u64(Header::MIN_BYTES)))?];
    read(&mut start)?;
    let all = len.min(Header::cluster_bits(&start)?.bytes());
    let mut start = budget.buffer("header", all.min(USUAL_BYTES))?;
    read(&mut start)?;
    if all > USUAL_BYTES && !Header::ends_within(&start)? {
        start = budget.buffer("header", all)?;
        read(&mut start)?;
    }
    Ok(start)
}

/// What the state of the image allows of what the caller wants.
fn access(header: &Header, how: &OpenOptions<'_>) -> Result<Access> {
    if how.inspect_only {
        return Ok(if how.writable { Access::Repair } else { Access::Inspect });
    }
    if !how.writable {
        return Ok(Access::Read);
    }
    if header.has(spec::incompatible::CORRUPT) {
        return Err(Error::ReadOnly(Error::MARKED_CORRUPT));
    }
    Ok(Access::Write)
}

/// Reads an L1 table into the machine's byte order.
pub(crate) fn read_l1(
    file: &dyn Storage,
    at: u64,
    entries: u32,
    budget: &mut MetadataBudget,
) -> Result<Vec<u64>> {
    let bytes = u64::from(entries).saturating_mul(8);
    // Once as bytes, once as numbers.
    budget.reserve("L1 table", bytes)?;
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    if at.saturating_add(bytes) > len {
        return Err(CorruptKind::TableTruncated.at("L1 table", "entries", at));
    }
    let mut table = budget.buffer("L1 table", bytes)?;
    file.read_exact_at(&mut table, at).map_err(Error::io("read L1 table", at))?;
    let (words, _) = table.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_be_bytes(*word)).collect())
}

fn open_data_file(
    header: &Header,
    access: Access,
    how: &OpenOptions<'_>,
) -> Result<Option<Arc<dyn Storage>>> {
    let given = how.gate.is_given(DependencyRole::DataFile);
    let refuse =
        |reason: &str| Err(Error::InvalidOption { option: "data-file", reason: reason.to_owned() });
    if !header.has(spec::incompatible::DATA_FILE) {
        return match given {
            true => refuse("'data-file' can only be set for images with an external data file"),
            false => Ok(None),
        };
    }
    let name = match header.data_file_name() {
        Some(name) => name,
        None if given => "",
        None if access == Access::Inspect => return Ok(None),
        None => return refuse("'data-file' is required for this image"),
    };
    let wanted = Dependency {
        role: DependencyRole::DataFile,
        name,
        format: Some("raw"),
        writable: access == Access::Write,
    };
    match how.gate.open_file(&wanted) {
        Ok(file) => Ok(Some(file)),
        // Looking at an image does not need what policy keeps closed.
        Err(Error::Denied(_)) if access.is_metadata_only() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Extension;
    use rimg_core::Limits;
    use rimg_testkit::{MemoryStorage, golden};

    /// The header of an image of 2 MiB clusters, changed, as far as it is read.
    fn read(change: impl FnOnce(&mut Vec<u8>)) -> (usize, Result<Header>) {
        let path = golden::testdata().join("qcow2/cluster-2m.qcow2");
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        let budget = &mut Limits::default().metadata_budget();
        let start = read_start(&MemoryStorage::from(bytes), budget).unwrap();
        (start.len(), Header::parse(&start))
    }

    #[test]
    fn a_long_first_cluster_is_read_as_far_as_it_is_needed() {
        let (len, header) = read(|_| {});
        assert_eq!(len, 64 << 10);
        let extensions = header.unwrap().extensions;
        assert!(!extensions.is_empty());

        let (len, header) = read(|bytes| {
            bytes[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 1, 0xff, 0xfe, 0, 0, 0, 4]);
            bytes[0x1_fffe..][..4].copy_from_slice(b"base");
        });
        assert_eq!((len, header.unwrap().backing_name.as_deref()), (2 << 20, Some("base")));

        let (len, header) = read(|bytes| {
            let at = 112;
            bytes[at..at + 8].copy_from_slice(&[1, 2, 3, 4, 0, 1, 0, 0]);
            bytes[at + 8..at + 8 + 0x1_0008].fill(0);
            bytes[at + 8 + 0xffff] = 7;
        });
        let mut data = vec![0; 0x1_0000];
        data[0xffff] = 7;
        assert_eq!(len, 2 << 20);
        assert_eq!(header.unwrap().extensions, [Extension::Unknown { kind: 0x0102_0304, data }]);
    }
}
