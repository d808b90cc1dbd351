//! Leaving no target behind that looks finished.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Watches over the files of a target while they are incomplete. Unless it is told that they are
/// [complete](Self::complete), they are removed when it is dropped, as far as they are regular
/// files that were made for this target.
///
/// ```
/// use rimg_convert::TargetGuard;
///
/// # let folder = std::env::temp_dir().join(format!("rimg-guard-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("target.raw");
/// let guard = TargetGuard::created([&path]);
/// std::fs::write(&path, "half of it")?;
/// let leftover = guard.abandon();
/// assert!(!path.exists());
/// assert!(leftover.to_string().ends_with("is incomplete and was removed"));
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the guard removes the target"]
pub struct TargetGuard {
    files: Vec<PathBuf>,
    removable: bool,
}

impl TargetGuard {
    /// Watches over files that were made, or emptied, for the target; the first one is the
    /// target's own.
    pub fn created<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        let files = files.into_iter().map(|path| path.as_ref().to_owned()).collect();
        Self { files, removable: true }
    }

    /// Stands for a target that was there before (`-n`, a device): it is never removed.
    pub fn existing(file: impl AsRef<Path>) -> Self {
        Self { files: vec![file.as_ref().to_owned()], removable: false }
    }

    /// The target is complete: the files stay.
    pub fn complete(mut self) {
        self.files.clear();
    }

    /// The target will not be completed: removes what can be removed, and says in words what is
    /// left.
    pub fn abandon(mut self) -> Leftover {
        let target = self.files.first().cloned().unwrap_or_default();
        Leftover { target, removed: self.remove() }
    }

    /// Whether nothing is left.
    fn remove(&mut self) -> bool {
        let removable = self.removable;
        self.files.drain(..).fold(true, |all, path| {
            // Never through a symbolic link: what it points to was there before.
            let regular = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
            let gone = removable && regular && fs::remove_file(&path).is_ok();
            all && gone
        })
    }
}

impl Drop for TargetGuard {
    fn drop(&mut self) {
        self.remove();
    }
}

/// What became of a target that was not completed. `Display` says it to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    target: PathBuf,
    removed: bool,
}

impl Leftover {
    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.display();
        if self.removed {
            write!(f, "'{target}' is incomplete and was removed")
        } else {
            write!(f, "'{target}' is incomplete: do not use it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["own", "data", "kept", "old"] {
            fs::write(path(name), "bytes").unwrap();
        }
        drop(TargetGuard::created([path("own"), path("data")]));
        assert!(!path("own").exists() && !path("data").exists());

        TargetGuard::created([path("kept")]).complete();
        assert!(path("kept").exists());

        let leftover = TargetGuard::existing(path("old")).abandon();
        assert!(path("old").exists() && !leftover.is_removed());
        assert!(leftover.to_string().ends_with("is incomplete: do not use it"));
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "bytes").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let leftover = TargetGuard::created([&link]).abandon();
        assert!(file.exists() && link.exists() && !leftover.is_removed());
        assert!(!TargetGuard::created(["/dev/null"]).abandon().is_removed());
    }
}
