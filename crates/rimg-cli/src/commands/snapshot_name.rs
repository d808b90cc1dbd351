//! `-l`: an internal snapshot in place of the image as it is.

use crate::images::Opened;
use crate::message::{Stop, describe};
use crate::options::OptionList;
use rimg::{BlockImage, SnapshotSelector};

/// How `-l` names a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SnapshotName {
    /// An ID, or else a name.
    IdOrName(String),
    /// What has to fit.
    Fields {
        /// The ID.
        id: Option<String>,
        /// The name.
        name: Option<String>,
    },
}

impl SnapshotName {
    /// Reads the value of `-l`. `warn` is told what is not wrong enough to stop.
    pub(super) fn parse(value: &str, warn: &mut dyn FnMut(&str)) -> Result<Self, Stop> {
        if !value.starts_with("snapshot.") {
            return Ok(Self::IdOrName(value.to_owned()));
        }
        let failed = || Stop::failed(format!("Failed in parsing snapshot param '{value}'"));
        let mut list = OptionList::default();
        list.add(value).map_err(|_| failed())?;
        list.short_form_warnings().for_each(|warning| warn(&warning));
        let (mut id, mut name) = (None, None);
        for (key, text) in list.iter() {
            match key {
                "snapshot.id" => id = Some(text.to_owned()),
                "snapshot.name" => name = Some(text.to_owned()),
                other => {
                    warn(&format!("Invalid parameter '{other}'"));
                    return Err(failed());
                }
            }
        }
        Ok(Self::Fields { id, name })
    }

    /// The disk as the snapshot has it.
    pub(super) fn open(&self, image: &Opened) -> Result<Box<dyn BlockImage>, Stop> {
        let failed = |reason: String| Stop::failed(format!("Failed to load snapshot: {reason}"));
        let snapshots = image.disk().snapshots().ok_or_else(|| {
            failed(format!(
                "Block format '{}' used by device '' does not support temporarily loading \
                 internal snapshots",
                image.format()
            ))
        })?;
        let selector = match self {
            Self::IdOrName(word) => SnapshotSelector::IdOrName(word),
            Self::Fields { id, name } => {
                SnapshotSelector::Fields { id: id.as_deref(), name: name.as_deref() }
            }
        };
        let found = snapshots.open(&selector).map_err(|error| failed(describe(&error)))?;
        found.ok_or_else(|| failed("Can't find snapshot".to_owned()))
    }
}
