//! Which file an error is about.

use core::fmt;
use rimg_core::{BoxError, Error};
use std::path::PathBuf;

/// What went wrong with a file that the caller named.
///
/// Files that an image names come further down the chain, as [`Error::Dependency`].
#[derive(Debug, thiserror::Error)]
#[error("could not {action} '{}'", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: Action,
    /// The file, as the caller named it; empty for a storage without a name.
    pub path: PathBuf,
    /// Why it failed.
    pub source: Error,
}

/// What was tried with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// To open an image.
    Open,
    /// To create one.
    Create,
    /// To write back and close one.
    Close,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Close => "close",
        })
    }
}

impl FileError {
    /// Adds the file to an error.
    pub(crate) fn new(action: Action, path: impl Into<PathBuf>) -> impl FnOnce(Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }

    /// The error as the cause of another one.
    #[must_use]
    pub fn boxed(self) -> BoxError {
        Box::new(self)
    }
}
