//! Telling how large an image would become, from what lies where in its source.

use crate::error::ConvertError;
use crate::runs::{Chain, RunKind};
use rimg_core::{BlockImage, Measure};
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells `measure` of all data in `source` and the images below it. Nothing is read but tables:
/// data that happens to be zero counts as data.
///
/// # Errors
/// [`ConvertError::Map`] for what the source does not say; [`ConvertError::Cancelled`].
pub fn measure(
    source: &dyn BlockImage,
    measure: &mut dyn Measure,
    cancel: &AtomicBool,
) -> Result<(), ConvertError> {
    let mut chain = Chain::new(source, None);
    let end = source.size_bytes();
    let mut at = 0;
    while at < end {
        if cancel.load(Ordering::Relaxed) {
            return Err(ConvertError::Cancelled);
        }
        let run = chain.run_at(at, end).map_err(|source| ConvertError::Map { at, source })?;
        if !matches!(run.kind, RunKind::Zero { .. }) {
            measure.add_data(at..run.end);
        }
        at = run.end;
    }
    Ok(())
}
