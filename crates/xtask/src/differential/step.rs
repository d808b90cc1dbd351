//! One command of a sequence.

use std::fmt;

/// Who runs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// qemu-img in one folder, rimg in the other.
    Img,
    /// qemu-io in both.
    Io,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) program: Program,
    pub(super) words: Vec<String>,
    /// The image that it makes, and its format.
    pub(super) makes: Option<(String, &'static str)>,
}

impl Step {
    pub(super) fn img(words: Vec<String>) -> Self {
        Self { program: Program::Img, words, makes: None }
    }

    pub(super) fn making(self, name: &str, format: &'static str) -> Self {
        Self { makes: Some((name.to_owned(), format)), ..self }
    }

    /// One request of qemu-io to an image.
    pub(super) fn io(format: &str, request: String, file: &str) -> Self {
        let words = ["-f", format, "-c", &request, file].map(str::to_owned).to_vec();
        Self { program: Program::Io, words, makes: None }
    }

    /// Whether qemu-img gives clusters new places that rimg leaves where they are: the last one of
    /// a disk that ends within it, when what it grows by is preallocated; all bitmaps, whenever it
    /// has an image open for writing; and with `-W` those of a copy, in any order.
    pub(super) fn moves_clusters(&self) -> bool {
        let preallocates = self.words.iter().any(|word| word.starts_with("--prealloc"));
        let in_any_order = self.verb() == "convert" && self.words.iter().any(|word| word == "-W");
        (self.verb() == "resize" && preallocates) || self.verb() == "bitmap" || in_any_order
    }

    /// The sub-command.
    pub(super) fn verb(&self) -> &str {
        match self.program {
            Program::Img => self.words.first().map_or("", String::as_str),
            Program::Io => "io",
        }
    }
}

/// As a shell would be told.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.program {
            Program::Img => "qemu-img",
            Program::Io => "qemu-io",
        })?;
        for word in &self.words {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/+:".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, " {word}")?;
            } else {
                write!(f, " '{word}'")?;
            }
        }
        Ok(())
    }
}
