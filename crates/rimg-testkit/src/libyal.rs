//! Readers of disk images by Joachim Metz's libyal project, through Debian's Python bindings: they
//! read what qemu-img does not, such as VHDX images with parents.

use crate::peer::Peer;
use std::path::Path;

/// A library that is installed.
#[derive(Debug)]
pub struct Library {
    python: Peer,
    module: &'static str,
}

/// Reads the disk of the first image, whose parents are the others.
const PROGRAM: &str = include_str!("libyal.py");

impl Library {
    /// libvhdi: VHD and VHDX. `None` as for [`Peer::require`].
    #[must_use]
    pub fn vhdi() -> Option<Self> {
        let module = "pyvhdi";
        Peer::python(module).map(|python| Self { python, module })
    }

    /// SHA-256 of the disk of an image, followed by its parent, the parent's parent, and so on.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn sha256(&self, chain: &[&Path]) -> String {
        let start = ["-c", PROGRAM, self.module].map(AsRef::as_ref).into_iter();
        let output = self.python.ok(start.chain(chain.iter().map(|path| path.as_os_str())));
        output.trim_end().to_owned()
    }
}
