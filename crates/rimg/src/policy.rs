//! Which files an image may refer to.

use rimg_core::{Dependency, Error, Result, Storage};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Decides about each file that an image names: its backing file, its data file.
///
/// The names come out of the image. Who made the image chose them, so a service that opens
/// strangers' images must not follow them: [`DenyAll`] is the default. Closures are policies, too:
/// ```
/// use rimg::{Dependency, Error, Grant, Opener};
/// use std::path::Path;
///
/// let only_bases = |wanted: &Dependency<'_>, _from: Option<&Path>| match wanted.name {
///     "base.qcow2" => Ok(Grant::File("/srv/images/base.qcow2".into())),
///     other => Err(Error::Denied(format!("no base image is called '{other}'"))),
/// };
/// let opener = Opener::new().policy(only_bases);
/// # let _ = opener;
/// ```
pub trait Policy: Send + Sync {
    /// What may be opened for `wanted`, which the image at `from` names. `from` is `None` for an
    /// image that is no local file.
    ///
    /// # Errors
    /// [`Error::Denied`] with the reason; it should contain the name.
    fn decide(&self, wanted: &Dependency<'_>, from: Option<&Path>) -> Result<Grant>;
}

/// What a [`Policy`] gives for a name.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Grant {
    /// This local file, to be opened with the same cache mode and locks as the image. It has to be
    /// a regular file or a block device.
    File(PathBuf),
    /// These bytes, opened already.
    Storage(Arc<dyn Storage>),
}

impl<F> Policy for F
where
    F: Fn(&Dependency<'_>, Option<&Path>) -> Result<Grant> + Send + Sync,
{
    fn decide(&self, wanted: &Dependency<'_>, from: Option<&Path>) -> Result<Grant> {
        self(wanted, from)
    }
}

/// Opens nothing: the default. Images that stand alone work as ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenyAll;

impl Policy for DenyAll {
    fn decide(&self, wanted: &Dependency<'_>, _from: Option<&Path>) -> Result<Grant> {
        Err(Error::Denied(format!(
            "{} '{}' is not opened: no policy allows it",
            wanted.role, wanted.name
        )))
    }
}

/// Opens every local file that the user may open, as qemu-img does: only for images whose maker
/// the user trusts. Names with a protocol are refused (see [`resolve_name`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl Policy for LocalFiles {
    fn decide(&self, wanted: &Dependency<'_>, from: Option<&Path>) -> Result<Grant> {
        resolve_name(from, wanted.name).map(Grant::File)
    }
}

/// Opens what lies in a directory or below it, once symbolic links are followed.
///
/// Whoever can change the directory while images are opened can get around it with links.
#[derive(Debug, Clone)]
pub struct WithinDirectory {
    root: PathBuf,
}

impl WithinDirectory {
    /// Allows `root` and what is below.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref().canonicalize()?;
        if root.is_dir() { Ok(Self { root }) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }
}

impl Policy for WithinDirectory {
    fn decide(&self, wanted: &Dependency<'_>, from: Option<&Path>) -> Result<Grant> {
        let path = canonical(&resolve_name(from, wanted.name)?)?;
        if path.starts_with(&self.root) {
            Ok(Grant::File(path))
        } else {
            Err(Error::Denied(format!(
                "{} '{}' is not opened: it is outside of '{}'",
                wanted.role,
                wanted.name,
                self.root.display()
            )))
        }
    }
}

/// Opens the files on a list, once symbolic links are followed.
#[derive(Debug, Clone)]
pub struct ListedFiles {
    files: Vec<PathBuf>,
}

impl ListedFiles {
    /// Allows these files.
    ///
    /// # Errors
    /// When one is not there.
    pub fn new<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> io::Result<Self> {
        let files: io::Result<_> =
            files.into_iter().map(|file| file.as_ref().canonicalize()).collect();
        Ok(Self { files: files? })
    }
}

impl Policy for ListedFiles {
    fn decide(&self, wanted: &Dependency<'_>, from: Option<&Path>) -> Result<Grant> {
        let path = canonical(&resolve_name(from, wanted.name)?)?;
        if self.files.contains(&path) {
            Ok(Grant::File(path))
        } else {
            Err(Error::Denied(format!(
                "{} '{}' is not opened: it is not on the list",
                wanted.role, wanted.name
            )))
        }
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io("follow symbolic links", 0))
}

/// The local file that `name` means in the image at `from`.
///
/// Relative names start from the image's directory (links to the image are not followed first).
/// The prefix `file:` is cut off, and what is left starts from the current directory if it is
/// relative: so QEMU does it.
///
/// # Errors
/// [`Error::Denied`] for other protocols (`nbd:`, `https:`), for `json:`, for an empty name, and
/// for a relative one in an image that is no local file.
pub fn resolve_name(from: Option<&Path>, name: &str) -> Result<PathBuf> {
    let path = local_path(name)?;
    if path.is_absolute() || name.starts_with(FILE_PREFIX) {
        return Ok(path);
    }
    match from {
        Some(from) => Ok(from.parent().map_or_else(|| path.clone(), |folder| folder.join(&path))),
        None => Err(Error::Denied(format!(
            "'{name}' is not opened: it is relative to an image that is no local file"
        ))),
    }
}

/// The path that a name means where QEMU would take a protocol, too.
///
/// # Errors
/// [`Error::Denied`] for protocols other than `file:` and for an empty name. A file whose name
/// has a colon before its first slash is reached with `./` in front.
pub fn local_path(name: &str) -> Result<PathBuf> {
    let path = name.strip_prefix(FILE_PREFIX).unwrap_or(name);
    if path.is_empty() {
        return Err(Error::Denied("a file name is empty".to_owned()));
    }
    match protocol(path) {
        Some(protocol) if path.len() == name.len() => {
            Err(Error::Denied(format!("'{name}' is not opened: protocol '{protocol}'")))
        }
        _ => Ok(PathBuf::from(path)),
    }
}

const FILE_PREFIX: &str = "file:";

/// What is before the first colon, unless a slash is.
fn protocol(name: &str) -> Option<&str> {
    let end = name.find([':', '/'])?;
    let (protocol, rest) = name.split_at(end);
    rest.starts_with(':').then_some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_core::DependencyRole;

    #[test]
    fn names_are_opaque_paths() {
        let from = Some(Path::new("dir/top.qcow2"));
        for (name, expected) in [
            ("base", "dir/base"),
            ("sub/base", "dir/sub/base"),
            ("../base", "dir/../base"),
            ("/abs/base", "/abs/base"),
            ("./a:b", "dir/./a:b"),
            ("sub/a:b", "dir/sub/a:b"),
            ("file:base", "base"),
            ("file:a:b", "a:b"),
            ("file:///abs", "///abs"),
        ] {
            assert_eq!(resolve_name(from, name).unwrap(), Path::new(expected), "{name}");
        }
        for name in ["json:{}", "nbd://host/x", "nbd:unix:/s", "foo:bar", "", "file:", ":x"] {
            assert!(matches!(resolve_name(from, name), Err(Error::Denied(_))), "{name}");
        }
        assert!(matches!(resolve_name(None, "base"), Err(Error::Denied(_))));
        assert_eq!(resolve_name(Some(Path::new("top")), "base").unwrap(), Path::new("base"));
    }

    #[test]
    fn links_do_not_lead_out_of_a_directory() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), b"x").unwrap();
        std::fs::write(root.path().join("base"), b"x").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("link"))
            .unwrap();
        let within = WithinDirectory::new(root.path()).unwrap();
        let listed = ListedFiles::new([root.path().join("base")]).unwrap();
        let from = root.path().join("top");
        let secret = outside.path().join("secret");
        let policies: [&dyn Policy; 2] = [&within, &listed];
        for policy in policies {
            let decide = |name: &str| {
                let role = DependencyRole::Backing;
                let wanted = Dependency { role, name, format: None, writable: false };
                policy.decide(&wanted, Some(&from))
            };
            assert!(matches!(decide("base"), Ok(Grant::File(_))));
            assert!(matches!(decide("./base"), Ok(Grant::File(_))));
            assert!(matches!(decide("link"), Err(Error::Denied(_))));
            assert!(matches!(decide(secret.to_str().unwrap()), Err(Error::Denied(_))));
            assert!(matches!(decide("missing"), Err(Error::Io { .. })));
        }
    }
}
