//! Why something does not work.

use core::fmt;
use rimg_core::Error;
use std::io;

/// Why a trial failed, for people.
#[derive(Debug)]
pub(super) struct Wrong(String);

/// What came of a trial.
pub(super) type Outcome<T = ()> = Result<T, Wrong>;

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        let source = std::error::Error::source(&error);
        Self(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Nothing, or that `what` is so.
pub(super) fn unless(fine: bool, what: &str) -> Outcome {
    if fine { Ok(()) } else { Err(what.into()) }
}
