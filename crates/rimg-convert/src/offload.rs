//! Letting the kernel move data by itself.

use crate::unit::{Origin, Piece};
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, Storage};
use std::sync::atomic::{AtomicBool, Ordering};

/// A target whose file holds the guest's bytes at their own offsets.
pub(crate) struct Offload<'a> {
    file: &'a dyn Storage,
    /// It did not work once, so it is not tried again.
    off: AtomicBool,
}

impl<'a> Offload<'a> {
    /// `None` when the guest's bytes have no such place in the target.
    pub(crate) fn new(target: &'a dyn BlockImage) -> Option<Self> {
        let is_raw = target.info().is_ok_and(|info| info.format == "raw");
        let file = target.file(0).filter(|_| is_raw)?;
        Some(Self { file: &**file, off: AtomicBool::new(false) })
    }

    /// Copies a piece. `false` when it has to be read and written as usual; what went wrong will
    /// then be seen again, with its proper name.
    pub(crate) fn copies(&self, piece: &Piece<'_>) -> bool {
        let Origin::File { image, at } = piece.origin else { return false };
        let Some(source) = image.file(at.file) else { return false };
        if self.off.load(Ordering::Relaxed) {
            return false;
        }
        let copied = source.copy_to(self.file, at.host.0, piece.at, to_u64(piece.len));
        if !matches!(copied, Ok(true)) {
            self.off.store(true, Ordering::Relaxed);
        }
        matches!(copied, Ok(true))
    }
}
