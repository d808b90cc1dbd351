//! Holding an image against what a platform asks of it, rule by rule.
//!
//! What can be seen in the file's own bytes is looked for there, and not in what the format's
//! crate says of them: a check that asks the writer would believe him.

use crate::platform::Platform;
use rimg::{BlockImage, Error, ImageInfo, Result, Storage};

/// One rule, and whether it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the platform asks for, as a sentence without a full stop.
    pub rule: &'static str,
    /// What there is instead; `None` when the rule is kept.
    pub broken: Option<String>,
}

impl Verdict {
    /// A rule that is kept, or what there is instead.
    pub(crate) fn new(rule: &'static str, kept: bool, instead: impl FnOnce() -> String) -> Self {
        Self { rule, broken: (!kept).then(instead) }
    }
}

/// Holds an image against the rules of a platform, in an order that does not change. Only metadata
/// is read.
///
/// For [`Platform::Gcp`] this is about a raw image on its way into an archive; the archive itself
/// is [another function's](crate::inspect_archive).
///
/// # Errors
/// What the image or its storage says: nothing is known then.
pub fn inspect(platform: Platform, image: &dyn BlockImage) -> Result<Vec<Verdict>> {
    let subject = Subject::new(image)?;
    let mut verdicts = Vec::new();
    let recipe = platform.recipe();
    let format = recipe.format.unwrap_or("raw");
    verdicts.push(subject.format_is(format));
    // Of another format nothing else can be said.
    if verdicts.iter().all(|verdict| verdict.broken.is_none()) {
        match platform {
            Platform::Azure => subject.fixed_vhd(&mut verdicts)?,
            Platform::Aws | Platform::Vsphere => subject.stream_vmdk(&mut verdicts)?,
            Platform::HyperV => subject.vhdx(&mut verdicts)?,
            Platform::VirtualBox => subject.vdi(&mut verdicts)?,
            Platform::OpenStack => subject.qcow2(&mut verdicts)?,
            Platform::Gcp => {}
        }
        verdicts.push(subject.stands_alone());
        verdicts.extend(subject.whole(recipe.size_multiple_bytes));
        verdicts.extend(largest(platform).map(|(rule, bytes)| subject.fits(rule, bytes)));
    }
    Ok(verdicts)
}

/// The largest disk that a platform takes, in words and in bytes.
const fn largest(platform: Platform) -> Option<(&'static str, u64)> {
    const TIB: u64 = 1 << 40;
    match platform {
        Platform::Aws => Some(("The disk has at most 16 TiB", 16 * TIB)),
        Platform::Vsphere => Some(("The disk has at most 62 TiB", 62 * TIB)),
        Platform::HyperV => Some(("The disk has at most 64 TiB", 64 * TIB)),
        _ => None,
    }
}

/// An image and its file.
struct Subject<'a> {
    image: &'a dyn BlockImage,
    info: ImageInfo,
    file: &'a dyn Storage,
    len_bytes: u64,
}

impl<'a> Subject<'a> {
    fn new(image: &'a dyn BlockImage) -> Result<Self> {
        let file = image.file(0).ok_or(Error::Misuse("an image without a file"))?.as_ref();
        let len_bytes = file.len_bytes().map_err(Error::io("read file length", 0))?;
        Ok(Self { image, info: image.info()?, file, len_bytes })
    }

    fn size_bytes(&self) -> u64 {
        self.image.size_bytes()
    }

    /// Bytes of the file; zeroes where it has none.
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let end = at.checked_add(to_u64(N));
        if end.is_some_and(|end| end <= self.len_bytes) {
            self.file.read_exact_at(&mut bytes, at).map_err(Error::io("read", at))?;
        }
        Ok(bytes)
    }

    /// As [`bytes`](Self::bytes), counted from the end of the file.
    fn bytes_before_end<const N: usize>(&self, before: u64) -> Result<[u8; N]> {
        self.len_bytes.checked_sub(before).map_or(Ok([0; N]), |at| self.bytes(at))
    }

    fn format_is(&self, format: &'static str) -> Verdict {
        let rule = match format {
            "vpc" => "The file is a VHD",
            "vmdk" => "The file is a VMDK",
            "vhdx" => "The file is a VHDX",
            "vdi" => "The file is a VDI",
            "qcow2" => "The file is a qcow2",
            _ => "The file is a raw disk",
        };
        let found = self.info.format;
        Verdict::new(rule, found == format, || format!("its format is {found}"))
    }

    fn stands_alone(&self) -> Verdict {
        let other = self.info.backing_file.as_ref().or(self.info.data_file.as_ref());
        let rule = "The disk needs no other file";
        let kept = other.is_none() && self.image.backing().is_none();
        Verdict::new(rule, kept, || match other {
            Some(name) => format!("it needs '{name}'"),
            None => "there is an image below it".to_owned(),
        })
    }

    fn whole(&self, multiple: u64) -> Option<Verdict> {
        let rule = match multiple {
            0x10_0000 => "The size of the disk is a whole number of MiB",
            0x4000_0000 => "The size of the disk is a whole number of GiB",
            _ => return None,
        };
        let size = self.size_bytes();
        Some(Verdict::new(rule, size.is_multiple_of(multiple), || format!("it is {size} bytes")))
    }

    fn fits(&self, rule: &'static str, largest: u64) -> Verdict {
        let size = self.size_bytes();
        Verdict::new(rule, size <= largest, || format!("it has {size} bytes"))
    }

    /// The footer of a VHD: 512 bytes at the end of the file.
    fn fixed_vhd(&self, verdicts: &mut Vec<Verdict>) -> Result<()> {
        const FOOTER_BYTES: u64 = 512;
        const TYPE_FROM_END: u64 = FOOTER_BYTES - 60;
        const SIZE_FROM_END: u64 = FOOTER_BYTES - 48;
        let kind = u32::from_be_bytes(self.bytes_before_end(TYPE_FROM_END)?);
        verdicts.push(Verdict::new("The VHD is of the fixed kind", kind == 2, || match kind {
            3 => "it is dynamic".to_owned(),
            4 => "it is differencing".to_owned(),
            other => format!("its footer says kind {other}"),
        }));
        let named = u64::from_be_bytes(self.bytes_before_end(SIZE_FROM_END)?);
        let behind = self.len_bytes.saturating_sub(FOOTER_BYTES);
        let rule = "The file is the disk and a footer that names its size";
        verdicts.push(Verdict::new(rule, named == behind && named == self.size_bytes(), || {
            format!("the footer says {named} bytes, and {behind} lie before it")
        }));
        Ok(())
    }

    /// The header of a sparse extent, its copy in the footer, and what lies around that.
    fn stream_vmdk(&self, verdicts: &mut Vec<Verdict>) -> Result<()> {
        const MAGIC: [u8; 4] = *b"KDMV";
        const COMPRESSED_GRAINS: u32 = 1 << 16;
        const MARKERS: u32 = 1 << 17;
        const GD_AT_END: u64 = u64::MAX;
        const FOOTER_MARKER: u32 = 3;
        let flags = u32::from_le_bytes(self.bytes(8)?);
        let magic: [u8; 4] = self.bytes(0)?;
        let wanted = COMPRESSED_GRAINS | MARKERS;
        let rule = "The VMDK is one streamOptimized extent";
        verdicts.push(Verdict::new(
            rule,
            magic == MAGIC && flags & wanted == wanted,
            || match magic {
                MAGIC => format!("the flags of its header are {flags:#x}"),
                _ => "it does not begin with the header of an extent".to_owned(),
            },
        ));
        let directory = u64::from_le_bytes(self.bytes(56)?);
        let footer: [u8; 4] = self.bytes_before_end(1024)?;
        let named = u64::from_le_bytes(self.bytes_before_end(1024 - 56)?);
        let marker = u32::from_le_bytes(self.bytes_before_end(1536 - 12)?);
        let kept = directory == GD_AT_END
            && footer == MAGIC
            && marker == FOOTER_MARKER
            && named.saturating_mul(512) < self.len_bytes;
        let rule = "The grain directory is named by a footer at the end";
        verdicts.push(Verdict::new(rule, kept, || {
            format!("the header says sector {directory:#x}, the footer {named:#x}")
        }));
        let end: [u8; 512] = self.bytes_before_end(512)?;
        let kept = self.len_bytes.is_multiple_of(512) && end == [0; 512];
        let rule = "The file ends with an end-of-stream marker";
        verdicts.push(Verdict::new(rule, kept, || "it ends otherwise".to_owned()));
        Ok(())
    }

    fn vhdx(&self, verdicts: &mut Vec<Verdict>) -> Result<()> {
        let dirty = self.info.dirty;
        let rule = "The log is empty";
        verdicts.push(Verdict::new(rule, !dirty, || "it has to be replayed".to_owned()));
        let taken = self.file.allocated_bytes().map_err(Error::io("look for holes", 0))?;
        let kept = taken.is_none_or(|taken| taken >= self.len_bytes);
        verdicts.push(Verdict::new("The file is not sparse", kept, || {
            format!("it takes {} of its {} bytes", taken.unwrap_or_default(), self.len_bytes)
        }));
        Ok(())
    }

    /// The header of a VDI: behind a text of 64 bytes.
    fn vdi(&self, verdicts: &mut Vec<Verdict>) -> Result<()> {
        let kind = u32::from_le_bytes(self.bytes(0x4C)?);
        let rule = "The VDI is dynamic";
        verdicts.push(Verdict::new(rule, kind == 1, || format!("its header says kind {kind}")));
        let block = u32::from_le_bytes(self.bytes(0x178)?);
        let rule = "Blocks have 1 MiB";
        verdicts.push(Verdict::new(rule, block == 1 << 20, || format!("they have {block} bytes")));
        let uuid: [u8; 16] = self.bytes(0x188)?;
        let rule = "The disk has a UUID";
        verdicts.push(Verdict::new(rule, uuid != [0; 16], || "it is all zeroes".to_owned()));
        Ok(())
    }

    fn qcow2(&self, verdicts: &mut Vec<Verdict>) -> Result<()> {
        let version = u32::from_be_bytes(self.bytes(4)?);
        let rule = "The qcow2 is of version 3";
        verdicts.push(Verdict::new(rule, version == 3, || format!("it is of version {version}")));
        let rule = "The disk is not encrypted";
        verdicts.push(Verdict::new(rule, !self.info.encrypted, || "it is".to_owned()));
        let rule = "The image was closed properly";
        let dirty = self.info.dirty;
        verdicts.push(Verdict::new(rule, !dirty, || "it is marked as in use".to_owned()));
        Ok(())
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
