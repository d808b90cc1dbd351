//! What the image says of itself.

use crate::descriptor::ExtentKind;
use crate::error::FORMAT;
use crate::image::{Body, Part, VmdkImage};
use rimg_core::{BlockImage as _, ImageInfo, InfoValue, Result};

impl VmdkImage {
    pub(crate) fn describe(&self) -> Result<ImageInfo> {
        let state = self.descriptor();
        let descriptor = state.descriptor.as_ref();
        let parent = descriptor.and_then(|descriptor| descriptor.parent_name.clone());
        let extents = self.parts.iter().enumerate().map(|(index, part)| {
            let line = descriptor.and_then(|descriptor| descriptor.extents.get(index));
            // The image's own file has whatever name it was opened by.
            let in_own_file = part.file == 0;
            let (kind, name) = match line {
                Some(line) if !in_own_file => (Some(line.kind), line.name.as_str()),
                _ => (None, ""),
            };
            describe_part(part, kind, name)
        });
        let mut specific = Vec::new();
        if let Some(descriptor) = descriptor {
            specific.push(("cid", InfoValue::Number(descriptor.cid.into())));
            specific.push(("parent-cid", InfoValue::Number(descriptor.parent_cid.into())));
            specific.push(("create-type", InfoValue::Text(descriptor.create_type.clone())));
        } else {
            specific.push(("create-type", InfoValue::Text("vmfsSparse".to_owned())));
        }
        specific.push(("extents", InfoValue::List(extents.collect())));
        Ok(ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.size_bytes(),
            cluster_bytes: self.grain_bytes(),
            backing_format: parent.is_some().then(|| FORMAT.to_owned()),
            backing_file: parent,
            // Grains are not made beforehand, and may lie in other files.
            preallocated: Some(false),
            specific,
            ..ImageInfo::default()
        })
    }
}

/// Under the names and in the order of QEMU's JSON.
fn describe_part(part: &Part, kind: Option<ExtentKind>, name: &str) -> InfoValue {
    let text = |text: &str| InfoValue::Text(text.to_owned());
    let mut members = Vec::new();
    if matches!(part.body, Body::Stream(_)) {
        members.push(("compressed", InfoValue::Bool(true)));
    }
    members.push(("virtual-size", InfoValue::Number(part.len())));
    members.push(("filename", text(name)));
    members.extend(part.grain_bytes().map(|bytes| ("cluster-size", InfoValue::Number(bytes))));
    members.push(("format", text(kind.map_or("", ExtentKind::name))));
    InfoValue::Map(members)
}
