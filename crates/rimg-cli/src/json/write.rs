//! JSON in the form that qemu-img prints: four spaces, a member on each line, no sorting.

use rimg_core::InfoValue;
use std::fmt::Write as _;

/// A value on as many lines as it has members, with a line end.
pub(crate) fn pretty(value: &InfoValue) -> String {
    let mut text = String::new();
    write_value(&mut text, value, 0);
    text.push('\n');
    text
}

/// A string in quotes.
pub(crate) fn quoted(string: &str) -> String {
    let mut text = String::new();
    write_string(&mut text, string);
    text
}

fn write_value(text: &mut String, value: &InfoValue, depth: usize) {
    match value {
        InfoValue::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        InfoValue::Number(number) => {
            let _ = write!(text, "{number}");
        }
        InfoValue::Text(string) => write_string(text, string),
        InfoValue::List(values) => {
            let members = values.iter().map(|value| (None, value));
            write_members(text, ('[', ']'), members, depth);
        }
        InfoValue::Map(values) => {
            let members = values.iter().map(|(name, value)| (Some(*name), value));
            write_members(text, ('{', '}'), members, depth);
        }
    }
}

fn write_members<'v>(
    text: &mut String,
    (open, close): (char, char),
    members: impl Iterator<Item = (Option<&'v str>, &'v InfoValue)>,
    depth: usize,
) {
    let inner = depth.saturating_add(1);
    text.push(open);
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            text.push(',');
        }
        new_line(text, inner);
        if let Some(name) = name {
            write_string(text, name);
            text.push_str(": ");
        }
        write_value(text, value, inner);
    }
    new_line(text, depth);
    text.push(close);
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    for _ in 0..depth {
        text.push_str("    ");
    }
}

/// Quotes a string; what is no printable ASCII is escaped, as UTF-16 where need be.
fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for letter in string.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            ' '..='~' => text.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04X}");
                }
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_on_lines_of_their_own() {
        let value = InfoValue::Map(vec![
            ("a", InfoValue::List(vec![])),
            ("b", InfoValue::Map(vec![("c", InfoValue::Bool(true))])),
            ("d", InfoValue::List(vec![InfoValue::Number(1), InfoValue::Number(2)])),
        ]);
        let text = "{\n    \"a\": [\n    ],\n    \"b\": {\n        \"c\": true\n    },\n    \
                    \"d\": [\n        1,\n        2\n    ]\n}\n";
        assert_eq!(pretty(&value), text);
    }

    #[test]
    fn strings_are_escaped_to_ascii() {
        let mut text = String::new();
        write_string(&mut text, "fü\"\\\tx€😀\u{1}");
        assert_eq!(text, r#""f\u00FC\"\\\tx\u20AC\uD83D\uDE00\u0001""#);
    }
}
