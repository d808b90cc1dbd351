//! The JSON objects of `json:` names, flattened: `{"file":{"filename":"a"}}` says the same as
//! `file.filename=a`.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::iter::Peekable;
use std::str::Chars;

/// How many objects may lie in each other. Nobody needs more than a few.
const MAX_DEPTH: usize = 32;

/// Why a text is no such object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadError(pub(crate) String);

/// A value that is neither an object nor a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// A string.
    Text(String),
    /// A number, as it was written.
    Number(String),
    /// `true` or `false`.
    Bool(bool),
    /// `null`
    Null,
}

impl Scalar {
    /// The value as it stands in a list of options; `null` stands in none.
    pub(crate) fn option(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::Bool(true) => "on",
            Self::Bool(false) => "off",
            Self::Null => "",
        }
    }
}

/// Reads an object into names and values, in order. Numbers and truth values become text
/// (`on` and `off`); `null` is refused. Strings may stand between single quotes, as QEMU reads
/// them: an object is typed into a shell more often than not.
pub(crate) fn read_options(text: &str) -> Result<Vec<(String, String)>, ReadError> {
    let named = |(name, value): (String, Scalar)| match value {
        Scalar::Null => Err(unexpected(Some('n'))),
        other => Ok((name, other.option().to_owned())),
    };
    read_scalars(text)?.into_iter().map(named).collect()
}

/// Reads an object into names and values, in order. Members of lists are named by their place.
pub(crate) fn read_scalars(text: &str) -> Result<Vec<(String, Scalar)>, ReadError> {
    let mut reader = Reader { letters: text.chars().peekable(), options: Vec::new() };
    reader.skip_space();
    reader.object("", 0)?;
    reader.skip_space();
    match reader.letters.next() {
        None => Ok(reader.options),
        Some(letter) => Err(unexpected(Some(letter))),
    }
}

struct Reader<'t> {
    letters: Peekable<Chars<'t>>,
    options: Vec<(String, Scalar)>,
}

impl Reader<'_> {
    /// Reads an object; all names in it start with `prefix`.
    fn object(&mut self, prefix: &str, depth: usize) -> Result<(), ReadError> {
        if depth > MAX_DEPTH {
            return Err(ReadError("nesting is too deep".to_owned()));
        }
        self.expect('{')?;
        self.skip_space();
        if self.letters.next_if_eq(&'}').is_some() {
            return Ok(());
        }
        loop {
            self.skip_space();
            let name = format!("{prefix}{}", self.string()?);
            self.skip_space();
            self.expect(':')?;
            self.skip_space();
            self.value(name, depth)?;
            self.skip_space();
            match self.letters.next() {
                Some(',') => {}
                Some('}') => return Ok(()),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Reads a list, whose members are called `name.0`, `name.1` and so on.
    fn list(&mut self, name: &str, depth: usize) -> Result<(), ReadError> {
        if depth > MAX_DEPTH {
            return Err(ReadError("nesting is too deep".to_owned()));
        }
        self.expect('[')?;
        self.skip_space();
        if self.letters.next_if_eq(&']').is_some() {
            return Ok(());
        }
        for index in 0_usize.. {
            self.skip_space();
            self.value(format!("{name}.{index}"), depth)?;
            self.skip_space();
            match self.letters.next() {
                Some(',') => {}
                Some(']') => return Ok(()),
                other => return Err(unexpected(other)),
            }
        }
        Ok(())
    }

    fn value(&mut self, name: String, depth: usize) -> Result<(), ReadError> {
        let value = match self.letters.peek() {
            Some('{') => return self.object(&format!("{name}."), depth.saturating_add(1)),
            Some('[') => return self.list(&name, depth.saturating_add(1)),
            Some('"' | '\'') => Scalar::Text(self.string()?),
            Some(letter) if letter.is_ascii_alphanumeric() || *letter == '-' => self.word()?,
            other => return Err(unexpected(other.copied())),
        };
        self.options.push((name, value));
        Ok(())
    }

    /// A number or a truth value.
    fn word(&mut self) -> Result<Scalar, ReadError> {
        let mut word = String::new();
        let fits = |letter: &char| letter.is_ascii_alphanumeric() || "+-.".contains(*letter);
        while let Some(letter) = self.letters.next_if(fits) {
            word.push(letter);
        }
        match word.as_str() {
            "true" => Ok(Scalar::Bool(true)),
            "false" => Ok(Scalar::Bool(false)),
            "null" => Ok(Scalar::Null),
            number if number.parse::<f64>().is_ok_and(f64::is_finite) => Ok(Scalar::Number(word)),
            _ => Err(ReadError(format!("invalid keyword '{word}'"))),
        }
    }

    fn string(&mut self) -> Result<String, ReadError> {
        let quote = match self.letters.next() {
            Some(quote @ ('"' | '\'')) => quote,
            other => return Err(unexpected(other)),
        };
        let mut string = String::new();
        loop {
            match self.letters.next() {
                Some(letter) if letter == quote => return Ok(string),
                Some('\\') => string.push(self.escaped()?),
                Some(letter) if letter >= ' ' => string.push(letter),
                other => return Err(unexpected(other)),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, ReadError> {
        match self.letters.next() {
            Some(letter @ ('"' | '\'' | '\\' | '/')) => Ok(letter),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => self.utf16(),
            other => Err(unexpected(other)),
        }
    }

    /// One or two units of UTF-16, the first `\u` being read.
    fn utf16(&mut self) -> Result<char, ReadError> {
        let first = self.unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) {
            self.expect('\\')?;
            self.expect('u')?;
            units.push(self.unit()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(letter)) => Ok(letter),
            _ => Err(ReadError("half of a surrogate pair".to_owned())),
        }
    }

    fn unit(&mut self) -> Result<u16, ReadError> {
        let digits: String = self.letters.by_ref().take(4).collect();
        let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
        unit.ok_or_else(|| ReadError(format!("invalid escape '\\u{digits}'")))
    }

    fn expect(&mut self, wanted: char) -> Result<(), ReadError> {
        match self.letters.next() {
            Some(letter) if letter == wanted => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn skip_space(&mut self) {
        while self.letters.next_if(|letter| " \t\r\n".contains(*letter)).is_some() {}
    }
}

fn unexpected(letter: Option<char>) -> ReadError {
    ReadError(match letter {
        Some(letter) => format!("unexpected '{letter}'"),
        None => "unexpected end".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        read_options(text).unwrap()
    }

    #[test]
    fn objects_are_flattened() {
        let options = read(
            r#" { "driver" : "qcow2", "file": {"driver":"file","filename":"a\u00fc\ud83d\ude00"},
                  "force-share": true, "offset": 512, "x": {}, "y": ["a", {"b": 1}], "z": [] } "#,
        );
        let expected = [
            ("driver", "qcow2"),
            ("file.driver", "file"),
            ("file.filename", "aü😀"),
            ("force-share", "on"),
            ("offset", "512"),
            ("y.0", "a"),
            ("y.1.b", "1"),
        ];
        let options: Vec<(&str, &str)> =
            options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(options, expected);
    }

    #[test]
    fn either_quote_will_do() {
        let options = read(r#"{'a': 'x"y', "b": "x'y", 'c\'': "\'\""}"#);
        let expected = [("a", "x\"y"), ("b", "x'y"), ("c'", "'\"")];
        assert_eq!(options, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            "x",
            "{",
            "{}x",
            "[]",
            "\"a\"",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":null}",
            "{\"a\":1,}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\n\"}",
            "{a:1}",
            "{\"a\":inf}",
            "{\"a\":\"b",
            "{'a\":1}",
            "{\"a\":'b\"}",
        ] {
            assert!(read_options(text).is_err(), "{text}");
        }
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert_eq!(read_options(&deep), Err(ReadError("nesting is too deep".to_owned())));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read_options(&deep), Err(ReadError("nesting is too deep".to_owned())));
    }
}
