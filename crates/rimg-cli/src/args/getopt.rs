//! A parser that treats a command line as GNU `getopt_long` does.
//!
//! Long names may be abbreviated as long as they stay unambiguous, letters may be run together,
//! values may be attached or follow, operands may stand between flags and `--` ends the flags.
//! The messages are getopt's own, since scripts and tests compare them.

use crate::args::Flag;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

/// Whether operands may stand between flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first operand ends the flags.
    FlagsFirst,
    /// Flags are looked for behind operands too.
    Permute,
    /// As `Permute`, but what looks like a negative number right behind the first operand is one.
    PermuteBeforeNumber,
}

/// A command line that is being taken apart. `K` is how a command tells its flags apart.
#[derive(Debug)]
pub(crate) struct Getopt<'t, K> {
    table: &'t [(K, Flag)],
    order: Order,
    rest: VecDeque<OsString>,
    /// Letters of a run (`-qf`) that are not looked at yet.
    letters: Option<OsString>,
    operands: Vec<OsString>,
}

/// What is wrong with a command line, in getopt's words and without a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageError(pub(crate) String);

impl<'t, K: Copy + PartialEq> Getopt<'t, K> {
    /// Takes `args`, without program and command name, apart by `table`.
    pub(crate) fn new(
        table: &'t [(K, Flag)],
        order: Order,
        args: impl IntoIterator<Item = OsString>,
    ) -> Self {
        let posix = std::env::var_os("POSIXLY_CORRECT").is_some();
        let order = if posix { Order::FlagsFirst } else { order };
        Self { table, order, rest: args.into_iter().collect(), letters: None, operands: Vec::new() }
    }

    /// The next flag and its value; `None` when only operands are left.
    pub(crate) fn next_flag(&mut self) -> Result<Option<(K, Option<OsString>)>, UsageError> {
        if let Some(letters) = self.letters.take() {
            return self.letter(&letters).map(Some);
        }
        let mut behind = false;
        while let Some(arg) = self.rest.pop_front() {
            let bytes = arg.as_encoded_bytes();
            if bytes == b"--" {
                break;
            } else if bytes.starts_with(b"--") {
                return self.long(&split_at(&arg, 2).1).map(Some);
            } else if bytes.len() > 1 && bytes.starts_with(b"-") && !self.is_number(bytes, behind) {
                return self.letter(&split_at(&arg, 1).1).map(Some);
            } else if self.order == Order::FlagsFirst {
                self.rest.push_front(arg);
                break;
            }
            self.operands.push(arg);
            behind = true;
        }
        Ok(None)
    }

    /// Whether a word with a dash is an operand where it stands, `behind` another one.
    fn is_number(&self, word: &[u8], behind: bool) -> bool {
        self.order == Order::PermuteBeforeNumber
            && behind
            && self.operands.len() == 1
            && word.get(1).is_some_and(u8::is_ascii_digit)
    }

    /// What is no flag, in order. To be called when there are no more flags.
    pub(crate) fn into_operands(mut self) -> Vec<OsString> {
        self.operands.extend(self.rest);
        self.operands
    }

    fn letter(&mut self, letters: &OsStr) -> Result<(K, Option<OsString>), UsageError> {
        let letter = letters.as_encoded_bytes().first().copied().unwrap_or_default();
        let tail = split_at(letters, 1).1;
        let found = self.table.iter().find(|(_, flag)| flag.short == Some(letter));
        let Some((key, flag)) = found else {
            return Err(UsageError(format!("invalid option -- '{}'", char::from(letter))));
        };
        if flag.value.is_none() {
            if !tail.is_empty() {
                self.letters = Some(tail);
            }
            return Ok((*key, None));
        }
        if !tail.is_empty() {
            return Ok((*key, Some(tail)));
        }
        match self.rest.pop_front() {
            Some(value) => Ok((*key, Some(value))),
            None => {
                let letter = char::from(letter);
                Err(UsageError(format!("option requires an argument -- '{letter}'")))
            }
        }
    }

    fn long(&mut self, arg: &OsStr) -> Result<(K, Option<OsString>), UsageError> {
        let bytes = arg.as_encoded_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (split_at(arg, at).0, Some(split_at(arg, at.saturating_add(1)).1)),
            None => (arg.to_owned(), None),
        };
        let shown = arg.to_string_lossy();
        let (key, flag, full) = self.resolve(&name.to_string_lossy(), &shown)?;
        match (flag.value, value) {
            (None, Some(_)) => {
                Err(UsageError(format!("option '--{full}' doesn't allow an argument")))
            }
            (None, None) => Ok((key, None)),
            (Some(_), Some(value)) => Ok((key, Some(value))),
            (Some(_), None) => match self.rest.pop_front() {
                Some(value) => Ok((key, Some(value))),
                None => Err(UsageError(format!("option '--{full}' requires an argument"))),
            },
        }
    }

    /// Finds a flag by its long name or the start of it.
    fn resolve(&self, name: &str, shown: &str) -> Result<(K, Flag, &'static str), UsageError> {
        let names = || {
            self.table
                .iter()
                .flat_map(|(key, flag)| flag.long.iter().map(move |long| (*key, *flag, *long)))
        };
        if let Some(exact) = names().find(|(_, _, long)| *long == name) {
            return Ok(exact);
        }
        let fitting = names().filter(|(_, flag, long)| !flag.own && long.starts_with(name));
        let fitting: Vec<_> = fitting.collect();
        match fitting.as_slice() {
            [] => Err(UsageError(format!("unrecognized option '--{shown}'"))),
            [first, others @ ..] if others.iter().all(|other| other.0 == first.0) => Ok(*first),
            several => {
                let mut text = format!("option '--{shown}' is ambiguous; possibilities:");
                for (_, _, long) in several {
                    text.push_str(&format!(" '--{long}'"));
                }
                Err(UsageError(text))
            }
        }
    }
}

/// Both parts of `text` around the byte `at`.
#[cfg(unix)]
fn split_at(text: &OsStr, at: usize) -> (OsString, OsString) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = text.as_bytes();
    let (head, tail) = bytes.split_at(at.min(bytes.len()));
    (OsStr::from_bytes(head).to_owned(), OsStr::from_bytes(tail).to_owned())
}

/// Both parts of `text` around the byte `at`.
#[cfg(not(unix))]
fn split_at(text: &OsStr, at: usize) -> (OsString, OsString) {
    let text = text.to_string_lossy();
    let (head, tail) = text.split_at_checked(at).unwrap_or((text.as_ref(), ""));
    (head.into(), tail.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Key {
        Quiet,
        Format,
        ForceShare,
        Output,
        Own,
    }

    const TABLE: &[(Key, Flag)] = &[
        (Key::Quiet, Flag::new(&["quiet"], "").short(b'q')),
        (Key::Format, Flag::new(&["format", "form-alias"], "").short(b'f').value("FMT")),
        (Key::ForceShare, Flag::new(&["force-share"], "").short(b'U')),
        (Key::Output, Flag::new(&["output"], "").value("KIND")),
        (Key::Own, Flag::new(&["formatted", "quietly"], "").own()),
    ];

    type Flags = Vec<(Key, Option<String>)>;

    fn parse(order: Order, args: &[&str]) -> Result<(Flags, Vec<String>), String> {
        let mut getopt = Getopt::new(TABLE, order, args.iter().map(OsString::from));
        let mut flags = Vec::new();
        while let Some((key, value)) = getopt.next_flag().map_err(|error| error.0)? {
            flags.push((key, value.map(|value| value.into_string().unwrap())));
        }
        let operands = getopt.into_operands().into_iter();
        Ok((flags, operands.map(|operand| operand.into_string().unwrap()).collect()))
    }

    fn permuted(args: &[&str]) -> Result<(Flags, Vec<String>), String> {
        parse(Order::Permute, args)
    }

    #[test]
    fn values_may_be_attached_or_follow() {
        let raw = || Some("raw".to_owned());
        for args in [
            &["-f", "raw"][..],
            &["-fraw"],
            &["--format", "raw"],
            &["--format=raw"],
            &["--form", "raw"],
            &["--form-a=raw"],
        ] {
            assert_eq!(permuted(args), Ok((vec![(Key::Format, raw())], vec![])), "{args:?}");
        }
        let run = permuted(&["-qUfraw"]).unwrap().0;
        assert_eq!(run, [(Key::Quiet, None), (Key::ForceShare, None), (Key::Format, raw())]);
    }

    #[test]
    fn flags_that_qemu_img_has_not_are_never_abbreviated() {
        assert_eq!(permuted(&["--quietly"]).unwrap().0, [(Key::Own, None)]);
        assert_eq!(permuted(&["--qui"]).unwrap().0, [(Key::Quiet, None)]);
        assert_eq!(permuted(&["--quietl"]), Err("unrecognized option '--quietl'".to_owned()));
    }

    #[test]
    fn operands_are_permuted_until_two_dashes() {
        let (flags, operands) = permuted(&["a", "-q", "-", "--", "-f", "--"]).unwrap();
        assert_eq!(flags, [(Key::Quiet, None)]);
        assert_eq!(operands, ["a", "-", "-f", "--"]);
        let (flags, operands) = parse(Order::FlagsFirst, &["-q", "a", "-q"]).unwrap();
        assert_eq!(flags, [(Key::Quiet, None)]);
        assert_eq!(operands, ["a", "-q"]);
    }

    #[test]
    fn a_negative_number_behind_the_first_operand_is_no_flag() {
        let parse = |args: &[&str]| parse(Order::PermuteBeforeNumber, args);
        let operands = |args| parse(args).map(|(_, operands)| operands);
        let both = || Ok(vec!["a".to_owned(), "-1k".to_owned()]);
        assert_eq!(operands(&["a", "-1k"]), both());
        assert_eq!(operands(&["-q", "a", "-1k", "-q"]), both());
        assert_eq!(operands(&["a", "--", "-1k"]), both());
        let refused = |letter: char| Err(format!("invalid option -- '{letter}'"));
        assert_eq!(operands(&["a", "-q", "-1k"]), refused('1'));
        assert_eq!(operands(&["-1k", "a"]), refused('1'));
        assert_eq!(operands(&["a", "-.5k"]), refused('.'));
    }

    #[test]
    fn messages_are_those_of_getopt() {
        for (args, message) in [
            (&["--x=1"][..], "unrecognized option '--x=1'"),
            (&["-z"], "invalid option -- 'z'"),
            (&["-qz"], "invalid option -- 'z'"),
            (&["-q="], "invalid option -- '='"),
            (&["-f"], "option requires an argument -- 'f'"),
            (&["--out"], "option '--output' requires an argument"),
            (&["--quiet=1"], "option '--quiet' doesn't allow an argument"),
            (
                &["--fo=1"],
                "option '--fo=1' is ambiguous; possibilities: '--format' '--form-alias' \
                 '--force-share'",
            ),
        ] {
            assert_eq!(permuted(args), Err(message.to_owned()), "{args:?}");
        }
    }
}
