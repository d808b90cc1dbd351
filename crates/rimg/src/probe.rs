//! Recognising a format by its bytes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::registry::Formats;
use rimg_core::{Error, FormatDriver, Match, ProbeWindow, Result, Storage, num};

/// What a file was recognised as.
#[derive(Debug, Clone, Copy)]
pub struct Probed {
    /// The driver whose format it is.
    pub driver: &'static dyn FormatDriver,
    /// How well it fits. [`Match::Fallback`] is a guess that the file's contents can subvert.
    pub certainty: Match,
}

/// Finds the format of a file among `formats` from its first bytes, which are read once, and its
/// `name`, where it has one.
///
/// # Errors
/// [`Error::Denied`] when two formats claim the file with equal right: programs that disagree on
/// what it is are the stuff of attacks, so somebody has to say. [`Error::WrongFormat`] when none
/// does; what the storage says.
pub fn probe(formats: Formats, file: &dyn Storage, name: Option<&str>) -> Result<Probed> {
    let len_bytes = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut head = vec![0; num::to_usize(len_bytes.min(num::to_u64(ProbeWindow::HEAD_BYTES)))?];
    if !head.is_empty() {
        file.read_exact_at(&mut head, 0).map_err(Error::io("read", 0))?;
    }
    choose(formats, &ProbeWindow { head: &head, name, len_bytes })
}

/// The format that fits the window best.
pub(crate) fn choose(formats: Formats, window: &ProbeWindow<'_>) -> Result<Probed> {
    let mut best: Option<Probed> = None;
    let mut rival: Option<&'static dyn FormatDriver> = None;
    for &driver in formats {
        let certainty = driver.probe(window);
        let so_far = best.map_or(Match::No, |best| best.certainty);
        if certainty > so_far {
            best = Some(Probed { driver, certainty });
            rival = None;
        } else if certainty == so_far && certainty != Match::No {
            rival = Some(driver);
        }
    }
    match (best, rival) {
        (Some(best), Some(rival)) => Err(Error::Denied(format!(
            "image could be {} or {}: its format has to be given",
            best.driver.format().name,
            rival.format().name
        ))),
        (Some(best), None) => Ok(best),
        (None, _) => Err(Error::WrongFormat { format: "any known" }),
    }
}
