//! What `info` prints of an image or of a chain of them.

use crate::json;
use crate::output::snapshots;
use crate::size::human_size;
use rimg_core::{ImageInfo, InfoValue};
use std::fmt::Write as _;

/// All that is printed of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageReport {
    /// The image's name as the user, or the image above, gives it.
    pub(crate) filename: String,
    /// What the image says of itself.
    pub(crate) info: ImageInfo,
    /// Where the backing file is to be found from here.
    pub(crate) full_backing_filename: Option<String>,
    /// The space that all its files take, where the system says.
    pub(crate) disk_bytes: Option<u64>,
    /// Whether there is a word on whether it was closed.
    pub(crate) tells_state: bool,
    /// Whether it is a plain file, and no image.
    pub(crate) is_file: bool,
    /// What it lies in, by the names that QEMU gives them, in the order in which it shows them.
    pub(crate) children: Vec<(String, NodeReport)>,
}

/// What an image lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeReport {
    /// A file, or what is like one.
    File(FileReport),
    /// Another image, or what has something below.
    Image(Box<ImageReport>),
}

impl NodeReport {
    /// The space that it takes.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        match self {
            Self::File(file) => file.disk_bytes,
            Self::Image(image) => image.disk_bytes,
        }
    }

    fn tells_state(&self) -> bool {
        match self {
            Self::File(file) => file.is_local(),
            Self::Image(image) => image.tells_state,
        }
    }
}

impl ImageReport {
    /// A file that is shown as an image.
    pub(crate) fn of_file(file: FileReport) -> Self {
        Self {
            info: ImageInfo {
                format: file.protocol,
                virtual_size_bytes: file.len_bytes,
                ..ImageInfo::default()
            },
            full_backing_filename: None,
            disk_bytes: file.disk_bytes,
            tells_state: file.is_local(),
            is_file: file.is_local(),
            filename: file.filename,
            children: Vec::new(),
        }
    }

    /// Takes over what images without metadata, whose own words are `info`, know from what they
    /// lie in.
    pub(crate) fn inherit(&mut self, info: &mut ImageInfo) {
        if TELLS_NO_STATE.contains(&info.format) {
            self.tells_state = false;
        }
        if !matches!(info.format, "raw" | "blkdebug") {
            return;
        }
        for (_, child) in &self.children {
            self.tells_state &= child.tells_state();
            if let NodeReport::Image(image) = child {
                info.cluster_bytes = info.cluster_bytes.or(image.info.cluster_bytes);
                info.dirty |= image.info.dirty;
            }
        }
    }
}

/// The file that an image lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileReport {
    /// Its name.
    pub(crate) filename: String,
    /// `file`, `host_device` for devices, or how else it is reached.
    pub(crate) protocol: &'static str,
    /// Its length in bytes.
    pub(crate) len_bytes: u64,
    /// The space that it takes, in bytes, where the system says.
    pub(crate) disk_bytes: Option<u64>,
}

impl FileReport {
    fn is_local(&self) -> bool {
        matches!(self.protocol, "file" | "host_device" | "host_cdrom")
    }
}

/// The chain for people: paragraphs with a line for each fact.
pub(crate) fn human(chain: &[ImageReport]) -> String {
    let images: Vec<String> = chain.iter().map(|image| human_image(image, "")).collect();
    images.join("\n")
}

/// An image; `path` leads to it from the top.
fn human_image(report: &ImageReport, path: &str) -> String {
    let ImageReport { filename, info, full_backing_filename, .. } = report;
    let size = info.virtual_size_bytes;
    let mut text = format!(
        "image: {filename}\nfile format: {}\nvirtual size: {} ({size} bytes)\ndisk size: {}\n",
        info.format,
        human_size(size),
        disk_size(report.disk_bytes)
    );
    if info.encrypted {
        text.push_str("encrypted: yes\n");
    }
    if let Some(bytes) = info.cluster_bytes {
        let _ = writeln!(text, "cluster_size: {bytes}");
    }
    if info.dirty {
        text.push_str("cleanly shut down: no\n");
    }
    if let Some(backing) = &info.backing_file {
        let _ = write!(text, "backing file: {backing}");
        match full_backing_filename {
            Some(full) if full == backing => {}
            Some(full) => {
                let _ = write!(text, " (actual path: {full})");
            }
            None => text.push_str(" (cannot determine actual path)"),
        }
        text.push('\n');
    }
    if let Some(format) = &info.backing_format {
        let _ = writeln!(text, "backing file format: {format}");
    }
    if !info.snapshots.is_empty() {
        text.push_str(&snapshots::table(&info.snapshots));
    }
    if !info.specific.is_empty() {
        text.push_str("Format specific information:\n");
        human_map(&mut text, &info.specific, 1);
    }
    for (name, node) in &report.children {
        let path = format!("{path}/{name}");
        let _ = writeln!(text, "Child node '{path}':");
        let node = match node {
            NodeReport::File(file) => human_file(file),
            NodeReport::Image(image) => human_image(image, &path),
        };
        for line in node.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

fn human_file(file: &FileReport) -> String {
    format!(
        "filename: {}\nprotocol type: {}\nfile length: {} ({} bytes)\ndisk size: {}\n",
        file.filename,
        file.protocol,
        human_size(file.len_bytes),
        file.len_bytes,
        disk_size(file.disk_bytes)
    )
}

fn disk_size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unavailable".to_owned(), human_size)
}

fn human_map(text: &mut String, members: &[(&'static str, InfoValue)], depth: usize) {
    for (name, value) in members {
        human_member(text, &name.replace('-', " "), value, depth);
    }
}

fn human_member(text: &mut String, name: &str, value: &InfoValue, depth: usize) {
    for _ in 0..depth {
        text.push_str("    ");
    }
    let inner = depth.saturating_add(1);
    let _ = match value {
        InfoValue::Bool(truth) => writeln!(text, "{name}: {truth}"),
        InfoValue::Number(number) => writeln!(text, "{name}: {number}"),
        InfoValue::Text(string) => writeln!(text, "{name}: {string}"),
        InfoValue::List(values) => {
            let _ = writeln!(text, "{name}:");
            for (index, value) in values.iter().enumerate() {
                human_member(text, &format!("[{index}]"), value, inner);
            }
            Ok(())
        }
        InfoValue::Map(members) => {
            let _ = writeln!(text, "{name}:");
            human_map(text, members, inner);
            Ok(())
        }
    };
}

/// One image for programs.
pub(crate) fn json_image(report: &ImageReport) -> String {
    json::pretty(&image_value(report))
}

/// A chain for programs, the top image first.
pub(crate) fn json_chain(chain: &[ImageReport]) -> String {
    json::pretty(&InfoValue::List(chain.iter().map(image_value).collect()))
}

/// Formats of which qemu-img does not tell whether an image was closed.
const TELLS_NO_STATE: &[&str] = &["bochs", "cloop", "dmg", "parallels"];

/// The members in the order in which qemu-img prints them.
fn image_value(report: &ImageReport) -> InfoValue {
    let ImageReport { filename, info, full_backing_filename, .. } = report;
    let children = report.children.iter().map(|(name, node)| {
        let info = match node {
            NodeReport::File(file) => file_value(file),
            NodeReport::Image(image) => image_value(image),
        };
        InfoValue::Map(vec![("name", text(name)), ("info", info)])
    });
    let mut members = vec![("children", InfoValue::List(children.collect()))];
    let mut put = |name, value: Option<InfoValue>| members.extend(value.map(|value| (name, value)));
    put("backing-filename-format", info.backing_format.as_deref().map(text));
    let snapshots = &info.snapshots;
    put(
        "snapshots",
        (!snapshots.is_empty())
            .then(|| InfoValue::List(snapshots.iter().map(snapshots::value).collect())),
    );
    put("virtual-size", Some(InfoValue::Number(info.virtual_size_bytes)));
    put("filename", Some(text(filename)));
    put("cluster-size", info.cluster_bytes.map(InfoValue::Number));
    put("format", Some(text(info.format)));
    put("actual-size", report.disk_bytes.map(InfoValue::Number));
    put(
        "format-specific",
        (!info.specific.is_empty()).then(|| specific(info.format, info.specific.clone())),
    );
    put("format-specific", report.is_file.then(|| specific("file", Vec::new())));
    put("full-backing-filename", full_backing_filename.as_deref().map(text));
    put("encrypted", info.encrypted.then_some(InfoValue::Bool(true)));
    put("backing-filename", info.backing_file.as_deref().map(text));
    put("dirty-flag", report.tells_state.then_some(InfoValue::Bool(info.dirty)));
    InfoValue::Map(members)
}

fn file_value(file: &FileReport) -> InfoValue {
    let mut members = vec![
        ("children", InfoValue::List(Vec::new())),
        ("virtual-size", InfoValue::Number(file.len_bytes)),
        ("filename", text(&file.filename)),
        ("format", text(file.protocol)),
    ];
    members.extend(file.disk_bytes.map(|bytes| ("actual-size", InfoValue::Number(bytes))));
    if file.is_local() {
        members.push(("format-specific", specific("file", Vec::new())));
        members.push(("dirty-flag", InfoValue::Bool(false)));
    }
    InfoValue::Map(members)
}

fn specific(kind: &str, data: Vec<(&'static str, InfoValue)>) -> InfoValue {
    InfoValue::Map(vec![("type", text(kind)), ("data", InfoValue::Map(data))])
}

fn text(text: &str) -> InfoValue {
    InfoValue::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ImageReport {
        let specific = vec![
            ("compat", InfoValue::Text("1.1".to_owned())),
            (
                "bitmaps",
                InfoValue::List(vec![InfoValue::Map(vec![
                    ("flags", InfoValue::List(vec![InfoValue::Text("auto".to_owned())])),
                    ("granularity", InfoValue::Number(65536)),
                ])]),
            ),
            ("extended-l2", InfoValue::Bool(false)),
        ];
        ImageReport {
            filename: "d/top.qcow2".to_owned(),
            info: ImageInfo {
                format: "qcow2",
                virtual_size_bytes: 64 << 20,
                cluster_bytes: Some(65536),
                encrypted: true,
                dirty: true,
                backing_file: Some("base.raw".to_owned()),
                backing_format: Some("raw".to_owned()),
                specific,
                ..ImageInfo::default()
            },
            full_backing_filename: Some("d/base.raw".to_owned()),
            disk_bytes: None,
            tells_state: true,
            is_file: false,
            children: vec![(
                "file".to_owned(),
                NodeReport::File(FileReport {
                    filename: "d/top.qcow2".to_owned(),
                    protocol: "file",
                    len_bytes: 197_120,
                    disk_bytes: None,
                }),
            )],
        }
    }

    #[test]
    fn people_read_a_line_for_each_fact() {
        let expected = "\
image: d/top.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: unavailable
encrypted: yes
cluster_size: 65536
cleanly shut down: no
backing file: base.raw (actual path: d/base.raw)
backing file format: raw
Format specific information:
    compat: 1.1
    bitmaps:
        [0]:
            flags:
                [0]: auto
            granularity: 65536
    extended l2: false
Child node '/file':
    filename: d/top.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: unavailable
";
        assert_eq!(human(&[report()]), expected);
        assert_eq!(human(&[report(), report()]), format!("{expected}\n{expected}"));
    }

    #[test]
    fn programs_read_members_in_a_fixed_order() {
        let text = json_image(&report());
        let members: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("    \"")?.split_once('"'))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            members,
            [
                "children",
                "backing-filename-format",
                "virtual-size",
                "filename",
                "cluster-size",
                "format",
                "format-specific",
                "full-backing-filename",
                "encrypted",
                "backing-filename",
                "dirty-flag"
            ]
        );
    }
}
