//! Flags that stand before a command or behind it, whatever the command.

use crate::args::Flag;
use std::ffi::OsString;

/// What they are called. Behind a command their value has to be attached, since commands may have
/// a flag of the same name without a value.
pub(crate) const SHARED: [&str; 2] = ["errors", "progress"];

/// A shared flag by its name, and its value.
pub(crate) type Shared = (&'static str, OsString);

/// Takes the shared flags out of the words behind a command that has `flags`.
pub(crate) fn take_shared(flags: &[Flag], words: Vec<OsString>) -> (Vec<OsString>, Vec<Shared>) {
    let (mut rest, mut shared) = (Vec::with_capacity(words.len()), Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word);
            break;
        }
        let text = word.to_string_lossy();
        let known = SHARED.iter().find_map(|name| {
            let value = text.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')?;
            Some((*name, OsString::from(value)))
        });
        if let Some(found) = known {
            shared.push(found);
            continue;
        }
        let takes_next = takes_next(flags, &text);
        rest.push(word);
        if takes_next {
            rest.extend(words.next());
        }
    }
    rest.extend(words);
    (rest, shared)
}

/// Whether the word behind `word` is its value.
fn takes_next(flags: &[Flag], word: &str) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        let names = |flag: &Flag| flag.long.iter().any(|name| name.starts_with(long));
        let exact = flags.iter().find(|flag| flag.long.contains(&long));
        let flag = exact.or_else(|| flags.iter().find(|flag| !flag.own && names(flag)));
        return flag.is_some_and(|flag| flag.value.is_some());
    }
    let Some(letters) = word.strip_prefix('-') else { return false };
    for (index, letter) in letters.bytes().enumerate() {
        match flags.iter().find(|flag| flag.short == Some(letter)) {
            Some(flag) if flag.value.is_some() => return index.saturating_add(1) == letters.len(),
            Some(_) => {}
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(words: &[&str]) -> (Vec<OsString>, Vec<Shared>) {
        let flags = [
            Flag::new(&["progress"], "").short(b'p'),
            Flag::new(&["options"], "").short(b'o').value("X"),
        ];
        take_shared(&flags, words.iter().map(OsString::from).collect())
    }

    #[test]
    fn only_flags_with_their_value_are_taken() {
        let (rest, shared) = taken(&["a", "--progress=json", "-p", "--errors=json", "--progress"]);
        assert_eq!(rest, ["a", "-p", "--progress"]);
        assert_eq!(shared, [("progress", "json".into()), ("errors", "json".into())]);
    }

    #[test]
    fn values_of_other_flags_and_operands_stay() {
        for words in [
            &["-o", "--errors=json"][..],
            &["-po", "--errors=json"],
            &["--opt", "--errors=json"],
            &["--", "--errors=json"],
            &["--errors", "json"],
        ] {
            let (rest, shared) = taken(words);
            assert_eq!(
                (rest.as_slice(), shared.len()),
                (words.iter().map(OsString::from).collect::<Vec<_>>().as_slice(), 0)
            );
        }
        let (rest, shared) = taken(&["-oX", "--errors=json", "--options=x", "--errors=human"]);
        assert_eq!((rest.len(), shared.len()), (2, 2));
    }
}
