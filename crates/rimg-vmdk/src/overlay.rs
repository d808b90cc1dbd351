//! What lies below: the parent, and whether it is still the one that the image was made over.

use crate::error::CorruptKind;
use crate::image::{Body, VmdkImage, unsupported};
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, Extent, ExtentKind, ImageInfo, ImageWrite, InfoValue, Overlay, Resize,
    Result, Storage,
};
use std::sync::Arc;

/// What lies below.
#[derive(Debug, Default)]
pub(crate) struct Parent {
    pub(crate) image: Option<Arc<dyn BlockImage>>,
    /// The image names a parent, but the caller did not want it opened.
    pub(crate) left_out: bool,
}

/// A parent that cannot be trusted to be the right one: a map of it may be had, and nothing of it
/// is read, not even by those who go down the chain by themselves. Who commits into it decides that
/// it is.
#[derive(Debug)]
pub(crate) struct Stranger {
    image: Arc<dyn BlockImage>,
    mismatch: Mismatch,
}

impl Stranger {
    pub(crate) fn new(image: Arc<dyn BlockImage>, mismatch: Mismatch) -> Self {
        Self { image, mismatch }
    }
}

impl BlockImage for Stranger {
    fn size_bytes(&self) -> u64 {
        self.image.size_bytes()
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
        let kind = match self.mismatch {
            Mismatch::Changed(found) => CorruptKind::ParentChanged { found },
            Mismatch::NoContentId => CorruptKind::ParentFormat,
        };
        Err(kind.at("descriptor", "parentCID", 0))
    }

    /// What is not data, or nothing at all, is only to be had by reading.
    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let extent = self.image.extent_at(range)?;
        let kind = match extent.kind {
            ExtentKind::Data(at) => ExtentKind::Data(at),
            ExtentKind::Backing { .. } if self.image.backing().is_none() => {
                ExtentKind::Backing { allocation: None }
            }
            _ => ExtentKind::Opaque,
        };
        Ok(Extent { kind, ..extent })
    }

    fn info(&self) -> Result<ImageInfo> {
        self.image.info()
    }

    /// None: whoever knows the file would not ask for what is in it.
    fn file(&self, _: u16) -> Option<&Arc<dyn Storage>> {
        None
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.image.writer()
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.image.resizer()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What is wrong with a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It has this content ID.
    Changed(u32),
    /// It has no content ID at all.
    NoContentId,
}

impl Parent {
    pub(crate) const fn is_none(&self) -> bool {
        self.image.is_none() && !self.left_out
    }

    /// Refuses to read from a parent that was not opened.
    pub(crate) fn check(&self) -> Result<()> {
        if self.left_out {
            return Err(Error::Denied("the image below was not opened".to_owned()));
        }
        Ok(())
    }

    /// How long what lies below is at least, as far as that is known.
    fn size_bytes(&self) -> u64 {
        match &self.image {
            Some(image) => image.size_bytes(),
            None if self.left_out => u64::MAX,
            None => 0,
        }
    }
}

impl Overlay for VmdkImage {
    /// Would need the new parent's content ID, which a name does not tell.
    fn change_backing(&self, _name: Option<&str>, _format: Option<&str>) -> Result<()> {
        Err(unsupported("another parent"))
    }

    fn can_change_backing(&self) -> bool {
        false
    }

    fn accept_backing(&self) -> Result<()> {
        let parent = self.parent.image.as_ref();
        let parent_cid = parent.map(|image| image.info()).transpose()?;
        let parent_cid = parent_cid.as_ref().and_then(content_id);
        let mut state = self.descriptor();
        if let (Some(old), Some(cid)) = (&state.descriptor, parent_cid) {
            let mut new = old.clone();
            new.set_parent_cid(cid);
            self.store_descriptor(&state.place, old, &new)?;
            state.descriptor = Some(new);
        }
        Ok(())
    }

    /// Notes the parent's content ID anew: what went into the parent has changed that.
    fn make_empty(&self) -> Result<()> {
        if self.parts.iter().any(|part| !part.writable || !matches!(part.body, Body::Grains(_))) {
            return Err(unsupported("emptying images without plain grains"));
        }
        self.note_change(0, &[])?;
        for part in &self.parts {
            if let Body::Grains(blocks) = &part.body {
                blocks.make_empty()?;
            }
        }
        self.accept_backing()
    }
}

/// Compares a parent's content ID with the one that is expected.
pub(crate) fn compare(parent: &dyn BlockImage, expected: u32) -> Result<Option<Mismatch>> {
    Ok(match content_id(&parent.info()?) {
        Some(found) if found == expected => None,
        Some(found) => Some(Mismatch::Changed(found)),
        None => Some(Mismatch::NoContentId),
    })
}

/// The content ID that an image says it has.
pub(crate) fn content_id(info: &ImageInfo) -> Option<u32> {
    if info.format != crate::error::FORMAT {
        return None;
    }
    info.specific.iter().find_map(|(name, value)| match value {
        InfoValue::Number(cid) if *name == "cid" => u32::try_from(*cid).ok(),
        _ => None,
    })
}

/// The part of the parent that lies below one extent.
#[derive(Debug)]
pub(crate) struct Below {
    parent: Arc<Parent>,
    /// Where the extent starts on the disk, in bytes.
    start: u64,
}

impl Below {
    /// `None` where nothing is.
    pub(crate) fn of_extent(parent: &Arc<Parent>, start: u64) -> Option<Arc<dyn BlockImage>> {
        let below = Self { parent: Arc::clone(parent), start };
        (below.size_bytes() > 0).then(|| {
            let below: Arc<dyn BlockImage> = Arc::new(below);
            below
        })
    }
}

impl BlockImage for Below {
    fn size_bytes(&self) -> u64 {
        self.parent.size_bytes().saturating_sub(self.start)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.parent.check()?;
        let Some(image) = &self.parent.image else {
            return Err(Error::Misuse("there is nothing below"));
        };
        image.read_at(buf, at.saturating_add(self.start))
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let Some(image) = &self.parent.image else {
            return Err(Error::Misuse("there is nothing below"));
        };
        let shift = |at: u64| at.saturating_add(self.start);
        image.extent_at(shift(range.start)..shift(range.end))
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo::default())
    }

    fn file(&self, _index: u16) -> Option<&Arc<dyn Storage>> {
        None
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
