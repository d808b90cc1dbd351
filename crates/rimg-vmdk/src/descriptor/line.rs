//! One line of a descriptor.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Empty,
    Comment,
    /// `key=value`, `key = "value"`.
    Value {
        key: &'a str,
        value: &'a str,
    },
    /// `RW 4192256 SPARSE "disk-s001.vmdk"`.
    Extent(ExtentLine),
}

/// A part of the disk: where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtentLine {
    pub(crate) access: Access,
    pub(crate) sectors: u64,
    pub(crate) kind: ExtentKind,
    /// The file; extents of zeroes have none.
    pub(crate) name: String,
    /// Where in a flat file it starts.
    pub(crate) offset_sectors: u64,
    /// The number of the line among all, from 0.
    pub(crate) line: usize,
}

/// What a guest may do with an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
    None,
}

/// How an extent stores its part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    Flat,
    Sparse,
    Zero,
    /// As `Flat`, on VMFS.
    Vmfs,
    VmfsSparse,
    SeSparse,
    /// A device: `VMFSRDM`, `VMFSRAW`.
    Device,
}

impl ExtentKind {
    const NAMES: [(&'static str, Self); 9] = [
        ("FLAT", Self::Flat),
        ("SPARSE", Self::Sparse),
        ("ZERO", Self::Zero),
        ("VMFS", Self::Vmfs),
        ("VMFSSPARSE", Self::VmfsSparse),
        ("SESPARSE", Self::SeSparse),
        ("VMFSRDM", Self::Device),
        ("VMFSRDMP", Self::Device),
        ("VMFSRAW", Self::Device),
    ];

    /// The word in descriptors.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

impl<'a> Line<'a> {
    /// `None` for what is none.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() {
            return Some(Self::Empty);
        }
        if line.starts_with('#') {
            return Some(Self::Comment);
        }
        match Access::of(line) {
            Some(access) => ExtentLine::parse(access, line).map(Self::Extent),
            None => parse_value(line),
        }
    }

    /// Whether it begins as a line of an extent does.
    pub(super) fn is_of_extent(line: &str) -> bool {
        Access::of(line).is_some()
    }
}

fn parse_value(line: &str) -> Option<Line<'_>> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_word =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if key.is_empty() || !key.chars().all(is_word) {
        return None;
    }
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => value,
    };
    (!value.contains('"')).then_some(Line::Value { key, value })
}

impl Access {
    /// What a line begins with.
    fn of(line: &str) -> Option<Self> {
        line.split_whitespace().next().and_then(Self::from_name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RW" => Self::ReadWrite,
            "RDONLY" => Self::ReadOnly,
            "NOACCESS" => Self::None,
            _ => return None,
        })
    }
}

impl ExtentLine {
    fn parse(access: Access, line: &str) -> Option<Self> {
        let (before, quoted) = match line.split_once('"') {
            Some((before, rest)) => (before, Some(rest)),
            None => (line, None),
        };
        let mut words = before.split_whitespace().skip(1);
        let sectors = words.next()?.parse().ok()?;
        let kind = ExtentKind::from_name(words.next()?)?;
        if words.next().is_some() {
            return None;
        }
        let (name, after) = match quoted {
            Some(rest) => rest.split_once('"')?,
            None if kind == ExtentKind::Zero => ("", ""),
            None => return None,
        };
        let offset_sectors = match after.split_whitespace().next() {
            // A file on VMFS is one extent, from its start; QEMU wants no offset at all.
            Some(_) if kind == ExtentKind::Vmfs => return None,
            Some(offset) => offset.parse().ok()?,
            None => 0,
        };
        Some(Self { access, sectors, kind, name: name.to_owned(), offset_sectors, line: 0 })
    }
}
