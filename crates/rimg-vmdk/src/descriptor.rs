//! The descriptor: a text that names the disk's extents and its parent.
//!
//! Lines are kept as they are: what a change is not about, comments and keys that nobody here
//! knows among it, is written back byte by byte.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod line;
mod new;

pub(crate) use line::{Access, ExtentKind, ExtentLine};
pub(crate) use new::{NewDescriptor, NewExtent};

use crate::error::CorruptKind;
use crate::spec::descriptor::{FIRST_LINE, MAX_EXTENTS, NO_PARENT};
use line::Line;
use rimg_core::{Result, num};

const STRUCTURE: &str = "descriptor";

/// A parsed descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    lines: Vec<String>,
    /// The bytes were no UTF-8: each is one letter.
    is_latin1: bool,
    /// Changes with the first write after opening, so that overlays notice.
    pub(crate) cid: u32,
    /// The content ID that the parent had when the overlay was made.
    pub(crate) parent_cid: u32,
    pub(crate) create_type: String,
    /// The parent's name; images without one stand alone.
    pub(crate) parent_name: Option<String>,
    pub(crate) extents: Vec<ExtentLine>,
}

impl Descriptor {
    /// Reads a descriptor that starts `at` in its file and ends with the bytes or a NUL.
    pub(crate) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let (text, is_latin1) = match str::from_utf8(bytes) {
            Ok(text) => (text.to_owned(), false),
            Err(_) => (bytes.iter().copied().map(char::from).collect(), true),
        };
        let mut found = Found::default();
        let mut extents = Vec::new();
        let mut offset = at;
        let mut is_first = true;
        for (index, line) in text.split('\n').enumerate() {
            let number = index.saturating_add(1);
            let parsed = Line::parse(line);
            if is_first && parsed != Some(Line::Empty) {
                if !line.trim().eq_ignore_ascii_case(FIRST_LINE) {
                    return Err(CorruptKind::NoDescriptor.at(STRUCTURE, "first line", offset));
                }
                is_first = false;
            }
            match parsed {
                Some(Line::Empty | Line::Comment) => {}
                Some(Line::Value { key, value }) => found.add(key, value, number, offset)?,
                Some(Line::Extent(extent)) => extents.push(ExtentLine { line: index, ..extent }),
                None => {
                    let kind = match Line::is_of_extent(line) {
                        true => CorruptKind::ExtentLine(line.trim().to_owned()),
                        false => CorruptKind::Line(number),
                    };
                    return Err(kind.at(STRUCTURE, "line", offset));
                }
            }
            offset = offset.saturating_add(num::to_u64(line.len())).saturating_add(1);
        }
        if extents.len() > MAX_EXTENTS {
            let kind = CorruptKind::TooManyExtents(extents.len());
            return Err(kind.at(STRUCTURE, "extents", at));
        }
        let missing = |field| CorruptKind::Missing.at(STRUCTURE, field, at);
        match found.version.as_deref() {
            Some("1" | "2" | "3") => {}
            Some(other) => {
                return Err(CorruptKind::Text(other.to_owned()).at(STRUCTURE, "version", at));
            }
            None => return Err(missing("version")),
        }
        Ok(Self {
            cid: hexadecimal(found.cid.as_deref(), "CID", at)?,
            // Images of the time before overlays have none.
            parent_cid: match found.parent_cid.as_deref() {
                None => NO_PARENT,
                some => hexadecimal(some, "parentCID", at)?,
            },
            create_type: found.create_type.ok_or_else(|| missing("createType"))?,
            parent_name: found.parent_name,
            extents,
            lines: text.split('\n').map(str::to_owned).collect(),
            is_latin1,
        })
    }

    /// The text, to be written.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = self.lines.join("\n");
        if self.is_latin1 {
            // Letters came from bytes, and what is added is ASCII.
            text.chars().map(|letter| u8::try_from(letter).unwrap_or(b'?')).collect()
        } else {
            text.into_bytes()
        }
    }

    pub(crate) fn set_cid(&mut self, cid: u32) {
        self.cid = cid;
        self.set("CID", &format!("{cid:08x}"));
    }

    pub(crate) fn set_parent_cid(&mut self, cid: u32) {
        self.parent_cid = cid;
        self.set("parentCID", &format!("{cid:08x}"));
    }

    /// Notes that an extent has another size.
    pub(crate) fn set_extent_sectors(&mut self, index: usize, sectors: u64) {
        let Some(extent) = self.extents.get_mut(index) else { return };
        let old = extent.sectors;
        extent.sectors = sectors;
        if let Some(line) = self.lines.get_mut(extent.line) {
            // The first number of the line: access words have no digits.
            *line = line.replacen(&old.to_string(), &sectors.to_string(), 1);
        }
    }

    /// The value of the first line with this key.
    pub(crate) fn value(&self, wanted: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| match Line::parse(line) {
            Some(Line::Value { key, value }) if key.eq_ignore_ascii_case(wanted) => Some(value),
            _ => None,
        })
    }

    /// Replaces the value of a key that is there; quotes and spaces around it stay.
    pub(crate) fn set(&mut self, wanted: &str, new: &str) {
        for line in &mut self.lines {
            let Some(Line::Value { key, value }) = Line::parse(line) else { continue };
            if !key.eq_ignore_ascii_case(wanted) {
                continue;
            }
            let Some((before, after)) = line.split_once('=') else { continue };
            *line = if value.is_empty() {
                format!("{before}={new}")
            } else {
                format!("{before}={}", after.replacen(value, new, 1))
            };
            return;
        }
    }
}

/// The values that say what the disk is; each is there once.
#[derive(Default)]
struct Found {
    version: Option<String>,
    cid: Option<String>,
    parent_cid: Option<String>,
    create_type: Option<String>,
    parent_name: Option<String>,
}

impl Found {
    fn add(&mut self, key: &str, value: &str, number: usize, offset: u64) -> Result<()> {
        let (slot, field) = match key.to_ascii_lowercase().as_str() {
            "version" => (&mut self.version, "version"),
            "cid" => (&mut self.cid, "CID"),
            "parentcid" => (&mut self.parent_cid, "parentCID"),
            "createtype" => (&mut self.create_type, "createType"),
            "parentfilenamehint" => (&mut self.parent_name, "parentFileNameHint"),
            _ => return Ok(()),
        };
        if slot.is_some() {
            return Err(CorruptKind::Twice(number).at(STRUCTURE, field, offset));
        }
        *slot = Some(value.to_owned());
        Ok(())
    }
}

fn hexadecimal(text: Option<&str>, field: &'static str, at: u64) -> Result<u32> {
    let text = text.ok_or_else(|| CorruptKind::Missing.at(STRUCTURE, field, at))?;
    // `from_str_radix` takes a sign, too.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_plain.then(|| u32::from_str_radix(text, 16).ok()).flatten();
    number.ok_or_else(|| CorruptKind::Text(text.to_owned()).at(STRUCTURE, field, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    const TEXT: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=0badddc4\n\
        parentCID=fffffffe\nisNativeSnapshot=\"no\"\ncreateType=\"twoGbMaxExtentSparse\"\n\
        parentFileNameHint=\"a b.vmdk\"\n\n# Extent description\nRW 4194304 SPARSE \"t-s001.vmdk\"\n\
        RDONLY 8 FLAT \"f.vmdk\" 16\nRW 63 ZERO\r\n\n# The Disk Data Base\n#DDB\n\n\
        ddb.adapterType = \"ide\"\nddb.geometry.cylinders = \"9\"\n";

    #[test]
    fn a_descriptor_is_read_and_kept() {
        let mut descriptor = Descriptor::parse(TEXT.as_bytes(), 0).unwrap();
        assert_eq!((descriptor.cid, descriptor.parent_cid), (0x0bad_ddc4, 0xffff_fffe));
        assert_eq!(descriptor.create_type, "twoGbMaxExtentSparse");
        assert_eq!(descriptor.parent_name.as_deref(), Some("a b.vmdk"));
        assert_eq!(descriptor.value("ddb.adapterType"), Some("ide"));
        let extent = |access, sectors, kind, name: &str, offset_sectors, line| ExtentLine {
            access,
            sectors,
            kind,
            name: name.to_owned(),
            offset_sectors,
            line,
        };
        assert_eq!(
            descriptor.extents,
            [
                extent(Access::ReadWrite, 4_194_304, ExtentKind::Sparse, "t-s001.vmdk", 0, 10),
                extent(Access::ReadOnly, 8, ExtentKind::Flat, "f.vmdk", 16, 11),
                extent(Access::ReadWrite, 63, ExtentKind::Zero, "", 0, 12),
            ]
        );
        assert_eq!(descriptor.encode(), TEXT.as_bytes());

        descriptor.set_cid(0x12);
        descriptor.set_extent_sectors(1, 24);
        descriptor.set("ddb.geometry.cylinders", "10");
        let expected = TEXT
            .replace("CID=0badddc4", "CID=00000012")
            .replace("RDONLY 8 FLAT", "RDONLY 24 FLAT")
            .replace("= \"9\"", "= \"10\"");
        assert_eq!(String::from_utf8(descriptor.encode()).unwrap(), expected);
    }

    #[test]
    fn bytes_of_other_encodings_survive() {
        let text = TEXT.replace("a b", "a\u{e4}b");
        let latin1: Vec<u8> = text.chars().map(|letter| u8::try_from(letter).unwrap()).collect();
        let mut descriptor = Descriptor::parse(&latin1, 0).unwrap();
        assert_eq!(descriptor.encode(), latin1);
        descriptor.set_cid(1);
        assert_eq!(descriptor.encode().len(), latin1.len());
    }

    #[test]
    fn a_descriptor_ends_with_a_nul() {
        let mut bytes = TEXT.as_bytes().to_vec();
        bytes.extend([0; 512]);
        assert_eq!(Descriptor::parse(&bytes, 0).unwrap().encode(), TEXT.as_bytes());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let extent = |line: &str| CorruptKind::ExtentLine(line.to_owned());
        let cases = [
            (TEXT.replace("# Disk", "# Desk"), CorruptKind::NoDescriptor),
            (TEXT.replace("version=1\n", ""), CorruptKind::Missing),
            (TEXT.replace("version=1", "version=4"), CorruptKind::Text("4".to_owned())),
            (TEXT.replace("createType", "x"), CorruptKind::Missing),
            (TEXT.replace("\nCID=0badddc4", ""), CorruptKind::Missing),
            (TEXT.replace("0badddc4", "+badddc4"), CorruptKind::Text("+badddc4".to_owned())),
            (TEXT.replace("0badddc4", "10badddc4"), CorruptKind::Text("10badddc4".to_owned())),
            (TEXT.replace("encoding", "CID"), CorruptKind::Twice(4)),
            (TEXT.replace("FLAT", "FLOT"), extent("RDONLY 8 FLOT \"f.vmdk\" 16")),
            (TEXT.replace("RW 63 ZERO", "RW x ZERO"), extent("RW x ZERO")),
            (TEXT.replace("RW 63 ZERO", "RW 63 FLAT"), extent("RW 63 FLAT")),
            (TEXT.replace("ZERO", "VMFS \"v\" 0"), extent("RW 63 VMFS \"v\" 0")),
            (TEXT.replace("RW 63 ZERO", "hello"), CorruptKind::Line(13)),
            (TEXT.replace("\"a b.vmdk\"", "\"a b.vmdk"), CorruptKind::Line(8)),
        ];
        for (text, kind) in cases {
            let error = Descriptor::parse(text.as_bytes(), 0).unwrap_err();
            assert_eq!(kind_of(&error), Some(&kind), "{text}");
        }
        let many = "RW 1 ZERO\n".repeat(MAX_EXTENTS + 1);
        let error = Descriptor::parse(format!("{TEXT}{many}").as_bytes(), 0).unwrap_err();
        assert_eq!(kind_of(&error), Some(&CorruptKind::TooManyExtents(MAX_EXTENTS + 4)));
    }
}
