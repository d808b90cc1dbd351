//! `--bitmaps`: persistent bitmaps that go along with the data.

use crate::commands::bitmap::{has_bitmaps, merge, refuse_other_size};
use crate::commands::watch::Watch;
use crate::images::Opened;
use crate::message::{Stop, describe};
use rimg::{BitmapInfo, BlockImage};

/// The bitmaps to be copied.
pub(super) struct BitmapCopies<'a> {
    source: &'a dyn BlockImage,
    /// In the order of the source.
    wanted: Vec<BitmapInfo>,
}

impl<'a> BitmapCopies<'a> {
    /// Looks at the bitmaps of the sources: there has to be one source, which has some.
    pub(super) fn plan(sources: &'a [Opened], skip_broken: bool) -> Result<Self, Stop> {
        let [source] = sources else {
            return Err(Stop::failed("Copying bitmaps only possible with single source"));
        };
        let source = source.disk();
        let lacking = || Stop::failed("Source lacks bitmap support");
        let bitmaps = source.bitmaps().filter(|_| has_bitmaps(source)).ok_or_else(lacking)?;
        let wanted = bitmaps.list().map_err(|error| Stop::described(&error))?;
        let broken = wanted.iter().rfind(|bitmap| bitmap.in_use);
        if let Some(BitmapInfo { name, .. }) = broken.filter(|_| !skip_broken) {
            let message = format!("Cannot copy inconsistent bitmap '{name}'");
            let hint = "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it";
            return Err(Stop::failed(message).with_hint(hint));
        }
        Ok(Self { source, wanted })
    }

    /// Looks whether the target can have them.
    pub(super) fn check_target(&self, target: &Opened) -> Result<(), Stop> {
        if target.disk().bitmaps().is_some() && has_bitmaps(target.disk()) {
            return Ok(());
        }
        let format = target.format();
        Err(Stop::failed(format!("Format driver '{format}' does not support bitmaps")))
    }

    /// Copies them. The first that cannot be copied, looking from the last one on, ends it.
    pub(super) fn copy(&self, target: &Opened, watch: &Watch<'_>) -> Result<(), Stop> {
        let failed = |what: &str, name: &str, reason: String| {
            Stop::failed(format!("Failed to {what} bitmap {name}: {reason}"))
        };
        let refused = || Stop::failed("Source lacks bitmap support");
        let from = self.source.bitmaps().ok_or_else(refused)?;
        let to = target.disk().bitmaps().ok_or_else(refused)?;
        let editor = to.editor().ok_or_else(refused)?;
        let there = to.list().map_err(|error| Stop::described(&error))?;
        let mut first = self.wanted.len();
        let mut stop = Ok(());
        for bitmap in self.wanted.iter().rev() {
            let name = &bitmap.name;
            if bitmap.in_use {
                watch.say(&format!("warning: Skipping inconsistent bitmap '{name}'"));
            } else if there.iter().any(|known| known.name == *name) {
                stop = Err(failed("create", name, format!("Bitmap already exists: {name}")));
                break;
            } else if let Err(reason) = refuse_other_size(target.disk(), self.source) {
                stop = Err(failed("populate", name, reason));
                break;
            }
            first = first.saturating_sub(1);
        }
        let copied = self.wanted.get(first..).unwrap_or_default();
        for bitmap in copied.iter().filter(|bitmap| !bitmap.in_use) {
            let name = &bitmap.name;
            editor
                .add(name, Some(bitmap.granularity_bytes))
                .and_then(|()| editor.set_enabled(name, bitmap.enabled))
                .map_err(|error| failed("create", name, describe(&error)))?;
            merge(from, name, self.source.size_bytes(), editor, name)
                .map_err(|error| failed("populate", name, describe(&error)))?;
        }
        stop
    }
}
