//! `testdata/manifest.json`

use crate::Result;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

#[derive(Debug)]
pub(super) struct Manifest {
    /// Program and version.
    pub(super) tools: Vec<(String, String)>,
    pub(super) entries: Vec<Entry>,
}

/// One file of `testdata/`.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path below `testdata/`.
    pub(super) file: String,
    pub(super) format: String,
    /// What is special about it.
    pub(super) about: String,
    /// Run by `sh` in the file's folder.
    pub(super) commands: Vec<String>,
    pub(super) file_sha256: String,
    pub(super) virtual_size_bytes: Option<u64>,
    /// Of the whole guest disk, backing files included.
    pub(super) guest_sha256: Option<String>,
    /// Name and SHA-256 of the guest disk in it.
    pub(super) snapshots: Vec<(String, String)>,
    /// What opens an encrypted image, as `encrypt.key-secret`.
    pub(super) passphrase: Option<String>,
    /// For images that must not open: the variant of `rimg_core::Error`, and a part of its chain
    /// of messages.
    pub(super) refused: Option<(String, String)>,
}

const NAME: &str = "manifest.json";

impl Manifest {
    pub(super) fn read(testdata: &Path) -> Result<Self> {
        let path = testdata.join(NAME);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let value: Value = serde_json::from_str(&text)?;
        let tools = value["tools"].as_object().ok_or("manifest: no tools")?;
        let entries = value["files"].as_array().ok_or("manifest: no files")?;
        Ok(Self {
            tools: pairs(tools)?,
            entries: entries.iter().map(Entry::from_json).collect::<Result<_>>()?,
        })
    }

    pub(super) fn write(&self, testdata: &Path) -> Result {
        let tools: Map<String, Value> =
            self.tools.iter().map(|(name, version)| (name.clone(), json!(version))).collect();
        let files: Vec<Value> = self.entries.iter().map(Entry::to_json).collect();
        let text = serde_json::to_string_pretty(&json!({ "tools": tools, "files": files }))?;
        Ok(fs::write(testdata.join(NAME), text + "\n")?)
    }
}

impl Entry {
    fn from_json(value: &Value) -> Result<Self> {
        let refused = &value["refused"];
        let commands = value["commands"].as_array().ok_or("manifest: no commands")?;
        Ok(Self {
            file: text(&value["file"])?,
            format: text(&value["format"])?,
            about: text(&value["about"])?,
            commands: commands.iter().map(text).collect::<Result<_>>()?,
            file_sha256: text(&value["file_sha256"])?,
            virtual_size_bytes: value["virtual_size_bytes"].as_u64(),
            guest_sha256: value["guest_sha256"].as_str().map(str::to_owned),
            snapshots: value["snapshots"].as_object().map_or(Ok(Vec::new()), pairs)?,
            passphrase: value["passphrase"].as_str().map(str::to_owned),
            refused: match refused.is_object() {
                true => Some((text(&refused["error"])?, text(&refused["says"])?)),
                false => None,
            },
        })
    }

    fn to_json(&self) -> Value {
        let mut value = json!({
            "file": self.file,
            "format": self.format,
            "about": self.about,
            "commands": self.commands,
            "file_sha256": self.file_sha256,
        });
        if let Some(size) = self.virtual_size_bytes {
            value["virtual_size_bytes"] = json!(size);
        }
        if let Some(sha) = &self.guest_sha256 {
            value["guest_sha256"] = json!(sha);
        }
        for (name, sha) in &self.snapshots {
            value["snapshots"][name] = json!(sha);
        }
        if let Some(passphrase) = &self.passphrase {
            value["passphrase"] = json!(passphrase);
        }
        if let Some((error, says)) = &self.refused {
            value["refused"] = json!({ "error": error, "says": says });
        }
        value
    }
}

fn pairs(object: &Map<String, Value>) -> Result<Vec<(String, String)>> {
    object.iter().map(|(key, value)| Ok((key.clone(), text(value)?))).collect()
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().ok_or("manifest: a text is missing")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_the_manifest() {
        let entry = Entry {
            file: "qcow2/a.qcow2".to_owned(),
            format: "qcow2".to_owned(),
            about: "x".to_owned(),
            commands: vec!["one".to_owned(), "two".to_owned()],
            file_sha256: "00".to_owned(),
            virtual_size_bytes: Some(7),
            guest_sha256: Some("01".to_owned()),
            snapshots: vec![("s".to_owned(), "02".to_owned())],
            passphrase: Some("pass".to_owned()),
            refused: Some(("Unsupported".to_owned(), "why".to_owned())),
        };
        let again = Entry::from_json(&entry.to_json()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{entry:?}"));
    }
}
