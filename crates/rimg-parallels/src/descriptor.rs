//! Bundles: DiskDescriptor.xml, and the files that it names (Parallels Disk Format).
//!
//! A disk may be split into storages, each for a part of it; each has an image for every snapshot.
//! What the guest sees is the top snapshot over those that it descends from. Bundles are read.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod bundle;
mod xml;

pub(crate) use bundle::open;

use crate::error::CorruptKind;
use crate::spec;
use rimg_core::{Error, Result};
use xml::Element;

/// Longer descriptors are none.
const MAX_BYTES: u64 = 1 << 20;
const ROOT: &str = "Parallels_disk_image";

/// Whether a file that starts so is a descriptor.
pub(crate) fn is_descriptor(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    let has = |needle: &[u8]| head.windows(needle.len()).any(|window| window == needle);
    text.starts_with(b"<") && has(b"<Parallels_disk_image")
}

/// What a descriptor says, as far as reading needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Descriptor {
    sectors: u64,
    storages: Vec<StorageElement>,
    /// The images from the one that the guest sees down, by their GUIDs.
    chain: Vec<String>,
}

/// A part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StorageElement {
    /// Its first sector.
    start: u64,
    /// The first sector behind it.
    end: u64,
    images: Vec<ImageElement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ImageElement {
    guid: String,
    is_plain: bool,
    file: String,
}

impl Descriptor {
    fn parse(text: &[u8]) -> Result<Self> {
        let root = Element::parse(text)?;
        if root.name != ROOT {
            return wrong("it is no description of a disk");
        }
        let parameters = child(&root, "Disk_Parameters", "it has no Disk_Parameters")?;
        if number(parameters, "Padding").unwrap_or(0) != 0 {
            return Err(Error::Unsupported {
                format: crate::error::FORMAT,
                feature: "disks with padding".to_owned(),
            });
        }
        let sectors = number(parameters, "Disk_size")?;
        if sectors > (1 << 63) / spec::SECTOR_BYTES {
            return wrong("Disk_size is no size of a disk");
        }
        let data = child(&root, "StorageData", "it has no StorageData")?;
        let storages = data.children_named("Storage").map(parse_storage).collect::<Result<_>>()?;
        let mut descriptor = Self { sectors, storages, chain: Vec::new() };
        descriptor.check_storages()?;
        descriptor.chain = chain(&root)?;
        Ok(descriptor)
    }

    /// Every sector belongs to one storage.
    fn check_storages(&mut self) -> Result<()> {
        self.storages.sort_by_key(|storage| storage.start);
        let mut at = 0;
        for storage in &self.storages {
            if storage.start != at || storage.end < storage.start {
                return wrong("storages overlap, or leave something out");
            }
            at = storage.end;
        }
        if at == self.sectors { Ok(()) } else { wrong("storages do not end where the disk does") }
    }
}

fn parse_storage(element: &Element) -> Result<StorageElement> {
    let images = element.children_named("Image").map(parse_image).collect::<Result<_>>()?;
    Ok(StorageElement { start: number(element, "Start")?, end: number(element, "End")?, images })
}

fn parse_image(element: &Element) -> Result<ImageElement> {
    let text = |name, missing| child(element, name, missing).map(|child| child.text.clone());
    let is_plain = match text("Type", "an image has no Type")?.as_str() {
        "Plain" => true,
        "Compressed" => false,
        _ => return wrong("an image is neither Plain nor Compressed"),
    };
    Ok(ImageElement {
        guid: text("GUID", "an image has no GUID")?.to_ascii_lowercase(),
        is_plain,
        file: text("File", "an image has no File")?,
    })
}

/// The GUIDs from the top snapshot down.
fn chain(root: &Element) -> Result<Vec<String>> {
    let Some(snapshots) = root.children_named("Snapshots").next() else {
        return Ok(vec![spec::TOP_GUID.to_owned()]);
    };
    let mut shots = Vec::new();
    for shot in snapshots.children_named("Shot") {
        let guid = |name| {
            let child = child(shot, name, "a snapshot lacks a GUID")?;
            Ok::<_, Error>(child.text.to_ascii_lowercase())
        };
        shots.push((guid("GUID")?, guid("ParentGUID")?));
    }
    let top = snapshots.children_named("TopGUID").next();
    let mut next = top.map_or(spec::TOP_GUID.to_owned(), |top| top.text.to_ascii_lowercase());
    let mut chain = Vec::new();
    while next != spec::NO_GUID {
        // A loop comes to more images than there are.
        if chain.len() > shots.len() {
            return wrong("snapshots descend from themselves");
        }
        let parent = shots.iter().find(|(guid, _)| *guid == next).map(|(_, parent)| parent.clone());
        if parent.is_none() && !shots.is_empty() {
            return wrong("a snapshot descends from one that is not there");
        }
        chain.push(next);
        next = parent.unwrap_or(spec::NO_GUID.to_owned());
    }
    if chain.is_empty() { wrong("there is no top snapshot") } else { Ok(chain) }
}

fn child<'a>(parent: &'a Element, name: &str, missing: &'static str) -> Result<&'a Element> {
    match parent.children.iter().find(|child| child.name == name) {
        Some(child) => Ok(child),
        None => wrong(missing),
    }
}

fn number(parent: &Element, name: &str) -> Result<u64> {
    match child(parent, name, "a number is missing")?.text.parse() {
        Ok(number) => Ok(number),
        Err(_) => wrong("a number is none"),
    }
}

fn wrong<T>(what: &'static str) -> Result<T> {
    Err(CorruptKind::Descriptor(what).at("DiskDescriptor.xml", "element", 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    const GUID: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    const BASE: &str = "{aaaaaaaa-6958-40ff-92a7-860e329aab41}";

    fn text(storages: &[(u64, u64)], snapshots: &str) -> String {
        let storages: String = storages
            .iter()
            .map(|(start, end)| {
                format!(
                    "<Storage><Start>{start}</Start><End>{end}</End><Blocksize>8</Blocksize>\
                     <Image><GUID>{GUID}</GUID><Type>Compressed</Type><File>{start}.hds</File>\
                     </Image></Storage>"
                )
            })
            .collect();
        format!(
            "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n\
             <Disk_Parameters><Disk_size>100</Disk_size><Padding>0</Padding></Disk_Parameters>\
             <StorageData>{storages}</StorageData>{snapshots}</Parallels_disk_image>"
        )
    }

    fn what(text: &str) -> &'static str {
        match kind_of(&Descriptor::parse(text.as_bytes()).unwrap_err()) {
            Some(CorruptKind::Descriptor(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn split_disks_are_put_in_order() {
        let descriptor = Descriptor::parse(text(&[(40, 100), (0, 40)], "").as_bytes()).unwrap();
        let files: Vec<_> = descriptor.storages.iter().map(|s| &s.images[0].file[..]).collect();
        assert_eq!(files, ["0.hds", "40.hds"]);
        assert_eq!((descriptor.sectors, descriptor.chain), (100, vec![GUID.to_owned()]));
        for storages in [&[(0, 40)][..], &[(0, 40), (50, 100)], &[(0, 60), (40, 100)], &[(5, 0)]] {
            assert!(what(&text(storages, "")).starts_with("storages"), "{storages:?}");
        }
    }

    #[test]
    fn the_top_snapshot_stands_on_its_parents() {
        let shot = |guid: &str, parent: &str| {
            format!("<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
        };
        let none = spec::NO_GUID;
        let snapshots =
            |shots: String| text(&[(0, 100)], &format!("<Snapshots>{shots}</Snapshots>"));
        let two = shot(BASE, none) + &shot(&GUID.to_uppercase(), BASE);
        let descriptor = Descriptor::parse(snapshots(two.clone()).as_bytes()).unwrap();
        assert_eq!(descriptor.chain, [GUID, BASE]);
        let other = format!("<TopGUID>{BASE}</TopGUID>{two}");
        assert_eq!(Descriptor::parse(snapshots(other).as_bytes()).unwrap().chain, [BASE]);
        let endless = shot(BASE, GUID) + &shot(GUID, BASE);
        assert_eq!(what(&snapshots(endless)), "snapshots descend from themselves");
        let gone = what(&snapshots(shot(GUID, BASE)));
        assert_eq!(gone, "a snapshot descends from one that is not there");
    }

    #[test]
    fn a_descriptor_is_recognised_by_its_root() {
        assert!(is_descriptor(text(&[], "").as_bytes()));
        assert!(!is_descriptor(b"<?xml version='1.0'?><svg/>"));
        assert!(!is_descriptor(b"x<Parallels_disk_image>"));
    }
}
