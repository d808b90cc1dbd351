//! What things look like when printed. Nothing here opens a file.

pub(crate) mod check;
pub(crate) mod formats;
pub(crate) mod info;
pub(crate) mod map;
pub(crate) mod picture;
pub(crate) mod progress;
pub(crate) mod snapshots;

/// The forms that `--output` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Human,
    /// For programs.
    Json,
}

impl Form {
    /// Reads the value of `--output`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}
