//! How VMDK presents itself: probe, open, create.

mod extents;

use crate::descriptor::{Access as ExtentAccess, Descriptor};
use crate::error::{CorruptKind, FORMAT};
use crate::header::marker::{END_OF_STREAM, Marker};
use crate::header::{RawHeader, SparseHeader};
use crate::image::{Access, Body, DescriptorPlace, DescriptorState, Part, VmdkImage, unsupported};
use crate::overlay::{self, Parent, Stranger};
use crate::spec::{SECTOR_BYTES, cowd, descriptor, marker, sparse};
use crate::{options, resize};
use extents::ExtentFiles;
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, FormatDriver, FormatInfo, Match, Measure,
    OpenOptions, ProbeWindow, RawOptions, Result, Storage, TargetFiles, num,
};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// The format's entry in a registry.
pub static DRIVER: VmdkDriver = VmdkDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "VMware virtual disks",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: options::EXTRA_SPECS,
    writable: true,
    backing: true,
    compresses: true,
};

/// Kinds of disks whose descriptor is a file of its own.
const DESCRIBED_TYPES: &[&str] = &[
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "2GbMaxExtentFlat",
    "vmfs",
    "vmfsThin",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "vmfsSparse",
    "seSparse",
    "custom",
];

/// Recognises, opens and creates VMDK images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct VmdkDriver(());

impl FormatDriver for VmdkDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        match magic(window.head) {
            Some(sparse::MAGIC | cowd::MAGIC) => Match::Sure,
            _ if is_descriptor(window.head) => Match::Sure,
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

fn magic(head: &[u8]) -> Option<u32> {
    head.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Whether a file begins as descriptors do: comments, of which one says so, and the version.
fn is_descriptor(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
    let first = lines.find(|line| !line.is_empty());
    first.is_some_and(|line| line.eq_ignore_ascii_case(descriptor::FIRST_LINE.as_bytes()))
}

/// Opens an image with everything that it refers to.
pub(crate) fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<VmdkImage> {
    how.refuse_options(FORMAT)?;
    if how.writable && file.writer().is_none() {
        return Err(Error::ReadOnly("its file was opened for reading"));
    }
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut head = [0; 512];
    let there = num::to_usize(len.min(SECTOR_BYTES))?;
    let start = head.get_mut(..there).unwrap_or_default();
    file.read_exact_at(start, 0).map_err(Error::io("read header", 0))?;
    match magic(&head) {
        Some(sparse::MAGIC | cowd::MAGIC) if there < head.len() => {
            Err(CorruptKind::HeaderTruncated.at("header", "magicNumber", 0))
        }
        Some(sparse::MAGIC) => open_sparse(file, &head, how),
        Some(cowd::MAGIC) => open_cowd(file, how),
        _ if is_descriptor(&head) => {
            let found = read_descriptor(file.as_ref(), 0, len)?;
            open_described(file, found, DescriptorPlace::File, how)
        }
        _ => Err(Error::WrongFormat { format: FORMAT }),
    }
}

/// An image in one hosted sparse extent, or only its descriptor.
fn open_sparse(
    file: Arc<dyn Storage>,
    head: &[u8; 512],
    how: &OpenOptions<'_>,
) -> Result<VmdkImage> {
    let header = with_footer(file.as_ref(), SparseHeader::parse(head, 0)?)?;
    let Some(place) = header.descriptor() else {
        let at = RawHeader::offset_of("descriptor_offset");
        return Err(CorruptKind::Missing.at("sparse extent header", "descriptorOffset", at));
    };
    let found = read_descriptor(file.as_ref(), place.start, place.end)?;
    let stands_alone = matches!(found.create_type.as_str(), "monolithicSparse" | "streamOptimized");
    if header.is_only_descriptor() && !stands_alone {
        return open_described(file, found, DescriptorPlace::Embedded(place), how);
    }
    let parent = open_parent(Some(&found), how)?;
    let mut extents = ExtentFiles::new(file, &parent, how);
    let size = header.geometry.size_bytes;
    let body = extents.sparse_body(0, header, 0, size)?;
    let writable = body.is_writable();
    let part = Part { start: 0, len: AtomicU64::new(size), body, file: 0, writable };
    let state = descriptor_state(Some(found), DescriptorPlace::Embedded(place));
    assemble(extents.into_files(), vec![part], state, parent, how)
}

/// An ESXi host sparse extent without its descriptor.
fn open_cowd(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<VmdkImage> {
    let parent = Arc::new(Parent::default());
    let mut extents = ExtentFiles::new(file, &parent, how);
    let (body, len) = extents.cowd_body(0, 0, None)?;
    let part = Part { start: 0, len: AtomicU64::new(len), body, file: 0, writable: false };
    let state = descriptor_state(None, DescriptorPlace::File);
    assemble(extents.into_files(), vec![part], state, parent, how)
}

/// An image whose extents are files of their own.
fn open_described(
    file: Arc<dyn Storage>,
    found: Descriptor,
    place: DescriptorPlace,
    how: &OpenOptions<'_>,
) -> Result<VmdkImage> {
    if !DESCRIBED_TYPES.contains(&found.create_type.as_str()) {
        return Err(unsupported(format!("image type '{}'", found.create_type)));
    }
    if found.extents.is_empty() {
        return Err(CorruptKind::NoExtents.at("descriptor", "extents", 0));
    }
    let parent = open_parent(Some(&found), how)?;
    let mut extents = ExtentFiles::new(file, &parent, how);
    let mut parts = Vec::with_capacity(found.extents.len());
    let mut start = 0_u64;
    for line in &found.extents {
        let wrong = || CorruptKind::Capacity(line.sectors).at("descriptor", "extents", 0);
        let len = line.sectors.checked_mul(SECTOR_BYTES).ok_or_else(wrong)?;
        let end = start.checked_add(len).filter(|end| *end >> 63 == 0).ok_or_else(wrong)?;
        let (body, file) = extents.open(line, start, len)?;
        let writable = line.access == ExtentAccess::ReadWrite && body.is_writable();
        parts.push(Part { start, len: AtomicU64::new(len), body, file, writable });
        start = end;
    }
    let state = descriptor_state(Some(found), place);
    assemble(extents.into_files(), parts, state, parent, how)
}

/// The header that counts: the footer's, where the header says that there is one.
pub(crate) fn with_footer(file: &dyn Storage, header: SparseHeader) -> Result<SparseHeader> {
    if header.gd.is_some() || header.raw.gd_offset != sparse::GD_AT_END {
        return Ok(header);
    }
    const STRUCTURE: &str = "footer";
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let bytes = marker::FOOTER_SECTORS.saturating_mul(SECTOR_BYTES);
    let Some(at) = len.checked_sub(bytes).filter(|at| *at >= SECTOR_BYTES) else {
        return Err(CorruptKind::Footer("the file is too short").at(STRUCTURE, "marker", 0));
    };
    let mut tail = vec![0; num::to_usize(bytes)?];
    file.read_exact_at(&mut tail, at).map_err(Error::io("read footer", at))?;
    let (sectors, _) = tail.as_chunks::<512>();
    let [first, second, third] = sectors else {
        return Err(CorruptKind::Footer("the file is too short").at(STRUCTURE, "marker", at));
    };
    Marker::parse(first).expect(marker::FOOTER, 1, "a footer", at)?;
    let end = at.saturating_add(2 * SECTOR_BYTES);
    let last = Marker::parse(third);
    last.expect(END_OF_STREAM.kind, END_OF_STREAM.value, "the end of the stream", end)?;
    let footer_at = at.saturating_add(SECTOR_BYTES);
    let footer = SparseHeader::parse(second, footer_at)?;
    if footer.gd.is_none() {
        let field = footer_at.saturating_add(RawHeader::offset_of("gd_offset"));
        return Err(CorruptKind::Missing.at(STRUCTURE, "gdOffset", field));
    }
    Ok(SparseHeader { is_footer: true, ..footer })
}

/// Reads the descriptor in these bytes of a file.
fn read_descriptor(file: &dyn Storage, start: u64, end: u64) -> Result<Descriptor> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let wanted = end.min(len).saturating_sub(start);
    if wanted > descriptor::MAX_BYTES {
        let kind = CorruptKind::DescriptorTooLong(descriptor::MAX_BYTES);
        return Err(kind.at("descriptor", "length", start));
    }
    let mut bytes = vec![0; num::to_usize(wanted)?];
    file.read_exact_at(&mut bytes, start).map_err(Error::io("read descriptor", start))?;
    Descriptor::parse(&bytes, start)
}

fn open_parent(found: Option<&Descriptor>, how: &OpenOptions<'_>) -> Result<Arc<Parent>> {
    let mut parent = Parent::default();
    if let Some((found, name)) = found.and_then(|found| Some((found, found.parent_name.as_ref()?)))
    {
        parent.image = how.gate.open_image(&Dependency {
            role: DependencyRole::Backing,
            name,
            format: Some(FORMAT),
            writable: false,
        })?;
        parent.left_out = parent.image.is_none();
        if let Some(image) = parent.image.take() {
            let mismatch = overlay::compare(image.as_ref(), found.parent_cid)?;
            parent.image = Some(match mismatch {
                None => image,
                Some(mismatch) => Arc::new(Stranger::new(image, mismatch)),
            });
        }
    }
    Ok(Arc::new(parent))
}

fn descriptor_state(found: Option<Descriptor>, place: DescriptorPlace) -> DescriptorState {
    DescriptorState { descriptor: found, place, cid_changed: false, relaxed: false }
}

fn assemble(
    files: Vec<Arc<dyn Storage>>,
    parts: Vec<Part>,
    state: DescriptorState,
    parent: Arc<Parent>,
    how: &OpenOptions<'_>,
) -> Result<VmdkImage> {
    let access = match (how.inspect_only, how.writable) {
        (true, true) => Access::Repair,
        (true, false) => Access::Inspect,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    };
    if access == Access::Write && parts.iter().all(|part| !part.writable) {
        return Err(Error::ReadOnly("none of its extents can be written"));
    }
    let was_blank =
        access == Access::Write && parent.is_none() && resize::is_blank(&files, &parts)?;
    let size = parts.last().map_or(0, Part::end);
    Ok(VmdkImage {
        files,
        parts,
        size_bytes: AtomicU64::new(size),
        descriptor: Mutex::new(state),
        parent,
        access,
        limits: how.limits,
        was_blank,
    })
}

impl Body {
    /// Whether rimg writes extents of this kind.
    fn is_writable(&self) -> bool {
        match self {
            Self::Flat { .. } => true,
            Self::Grains(blocks) => blocks.is_writable(),
            Self::Stream(stream) => stream.is_writable(),
            Self::Zero | Self::Absent => false,
        }
    }
}
