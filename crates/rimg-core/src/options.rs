//! Creation options: one table per format, from which parsing, help, `amend` and documentation
//! come. Run-time options, and the secrets that either name.

use crate::Secret;

/// One creation option of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name as in `-o name=value`.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: OptionKind,
    /// A line of help.
    pub help: &'static str,
    /// The value it has when none is given, as it would be written; `None` when it is then absent.
    pub default: Option<&'static str>,
}

/// What the value of an option looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// `on` or `off`.
    Bool,
    /// A number.
    Number,
    /// A number of bytes with an optional suffix.
    Size,
}

/// Options as the user gave them: names and values, not yet looked at.
///
/// Sizes have been brought to plain decimal bytes and truth values to `on` and `off`; of a name
/// given twice the last counts. Values do not hold secrets but name them, as
/// `encrypt.key-secret=ID` does; those that are named travel along.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawOptions {
    entries: Vec<(String, String)>,
    secrets: Vec<(String, Secret)>,
}

impl RawOptions {
    /// None, for where they are borrowed.
    pub const NONE: &'static Self = &Self::new();

    /// No options.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), secrets: Vec::new() }
    }

    /// Sets `name` to `value`, replacing an earlier value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.entries.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.entries.push((name, value)),
        }
    }

    /// As [`set`](Self::set), for building in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Takes `name` away.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|(known, _)| known != name);
    }

    /// The value of `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Adds the secret that options may name `id`, replacing an earlier one.
    pub fn add_secret(&mut self, id: impl Into<String>, secret: Secret) {
        let id = id.into();
        self.secrets.retain(|(known, _)| *known != id);
        self.secrets.push((id, secret));
    }

    /// As [`add_secret`](Self::add_secret), for building in one expression.
    #[must_use]
    pub fn with_secret(mut self, id: impl Into<String>, secret: Secret) -> Self {
        self.add_secret(id, secret);
        self
    }

    /// The secret with this name.
    #[must_use]
    pub fn secret(&self, id: &str) -> Option<&Secret> {
        self.secrets.iter().find(|(known, _)| known == id).map(|(_, secret)| secret)
    }

    /// Takes over the options and secrets of `other`.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.entries {
            self.set(name.as_str(), value.as_str());
        }
        self.add_secrets_of(other);
    }

    /// Takes over the secrets of `other` alone.
    pub fn add_secrets_of(&mut self, other: &Self) {
        for (id, secret) in &other.secrets {
            self.add_secret(id.as_str(), secret.clone());
        }
    }

    /// Those whose names start with `prefix`, without it, and those whose names do not; both with
    /// all secrets.
    #[must_use]
    pub fn split_prefix(&self, prefix: &str) -> (Self, Self) {
        let (mut with, mut without) = (Self::new(), Self::new());
        for (name, value) in &self.entries {
            match name.strip_prefix(prefix) {
                Some(rest) => with.set(rest, value.as_str()),
                None => without.set(name.as_str(), value.as_str()),
            }
        }
        with.secrets.clone_from(&self.secrets);
        without.secrets.clone_from(&self.secrets);
        (with, without)
    }

    /// All names and values, in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts() {
        let options = RawOptions::new().with("a", "1").with("b", "2").with("a", "3");
        assert_eq!(options.value("a"), Some("3"));
        assert_eq!(options.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!(options.value("c"), None);
    }

    #[test]
    fn secrets_are_found_but_not_shown() {
        let options =
            RawOptions::new().with_secret("s", "old".into()).with_secret("s", "hush".into());
        assert_eq!(options.secret("s").map(Secret::expose), Some(&b"hush"[..]));
        assert_eq!(options.secret("t"), None);
        let shown = format!("{options:?}");
        assert!(!shown.contains("hush") && shown.contains("4 bytes"), "{shown}");
    }
}
