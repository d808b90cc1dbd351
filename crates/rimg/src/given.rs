//! Files that the caller names himself, by options, in place of those that an image names:
//! `backing.file.filename` and `data-file.filename`.

use rimg_core::{Error, RawOptions, Result};
use std::path::PathBuf;

/// Options of the image below start so.
const BACKING: &str = "backing.";
/// Options of the data file start so.
const DATA_FILE: &str = "data-file.";

/// What was said of the files of one image.
#[derive(Debug)]
pub(crate) struct Given {
    /// Of the image below.
    pub(crate) backing: GivenBacking,
    /// The data file.
    pub(crate) data_file: Option<PathBuf>,
    /// What is left for the image's own format.
    pub(crate) own: RawOptions,
}

/// What was said of the image below.
#[derive(Debug)]
pub(crate) struct GivenBacking {
    pub(crate) path: Option<PathBuf>,
    pub(crate) format: Option<String>,
    /// What is left for its format, and what is below it.
    pub(crate) options: RawOptions,
}

impl Given {
    /// Takes the options of an image apart.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of QEMU for a data file that there cannot be.
    pub(crate) fn of(options: &RawOptions) -> Result<Self> {
        let (below, rest) = options.split_prefix(BACKING);
        let (data_file, own) = rest.split_prefix(DATA_FILE);
        Ok(Self {
            backing: GivenBacking::of(below),
            data_file: path_of_data_file(&data_file)?,
            own,
        })
    }
}

impl GivenBacking {
    fn of(mut options: RawOptions) -> Self {
        let format = options.value("driver").map(ToOwned::to_owned);
        let path = options.value("file.filename").map(PathBuf::from);
        let is_file = |driver| matches!(driver, "file" | "host_device");
        if options.value("file.driver").is_some_and(is_file) {
            options.remove("file.driver");
        }
        options.remove("driver");
        options.remove("file.filename");
        Self { path, format, options }
    }

    /// The name of something that was said, if anything was.
    pub(crate) fn first(&self) -> Option<String> {
        let said = match (&self.path, &self.format) {
            (Some(_), _) => Some("file.filename"),
            (None, Some(_)) => Some("driver"),
            (None, None) => self.options.iter().map(|(name, _)| name).next(),
        };
        said.map(|name| format!("{BACKING}{name}"))
    }
}

/// The path of a data file: its own, or that of the file in a raw image.
fn path_of_data_file(options: &RawOptions) -> Result<Option<PathBuf>> {
    let refuse = |reason: String| Err(Error::InvalidOption { option: "data-file", reason });
    if options.iter().next().is_none() {
        return Ok(None);
    }
    let (name, driver) = match options.value("driver") {
        None if options.value("filename").is_none() => {
            return refuse("Must specify either driver or file".to_owned());
        }
        None | Some("file" | "host_device") => ("filename", "driver"),
        Some("raw") => ("file.filename", "file.driver"),
        Some(other) => return refuse(format!("Unknown driver '{other}'")),
    };
    let known = |option: &str| [name, driver, "driver"].contains(&option);
    if let Some((unknown, _)) = options.iter().find(|(option, _)| !known(option)) {
        let unknown = unknown.strip_prefix("file.").unwrap_or(unknown);
        return refuse(format!("Block protocol 'file' doesn't support the option '{unknown}'"));
    }
    match options.value(name) {
        Some(path) => Ok(Some(path.into())),
        None => refuse("The 'file' block driver requires a file name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(options: &[(&str, &str)]) -> Result<Given, String> {
        let mut raw = RawOptions::new();
        for (name, value) in options {
            raw.set(*name, *value);
        }
        Given::of(&raw).map_err(|error| error.to_string())
    }

    #[test]
    fn each_file_has_its_own_options() {
        let given = given(&[
            ("backing.driver", "qcow2"),
            ("encrypt.key-secret", "s"),
            ("backing.file.driver", "file"),
            ("backing.file.filename", "b"),
            ("backing.backing.file.filename", "c"),
            ("data-file.driver", "raw"),
            ("data-file.file.filename", "d"),
        ])
        .unwrap();
        assert_eq!(given.backing.path, Some("b".into()));
        assert_eq!(given.backing.format.as_deref(), Some("qcow2"));
        let below: Vec<_> = given.backing.options.iter().collect();
        assert_eq!(below, [("backing.file.filename", "c")]);
        assert_eq!(given.data_file, Some("d".into()));
        assert_eq!(given.own.iter().collect::<Vec<_>>(), [("encrypt.key-secret", "s")]);
    }

    #[test]
    fn data_files_are_plain_files() {
        let refused = |options: &[(&str, &str)]| given(options).unwrap_err();
        assert_eq!(
            refused(&[("data-file.file.filename", "d")]),
            "Must specify either driver or file"
        );
        assert_eq!(refused(&[("data-file.driver", "qcow2")]), "Unknown driver 'qcow2'");
        assert_eq!(
            refused(&[("data-file.filename", "d"), ("data-file.foo", "1")]),
            "Block protocol 'file' doesn't support the option 'foo'"
        );
    }
}
