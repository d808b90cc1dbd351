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
    ("qcow2", "nb_snapshots", "Snapshot table too large"),
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
        Error::Corrupt { format: "vmdk", at, .. } if at.field == "line" => {
            let why = error.source()?.to_string();
            why.starts_with("invalid extent").then(|| why.replacen('i', "I", 1))
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
