//! What is wrong with an image, in the words of qemu-img where it has words of its own for it.

use rimg_core::Error;
use std::error::Error as _;

/// By format and field.
const WORDS: &[(&str, &str, &str)] = &[
    ("parallels", "nb_bat_entries", "Catalog too large"),
    ("qcow", "backing_file_size", "Backing file name too long"),
    ("qcow", "cluster_bits", "Cluster size must be between 512 and 64k"),
    ("qcow", "crypt_method", "invalid encryption method in qcow header"),
    ("qcow", "l2_bits", "L2 table size must be between 512 and 64k"),
    ("qcow", "size", "Image too large"),
    ("qcow2", "l1_table_offset", "Active L1 table offset invalid"),
    ("qcow2", "nb_snapshots", "Snapshot table too large"),
    ("qcow2", "size", "Image is too big"),
    ("qed", "backing_filename_offset", "QED backing filename offset is invalid"),
    ("qed", "cluster_size", "QED cluster size is invalid"),
    ("qed", "image_size", "QED image size is invalid"),
    ("qed", "l1_table_offset", "QED table offset is invalid"),
    ("qed", "table_size", "QED table size is invalid"),
];

/// Of files that are of another format.
const OTHER_FORMAT: &[(&str, &str)] = &[
    ("bochs", "Image not in Bochs format"),
    ("dmg", "Could not locate UDIF trailer in dmg file"),
    ("luks", "Volume is not in LUKS format"),
    ("parallels", "Image not in Parallels format"),
    ("qcow", "Image not in qcow format"),
    ("qed", "Image not in QED format"),
    ("vmdk", "invalid VMDK image descriptor"),
    ("vpc", "invalid VPC image"),
];

/// The words, where there are some.
pub(crate) fn words(error: &Error) -> Option<String> {
    match error {
        Error::WrongFormat { format } => {
            let known = OTHER_FORMAT.iter().find(|(of, _)| of == format);
            known.map(|(_, words)| (*words).to_owned())
        }
        Error::Unsupported { format: "qed", feature } => {
            Some(format!("Unsupported QED features: {feature}"))
        }
        Error::Unsupported { format: "qcow", feature } if feature.starts_with("version ") => {
            let hint = match feature.as_str() {
                "version 2" | "version 3" => "\nTry the 'qcow2' driver instead.",
                _ => "",
            };
            Some(format!("qcow (v1) does not support qcow {feature}{hint}"))
        }
        Error::Corrupt { format: "parallels", at, .. } if at.field == "tracks" => {
            let is_none = error.source()?.to_string().starts_with("clusters of 0 sectors");
            let what = if is_none { "Zero sectors per track" } else { "Too big cluster" };
            Some(format!("Invalid image: {what}"))
        }
        Error::Unsupported { format: "vdi", feature } if feature.starts_with("version ") => {
            Some(format!("unsupported VDI image ({feature})"))
        }
        Error::Corrupt { format: "vdi", at, .. } if at.structure == "header" => {
            vdi_header(at.field, &error.source()?.to_string())
        }
        Error::Corrupt { format: "vmdk", at, .. } if at.field == "line" => {
            let why = error.source()?.to_string();
            why.starts_with("invalid extent").then(|| why.replacen('i', "I", 1))
        }
        Error::Corrupt { format: "vmdk", at, .. } if at.field == "capacity" => {
            Some("L1 size too big".to_owned())
        }
        Error::Corrupt { format: "vpc", at, .. } if at.field == "max_table_entries" => {
            let why = error.source()?.to_string();
            if !why.ends_with("more than a table can have") {
                return Some("Page table too small".to_owned());
            }
            let (entries, _) = why.split_once(" entries")?;
            let entries = entries.parse::<u32>().ok()?.cast_signed();
            Some(format!("Max Table Entries too large ({entries})"))
        }
        Error::Corrupt { format: "vmdk", at, .. } if at.field == "overHead" => {
            let why = error.source()?.to_string();
            why.starts_with("truncated").then(|| format!("File {why}"))
        }
        Error::Corrupt { format: "qcow2", at, .. }
            if at.structure == "snapshot table" && at.field == "l1_table_offset" =>
        {
            let why = error.source()?.to_string();
            let words = ["offset invalid", "too large"];
            let known = ["is not a multiple", "is too large"].map(|part| why.contains(part));
            let (_, words) = known.iter().zip(words).find(|(is_it, _)| **is_it)?;
            Some(format!("Snapshot L1 table {words}"))
        }
        Error::Corrupt { format: "qcow2", at, .. } if at.structure == "snapshot table" => {
            snapshot_table(error)
        }
        Error::Corrupt { format: "qcow2", at, .. } if at.field == "l1_size" => {
            let is_large = error.source()?.to_string().ends_with("too large");
            let words =
                if is_large { "Active L1 table too large" } else { "L1 table is too small" };
            Some(words.to_owned())
        }
        Error::Corrupt { format: "qcow2", at, .. } if at.field == "crypt_method" => {
            let is_missing = error.source()?.to_string().contains("does not say where");
            is_missing.then(|| "Missing CRYPTO header for crypt method 2".to_owned())
        }
        Error::Corrupt { format, at, .. } if at.structure == "header" => {
            let known = WORDS.iter().find(|(of, field, _)| of == format && *field == at.field);
            known.map(|(_, _, words)| (*words).to_owned())
        }
        _ => None,
    }
}

/// What is wrong with a field of a VDI header, of which rimg says `why`.
fn vdi_header(field: &str, why: &str) -> Option<String> {
    let why = match field {
        "sector_size" => why.to_owned(),
        "block_size" => {
            let (size, _) = why.split_once(" is not a power")?;
            format!("{size} is not {VDI_BLOCK_BYTES}")
        }
        "disk_size" => {
            let (disk, room) =
                why.strip_prefix("disk size ")?.split_once(", block map has room for ")?;
            let (disk, most) = (disk.parse::<u64>().ok()?, VDI_MOST_BLOCKS * VDI_BLOCK_BYTES);
            if disk > most {
                let numbers = format!("size is {disk:#x}, max supported is {most:#x}");
                return Some(format!("Unsupported VDI image size ({numbers})"));
            }
            format!("disk size {disk}, image bitmap has room for {room}")
        }
        "offset_bmap" => {
            let (at, rest) = why.strip_prefix("block map at 0x")?.split_once(", with 0x")?;
            let (bytes, data) = rest.split_once(" bytes, overlaps the header or the data at 0x")?;
            let [at, bytes, data] =
                [at, bytes, data].map(|number| u64::from_str_radix(number, 16).ok());
            let (at, blocks, data) = (at?, bytes? / 4, data?);
            if data % 512 != 0 {
                format!("unaligned data offset {data:#x}")
            } else if at % 512 != 0 {
                format!("unaligned block map offset {at:#x}")
            } else if blocks > VDI_MOST_BLOCKS {
                format!("too many blocks {blocks}, max is {VDI_MOST_BLOCKS}")
            } else {
                return None;
            }
        }
        _ => return None,
    };
    Some(format!("unsupported VDI image ({why})"))
}

/// The only size of a block that QEMU knows, in bytes.
const VDI_BLOCK_BYTES: u64 = 1 << 20;

/// How many blocks an image has at most for QEMU.
const VDI_MOST_BLOCKS: u64 = 0x1fff_ff80;

/// What the system calls it when a snapshot is to count a cluster that nobody counts yet: QEMU
/// begins to, far away, and does not get there.
pub(crate) fn not_counted(error: &Error) -> Option<&'static str> {
    let Error::Corrupt { format: "qcow2", at, source } = error else { return None };
    if at.structure != "refcount table" {
        return None;
    }
    let why = source.to_string();
    let words = [
        ("no refcount block counts it", "Resource temporarily unavailable"),
        ("lies behind all that can be counted", "File too large"),
    ];
    words.into_iter().find(|(part, _)| why.contains(part)).map(|(_, words)| words)
}

/// Whether an error is about the L1 table of a snapshot: qemu-img says so on a line of its own, and
/// behind that what it was about to do, with these words of the system.
pub(crate) fn snapshot_l1(error: &Error) -> Option<&'static str> {
    let Error::Corrupt { format: "qcow2", at, .. } = error else { return None };
    let is_it = at.structure == "snapshot table" && at.field == "l1_table_offset";
    let is_large = error.source()?.to_string().contains("is too large");
    is_it.then_some(if is_large { "File too large" } else { "Invalid argument" })
}

/// What is too much of a snapshot table, and what to do about it.
pub(crate) fn snapshot_table(error: &Error) -> Option<String> {
    let why = error.source()?.to_string();
    let remedy = "with qemu-img check -r all";
    if why.starts_with("Too much extra metadata") {
        return Some(format!("{why}\nYou can force-remove this extra metadata {remedy}"));
    }
    let (what, rest) = why.split_once(": ")?;
    let count = rest.strip_suffix(" snapshots overhang")?;
    Some(format!("{what}\nYou can force-remove all {count} overhanging snapshots {remedy}"))
}
