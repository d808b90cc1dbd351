//! As much of XML as a descriptor needs: elements with text. Attributes, comments and processing
//! instructions are skipped; there are no entities of one's own, so nothing can expand.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use rimg_core::Result;

/// Elements in elements in elements: descriptors need five.
const MAX_DEPTH: usize = 16;

/// An element, the text directly in it without the space around, and the elements in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The one element of a document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let text = str::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
        let mut open: Vec<Self> = Vec::new();
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        loop {
            let (before, tag) = rest.split_once('<').ok_or_else(|| wrong("it ends too early"))?;
            match open.last_mut() {
                Some(element) => element.text.push_str(&unescaped(before)?),
                None if before.trim().is_empty() => {}
                None => return Err(wrong("text outside of elements")),
            }
            if let Some(comment) = tag.strip_prefix("!--") {
                rest = behind(comment, "-->")?;
                continue;
            }
            if tag.starts_with(['?', '!']) {
                rest = behind(tag, ">")?;
                continue;
            }
            let end = tag_end(tag).ok_or_else(|| wrong("a tag does not end"))?;
            let (inside, behind) = tag.split_at_checked(end).unwrap_or((tag, ""));
            rest = behind.strip_prefix('>').unwrap_or(behind);
            let (inside, is_empty) = match inside.strip_suffix('/') {
                Some(inside) => (inside, true),
                None => (inside, false),
            };
            let closed = if let Some(name) = inside.strip_prefix('/') {
                let element = open.pop().filter(|element| element.name == name.trim());
                Some(element.ok_or_else(|| wrong("tags do not match"))?)
            } else {
                let name = inside.split_ascii_whitespace().next().unwrap_or_default().to_owned();
                let element = Self { name, ..Self::default() };
                if open.len() >= MAX_DEPTH {
                    return Err(wrong("too many elements in each other"));
                }
                if is_empty {
                    Some(element)
                } else {
                    open.push(element);
                    None
                }
            };
            let Some(mut element) = closed else { continue };
            element.text = element.text.trim().to_owned();
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => return Ok(element),
            }
        }
    }

    pub(super) fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Where a tag ends: at the first `>` that is not in the value of an attribute.
fn tag_end(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in tag.char_indices() {
        match (quote, letter) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn behind<'a>(text: &'a str, end: &str) -> Result<&'a str> {
    text.split_once(end).map(|(_, rest)| rest).ok_or_else(|| wrong("it ends too early"))
}

fn unescaped(text: &str) -> Result<String> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        let (name, behind) = entity.split_once(';').ok_or_else(|| wrong("an unknown entity"))?;
        plain.push_str(before);
        plain.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "apos" => '\'',
            "quot" => '"',
            _ => return Err(wrong("an unknown entity")),
        });
        rest = behind;
    }
    plain.push_str(rest);
    Ok(plain)
}

fn wrong(what: &'static str) -> rimg_core::Error {
    CorruptKind::Xml(what).at("DiskDescriptor.xml", "text", 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn elements_nest() {
        let text = "\u{feff}<?xml version='1.0'?>\n<!-- <x> -->\
                    <a b='>'> 1 &lt;<c/><d>&amp; </d>2<d x=\"y\"/></a>";
        let root = Element::parse(text.as_bytes()).unwrap();
        assert_eq!((&root.name[..], &root.text[..]), ("a", "1 <2"));
        let names: Vec<_> = root.children.iter().map(|child| &child.name[..]).collect();
        assert_eq!(names, ["c", "d", "d"]);
        assert_eq!(root.children_named("d").next().unwrap().text, "&");
    }

    #[test]
    fn what_is_not_well_formed_is_named() {
        let deep = "<a>".repeat(20);
        for (text, expected) in [
            ("", "it ends too early"),
            ("x<a/>", "text outside of elements"),
            ("<a>", "it ends too early"),
            ("<a></b>", "tags do not match"),
            ("</a>", "tags do not match"),
            ("<a b='>", "a tag does not end"),
            ("<a>&x;</a>", "an unknown entity"),
            ("<a>&lt</a>", "an unknown entity"),
            ("<!-- ->", "it ends too early"),
            (&deep, "too many elements in each other"),
        ] {
            let error = Element::parse(text.as_bytes()).unwrap_err();
            assert_eq!(kind_of(&error), Some(&CorruptKind::Xml(expected)), "{text}");
        }
        assert!(Element::parse(&[0xff]).is_err());
    }
}
