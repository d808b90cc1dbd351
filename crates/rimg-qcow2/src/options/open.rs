//! Run-time options: what an image is told when it is opened.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::crypt;
use crate::error::FORMAT;
use rimg_core::{Error, RawOptions, Result};

/// Which of the places that hold metadata are looked up before anything is written.
///
/// QEMU's levels are what it can afford: it looks at one structure after the other. Here all that
/// is in memory anyway is always looked up; a level adds what has to be read for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OverlapCheck {
    /// The L2 tables of snapshots, which are read when the image is opened for it.
    pub(crate) inactive_l2: bool,
}

const OVERLAP_CHECK: &str = "overlap-check";
const TEMPLATE: &str = "overlap-check.template";
const INACTIVE_L2: &str = "overlap-check.inactive-l2";

/// What is looked up at every level.
const ALWAYS: &[&str] = &[
    "overlap-check.main-header",
    "overlap-check.active-l1",
    "overlap-check.active-l2",
    "overlap-check.refcount-table",
    "overlap-check.refcount-block",
    "overlap-check.snapshot-table",
    "overlap-check.inactive-l1",
    "overlap-check.bitmap-directory",
];

/// Said of how QEMU goes about it, not of what becomes of the image.
const HINTS: &[&str] = &[
    "discard-no-unref",
    "lazy-refcounts",
    "pass-discard-request",
    "pass-discard-snapshot",
    "pass-discard-other",
];

/// Sizes of caches and how long they last: those here have bounds of their own.
const SIZES: &[&str] = &[
    "cache-size",
    "l2-cache-size",
    "l2-cache-entry-size",
    "refcount-cache-size",
    "cache-clean-interval",
];

impl OverlapCheck {
    /// What run-time options say; those of encryption are not looked at.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of QEMU for options that there are not, and values
    /// that they cannot have.
    pub(crate) fn parse(options: &RawOptions) -> Result<Self> {
        let mut inactive_l2 = None;
        for (name, value) in options.iter() {
            if name == INACTIVE_L2 {
                inactive_l2 = Some(switch(name, value)?);
            } else if ALWAYS.contains(&name) || HINTS.contains(&name) {
                switch(name, value)?;
            } else if SIZES.contains(&name) {
                number(name, value)?;
            } else if !name.starts_with(crypt::PREFIX) && name != OVERLAP_CHECK && name != TEMPLATE
            {
                return Err(Error::unknown_open_option(FORMAT, name));
            }
        }
        let all = level(options)? == Some("all");
        Ok(Self { inactive_l2: inactive_l2.unwrap_or(all) })
    }
}

/// The level, which has two names.
fn level(options: &RawOptions) -> Result<Option<&str>> {
    let (short, long) = (options.value(OVERLAP_CHECK), options.value(TEMPLATE));
    if let (Some(short), Some(long)) = (short, long)
        && short != long
    {
        return refuse(format!(
            "Conflicting values for qcow2 options 'overlap-check' ('{short}') and \
             'overlap-check.template' ('{long}')"
        ));
    }
    match short.or(long) {
        Some(value) if !["none", "constant", "cached", "all"].contains(&value) => refuse(format!(
            "Unsupported value '{value}' for qcow2 option 'overlap-check'. Allowed are any of \
             the following: none, constant, cached, all"
        )),
        level => Ok(level),
    }
}

/// A truth value, in one of the words that QEMU has for it.
fn switch(name: &str, value: &str) -> Result<bool> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => refuse(format!("Parameter '{name}' expects 'on' or 'off'")),
    }
}

/// A number, with the suffix that a size may have.
fn number(name: &str, value: &str) -> Result<()> {
    let digits = value.trim_end_matches(|last: char| "bkKMGTPE".contains(last));
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    refuse(format!("Parameter '{name}' expects a number"))
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::InvalidOption { option: "options", reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<bool, String> {
        let mut raw = RawOptions::new();
        for (name, value) in options {
            raw.set(*name, *value);
        }
        OverlapCheck::parse(&raw).map(|checks| checks.inactive_l2).map_err(|e| e.to_string())
    }

    #[test]
    fn levels_add_what_has_to_be_read() {
        for (level, expected) in
            [("none", false), ("constant", false), ("cached", false), ("all", true)]
        {
            assert_eq!(parse(&[("overlap-check", level)]), Ok(expected));
            assert_eq!(parse(&[("overlap-check.template", level)]), Ok(expected));
            assert_eq!(parse(&[("overlap-check", level), (INACTIVE_L2, "on")]), Ok(true));
            assert_eq!(parse(&[("overlap-check", level), (INACTIVE_L2, "off")]), Ok(false));
        }
        assert_eq!(parse(&[("overlap-check.main-header", "off")]), Ok(false));
        for (word, expected) in [("yes", true), ("true", true), ("y", true), ("false", false)] {
            assert_eq!(parse(&[(INACTIVE_L2, word)]), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_the_words_of_qemu() {
        let refused = |options: &[(&str, &str)]| parse(options).unwrap_err();
        assert_eq!(
            refused(&[("overlap-check", "some")]),
            "Unsupported value 'some' for qcow2 option 'overlap-check'. Allowed are any of the \
             following: none, constant, cached, all"
        );
        assert_eq!(
            refused(&[("overlap-check", "all"), ("overlap-check.template", "none")]),
            "Conflicting values for qcow2 options 'overlap-check' ('all') and \
             'overlap-check.template' ('none')"
        );
        assert_eq!(
            refused(&[(INACTIVE_L2, "Yes")]),
            "Parameter 'overlap-check.inactive-l2' expects 'on' or 'off'"
        );
        assert_eq!(
            refused(&[("pass-discard", "on")]),
            "Block format 'qcow2' does not support the option 'pass-discard'"
        );
    }
}
