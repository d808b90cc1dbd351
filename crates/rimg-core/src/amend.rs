//! Changing the options of an existing image.

use crate::{RawOptions, Result};

/// Changing the options that an image was created with.
pub trait Amend: Send + Sync {
    /// Brings the image to `options`, of
    /// [`FormatInfo::amend_options`](crate::FormatInfo::amend_options); what is not named stays
    /// as it is. `force` allows changes that may make the image unusable. When something changed,
    /// the image has to be opened again before anything else is done with it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) before anything is changed; otherwise
    /// what the storage says, and the image is usable, before or after the change.
    fn amend(
        &self,
        options: &RawOptions,
        force: bool,
        progress: &mut AmendProgress<'_>,
    ) -> Result<()>;
}

/// Told now and then how much is done, and of how much, in units of its own. The work of later steps
/// is not known at first: the second number may change, and less be done of it than before.
pub type AmendProgress<'a> = dyn FnMut(u64, u64) + 'a;
