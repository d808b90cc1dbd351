//! The text of a new descriptor, as QEMU writes it.

use super::ExtentKind;
use std::fmt::Write as _;

/// What a new descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewDescriptor<'a> {
    pub(crate) cid: u32,
    pub(crate) parent_cid: u32,
    pub(crate) create_type: &'a str,
    pub(crate) parent_name: Option<&'a str>,
    pub(crate) extents: Vec<NewExtent>,
    pub(crate) hardware_version: &'a str,
    pub(crate) cylinders: u64,
    pub(crate) heads: u32,
    pub(crate) adapter_type: &'a str,
    pub(crate) tools_version: &'a str,
}

/// An extent of a new disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewExtent {
    pub(crate) sectors: u64,
    pub(crate) kind: ExtentKind,
    pub(crate) name: String,
}

impl NewDescriptor<'_> {
    pub(crate) fn text(&self) -> String {
        let Self { cid, parent_cid, create_type, .. } = self;
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid:08x}\n\
             createType=\"{create_type}\"\n"
        );
        match self.parent_name {
            // Then QEMU leaves out the empty line.
            Some(name) => {
                let _ = writeln!(text, "parentFileNameHint=\"{name}\"");
            }
            None => text.push('\n'),
        }
        text.push_str("# Extent description\n");
        for NewExtent { sectors, kind, name } in &self.extents {
            let _ = write!(text, "RW {sectors} {} \"{name}\"", kind.name());
            text.push_str(if *kind == ExtentKind::Flat { " 0\n" } else { "\n" });
        }
        let _ = write!(
            text,
            "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"{}\"\n\
             ddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"{}\"\n\
             ddb.geometry.sectors = \"63\"\nddb.adapterType = \"{}\"\n\
             ddb.toolsVersion = \"{}\"\n",
            self.hardware_version,
            self.cylinders,
            self.heads,
            self.adapter_type,
            self.tools_version
        );
        text
    }
}
