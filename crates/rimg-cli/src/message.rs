//! How a command ends before its time, and what is then said.

use crate::class::Class;
use crate::damage;
use rimg_core::{Error, op};
use std::fmt::Write as _;
use std::io;

/// The exit code after an interruption: what shells report of a program that SIGINT ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command stops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Help was asked for.
    Help,
    /// The command line is malformed: getopt's message, and where to find help.
    Usage(String),
    /// The command line makes no sense: a message, and where to find help.
    Advice(String),
    /// The work cannot be done.
    Failed {
        /// Why, without the program's name.
        message: String,
        /// The exit code.
        exit: u8,
        /// What kind of an error it is.
        class: Class,
        /// The image that this is about, for those to whom it is said: qemu-img does not always.
        file: Option<String>,
    },
    /// Standard output does not take what is printed.
    Output(io::Error),
}

impl Stop {
    /// The work cannot be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), exit: 1, class: Class::Failed, file: None }
    }

    /// The same with a further line.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        match self {
            Self::Failed { message, exit, class, file } => {
                Self::Failed { message: format!("{message}\n{hint}"), exit, class, file }
            }
            other => other,
        }
    }

    /// The same with another exit code.
    pub(crate) fn with_exit(self, exit: u8) -> Self {
        match self {
            Self::Failed { message, class, file, .. } => {
                Self::Failed { message, exit, class, file }
            }
            other => other,
        }
    }

    /// The same of a known kind.
    pub(crate) fn of(self, class: Class) -> Self {
        match self {
            Self::Failed { message, exit, file, .. } => Self::Failed { message, exit, class, file },
            other => other,
        }
    }

    /// The same about the image `name`.
    pub(crate) fn in_image(self, name: &str) -> Self {
        match self {
            Self::Failed { message, exit, class, file: None } => {
                Self::Failed { message, exit, class, file: Some(name.to_owned()) }
            }
            other => other,
        }
    }

    /// The same in one's own words, where qemu-img's do not tell which image it is about.
    pub(crate) fn with_name(self) -> Self {
        match self {
            Self::Failed { message, exit, class, file: Some(name) }
                if !message.lines().next().is_some_and(|first| mentions(first, &name)) =>
            {
                let message = format!("{name}: {message}");
                Self::Failed { message, exit, class, file: None }
            }
            other => other,
        }
    }

    /// The work was interrupted.
    pub(crate) fn interrupted() -> Self {
        Self::failed("interrupted").with_exit(INTERRUPTED).of(Class::Interrupted)
    }

    /// The work cannot be done because of `error`, which is said with its causes.
    pub(crate) fn caused_by(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::failed(chain(error)).of(Class::of(error))
    }

    /// The work cannot be done because of `error`, in the words that people know.
    pub(crate) fn described(error: &Error) -> Self {
        Self::failed(describe(error)).of(Class::of(error))
    }
}

impl From<crate::args::UsageError> for Stop {
    fn from(error: crate::args::UsageError) -> Self {
        Self::Usage(error.0)
    }
}

/// What is wrong, in the words that people know from qemu-img where it has words for it.
pub(crate) fn describe(error: &Error) -> String {
    if let Some(words) = damage::words(error) {
        return words;
    }
    match error {
        Error::Io { op: op::READ_REFCOUNT_TABLE, source, .. } => {
            format!("Could not initialize refcount handling: {}", describe_io(source))
        }
        Error::Io { op: op::READ_QCOW2_HEADER, source, .. } => {
            format!("Could not read qcow2 header: {}", describe_io(source))
        }
        Error::Io { op: op::READ_LUKS_HEADER, source, .. } => {
            format!("Could not read encryption header: {}", describe_io(source))
        }
        Error::Io { op: op::RESERVE_SPACE, source, .. } => {
            format!("Could not preallocate new data: {}", describe_io(source))
        }
        Error::Io { op: op::WRITE_RESERVED_ZEROES, source, .. } => {
            format!("Could not write zeros for preallocation: {}", describe_io(source))
        }
        Error::Io { op, at, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
            format!("Cannot {op} at {at:#x}: the file ends before")
        }
        Error::Io { source, .. } => describe_io(source),
        Error::WrongFormat { format } => format!("Image is not in {format} format"),
        Error::InvalidOption { reason, .. } => reason.clone(),
        Error::Denied(reason) => reason.clone(),
        Error::Unsupported { format, feature } if feature.starts_with("version ") => {
            format!("Unsupported {format} {feature}")
        }
        Error::Unsupported { format, feature } => {
            format!("Unsupported {format} feature(s): {feature}")
        }
        other => capitalised(&chain(other)),
    }
}

/// The system's words for an I/O error, without Rust's error number behind them.
pub(crate) fn describe_io(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) if error.raw_os_error().is_some() => words.to_owned(),
        _ => text,
    }
}

/// Whether `name` stands in a message, and not as a part of a word or of a longer path.
fn mentions(message: &str, name: &str) -> bool {
    let is_inner = |c: char| c.is_alphanumeric() || c == '/';
    message.match_indices(name).any(|(at, name)| {
        let before = message.get(..at).unwrap_or_default();
        let behind = message.get(at.saturating_add(name.len())..).unwrap_or_default();
        !before.ends_with(is_inner) && !behind.starts_with(is_inner)
    })
}

/// An error and its causes, the outermost first. What a format was about to do when the system
/// refused something is left out, as qemu-img leaves it out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        next = cause.source();
        if matches!(cause.downcast_ref(), Some(Error::Io { .. })) {
            continue;
        }
        let cause_text = match cause.downcast_ref::<io::Error>() {
            Some(io_error) => describe_io(io_error),
            None => cause.to_string(),
        };
        let _ = write!(text, ": {cause_text}");
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_found_within_words() {
        assert!(mentions("Could not open 'a': busy", "a"));
        assert!(mentions("a: busy", "a"));
        assert!(!mentions("error while writing at byte 0", "a"));
        assert!(!mentions("Could not open 'b/a'", "a"));
    }

    #[test]
    fn io_errors_read_as_the_system_words_them() {
        let missing = io::Error::from_raw_os_error(2);
        let error = Error::Io { op: op::OPEN, at: 0, source: missing };
        assert_eq!(describe(&error), "No such file or directory");
    }

    #[test]
    fn what_a_file_ends_within_is_named() {
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        let error = Error::Io { op: "read snapshot table", at: 0x50000, source };
        assert_eq!(describe(&error), "Cannot read snapshot table at 0x50000: the file ends before");
    }

    #[test]
    fn other_errors_show_their_causes() {
        let error = Error::Dependency {
            role: rimg_core::DependencyRole::Backing,
            name: "base".to_owned(),
            source: Box::new(Error::Denied("policy".to_owned())),
        };
        assert!(describe(&error).ends_with("'base': policy"), "{}", describe(&error));
        assert!(describe(&error).starts_with('C'));
    }
}
