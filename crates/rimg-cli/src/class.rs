//! What kind of an error it is, for programs that have to decide what to do about it.
//!
//! Names and exit codes are a promise: what is there stays, and more may come.

use rimg::LockConflict;
use rimg_core::Error;
use std::error::Error as StdError;
use std::io;

/// The kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// None of the others.
    Failed,
    /// The command line is wrong.
    Usage,
    /// An image contradicts its format.
    Corrupt,
    /// A file is not there.
    NotFound,
    /// An image is not of the format that was named.
    WrongFormat,
    /// The format, or this program, cannot do it.
    Unsupported,
    /// It would take more memory, or time, than is allowed.
    Limit,
    /// There is no room for what is to be written.
    NoSpace,
    /// A file could not be read or written.
    Io,
    /// Another program uses the image.
    Busy,
    /// What was written is not what was read.
    Mismatch,
    /// The system, a policy, or the image forbids it.
    Denied,
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
}

impl Class {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Failed,
        Self::Usage,
        Self::Corrupt,
        Self::NotFound,
        Self::WrongFormat,
        Self::Unsupported,
        Self::Limit,
        Self::NoSpace,
        Self::Io,
        Self::Busy,
        Self::Mismatch,
        Self::Denied,
        Self::Interrupted,
    ];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Corrupt => "corrupt",
            Self::NotFound => "not-found",
            Self::WrongFormat => "wrong-format",
            Self::Unsupported => "unsupported",
            Self::Limit => "limit",
            Self::NoSpace => "no-space",
            Self::Io => "io",
            Self::Busy => "busy",
            Self::Mismatch => "mismatch",
            Self::Denied => "denied",
            Self::Interrupted => "interrupted",
        }
    }

    /// The exit code under `--errors json`: those of `sysexits.h` where they fit. `None` for the
    /// command's own.
    pub(crate) const fn exit(self) -> Option<u8> {
        Some(match self {
            Self::Failed => return None,
            Self::Usage => 64,
            Self::Corrupt => 65,
            Self::NotFound => 66,
            Self::WrongFormat => 67,
            Self::Unsupported => 69,
            Self::Limit => 70,
            Self::NoSpace => 73,
            Self::Io => 74,
            Self::Busy => 75,
            Self::Mismatch => 76,
            Self::Denied => 77,
            Self::Interrupted => 130,
        })
    }

    /// What the help of `--errors` says of all of them.
    pub(crate) fn list() -> String {
        let exits = Self::ALL.iter().filter_map(|class| Some((class.name(), class.exit()?)));
        exits.map(|(name, exit)| format!("{name} {exit}")).collect::<Vec<_>>().join(", ")
    }

    /// That of an error, from what caused it.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let class = match (error.downcast_ref(), error.downcast_ref()) {
                (Some(error), _) => Self::of_image(error),
                (_, Some(error)) => Self::of_io(error),
                _ => None,
            };
            if let Some(class) = class {
                return class;
            }
            next = error.source();
        }
        Self::Failed
    }

    /// That of an error of the library; `None` where it is its cause's.
    fn of_image(error: &Error) -> Option<Self> {
        Some(match error {
            Error::Io { .. } | Error::Dependency { .. } => return None,
            Error::WrongFormat { .. } => Self::WrongFormat,
            Error::Corrupt { .. } | Error::Decode { .. } => Self::Corrupt,
            Error::Unsupported { .. } => Self::Unsupported,
            Error::Limit { .. } => Self::Limit,
            Error::Denied(_) | Error::ReadOnly(_) => Self::Denied,
            Error::InvalidOption { .. } => Self::Usage,
            Error::Cancelled => Self::Interrupted,
            _ => Self::Failed,
        })
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        if LockConflict::of(error).is_some() {
            return Some(Self::Busy);
        }
        Some(match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_at_the_bottom_decides() {
        let io = |code| Error::io(rimg::op::OPEN, 0)(io::Error::from_raw_os_error(code));
        assert_eq!(Class::of(&io(2)), Class::NotFound);
        assert_eq!(Class::of(&io(13)), Class::Denied);
        assert_eq!(Class::of(&io(28)), Class::NoSpace);
        assert_eq!(Class::of(&io(5)), Class::Io);
        let below = Error::Dependency {
            role: rimg_core::DependencyRole::Backing,
            name: "base".to_owned(),
            source: Box::new(io(2)),
        };
        assert_eq!(Class::of(&below), Class::NotFound);
        assert_eq!(Class::of(&Error::Misuse("x")), Class::Failed);
    }

    #[test]
    fn names_and_codes_differ() {
        for one in Class::ALL {
            let same = Class::ALL.iter().filter(|other| other.name() == one.name()).count();
            let code = Class::ALL.iter().filter(|other| other.exit() == one.exit()).count();
            assert_eq!((same, code), (1, 1), "{one:?}");
        }
    }
}
