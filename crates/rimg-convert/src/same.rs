//! Bytes that two images have in common.

use crate::runs::RunKind;
use rimg_core::{BlockImage, Storage};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Which files of some images are the same one, however often it was opened.
pub(crate) struct SameFiles<'a> {
    local: Vec<LocalFile<'a>>,
}

struct LocalFile<'a> {
    file: &'a Arc<dyn Storage>,
    /// Device and inode.
    id: (u64, u64),
}

impl<'a> SameFiles<'a> {
    /// Looks at the files of `tops` and of the images below them.
    pub(crate) fn of(tops: impl IntoIterator<Item = &'a dyn BlockImage>) -> Self {
        let mut local = Vec::new();
        for top in tops {
            let below = std::iter::successors(top.backing(), |image| image.backing());
            let images =
                std::iter::once(top).chain(below.map(|image| -> &dyn BlockImage { &**image }));
            for image in images {
                for file in (0..=u16::MAX).map_while(|index| image.file(index)) {
                    let metadata = file.local_file().and_then(|file| file.metadata().ok());
                    if let Some(metadata) = metadata.filter(|metadata| metadata.is_file()) {
                        local.push(LocalFile { file, id: (metadata.dev(), metadata.ino()) });
                    }
                }
            }
        }
        Self { local }
    }

    /// Whether both runs, which start at the same guest offset, are known to hold the same bytes
    /// for as long as both are.
    pub(crate) fn holds(&self, first: &RunKind<'_>, second: &RunKind<'_>) -> bool {
        match (first, second) {
            (RunKind::Zero { .. }, RunKind::Zero { .. }) => true,
            (RunKind::Data { image: a, at }, RunKind::Data { image: b, at: other }) => {
                at.host == other.host && self.is_same(a.file(at.file), b.file(other.file))
            }
            (RunKind::Encoded(a), RunKind::Encoded(b)) => {
                a.at.host == b.at.host
                    && a.codec == b.codec
                    && a.whole.is_some()
                    && a.whole == b.whole
                    && self.is_same(a.image.file(a.at.file), b.image.file(b.at.file))
            }
            _ => false,
        }
    }

    fn is_same(&self, a: Option<&Arc<dyn Storage>>, b: Option<&Arc<dyn Storage>>) -> bool {
        let (Some(a), Some(b)) = (a, b) else { return false };
        let address = |file: &Arc<dyn Storage>| &raw const **file;
        let id = |wanted: &Arc<dyn Storage>| {
            let is_it =
                |local: &&LocalFile<'_>| std::ptr::addr_eq(address(local.file), address(wanted));
            self.local.iter().find(is_it).map(|local| local.id)
        };
        std::ptr::addr_eq(address(a), address(b)) || id(a).is_some_and(|a| id(b) == Some(a))
    }
}
