//! Every Parallels image of `testdata/` reads as its manifest says, or is refused as it says.

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, FormatDriver as _, Limits, OpenOptions,
    RawOptions, Result, Storage,
};
use rimg_parallels::DRIVER;
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::{digest, golden};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[test]
fn images_read_as_the_manifest_says() {
    golden::for_each("parallels", |golden| {
        let gate = Beside(golden.path().parent().unwrap().to_owned());
        match (&golden.refused, gate.image(&golden.path())) {
            (Some(refused), Err(error)) => {
                assert!(format!("{error:?}").starts_with(&refused.error), "{error:?}");
                let chain = chain_of(&error);
                assert!(chain.contains(&refused.says), "{}: {chain}", golden.file);
            }
            (None, Ok(image)) => {
                assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes);
                let found = digest::of_guest(image.as_ref()).unwrap();
                assert_eq!(Some(&found), golden.guest_sha256.as_ref(), "{}", golden.file);
                assert_eq!(image.info().unwrap().format, "parallels");
            }
            (Some(_), Ok(_)) => panic!("{}: opened", golden.file),
            (None, Err(error)) => panic!("{}: {}", golden.file, chain_of(&error)),
        }
    });
}

fn chain_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Opens what lies in the same folder.
struct Beside(PathBuf);

impl Beside {
    fn image(&self, path: &Path) -> Result<Box<dyn BlockImage>> {
        let how = OpenOptions {
            writable: false,
            inspect_only: false,
            limits: Limits::default(),
            gate: self,
            options: RawOptions::NONE,
        };
        DRIVER.open(self.storage(path)?, &how)
    }

    fn storage(&self, path: &Path) -> Result<Arc<dyn Storage>> {
        let file = FileStorage::open(path, FileOptions::read()).map_err(Error::io("open", 0))?;
        Ok(Arc::new(file))
    }
}

impl DependencyGate for Beside {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        self.storage(&self.0.join(wanted.name))
    }

    fn open_image(&self, _: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Ok(None)
    }
}
