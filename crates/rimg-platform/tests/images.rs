//! Images made by the recipes, and others, held against the rules.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg::{Creator, FORMATS, FileOptions, FileStorage, LocalFiles, OpenedImage, Opener};
use rimg_platform::{Platform, fill_holes, inspect};
use std::path::{Path, PathBuf};

struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An image with a little data.
    fn image(&self, format: &str, options: &[(&str, &str)], size: u64) -> PathBuf {
        let path = self.path(format);
        let mut creator = Creator::new(format).size(size);
        for (name, value) in options {
            creator = creator.option(*name, *value);
        }
        creator.create(&path).unwrap();
        let image =
            Opener::new().format(format).writable(true).policy(LocalFiles).open(&path).unwrap();
        image.writer().unwrap().write_at(&[7; 512], 1024).unwrap();
        image.close().unwrap();
        path
    }
}

fn folder() -> Folder {
    Folder(tempfile::tempdir().unwrap())
}

/// Files are named after their format: a fixed VHD has nothing at its start to know it by.
fn open(path: &Path) -> OpenedImage {
    let format = path.extension().or(path.file_name()).unwrap().to_str().unwrap();
    Opener::new().format(format).policy(LocalFiles).open(path).unwrap()
}

/// The rules that are broken, and what there is instead.
fn broken(platform: Platform, path: &Path) -> Vec<(&'static str, String)> {
    let verdicts = inspect(platform, &*open(path)).unwrap();
    verdicts.into_iter().filter_map(|verdict| Some((verdict.rule, verdict.broken?))).collect()
}

#[test]
fn what_the_recipes_make_breaks_no_rule() {
    for platform in Platform::ALL {
        let recipe = platform.recipe();
        let Some(format) = recipe.format else { continue };
        assert!(FORMATS.iter().any(|driver| driver.format().name == format), "{platform}");
        let folder = folder();
        let size = recipe.size_for(3_000_000).unwrap();
        let path = folder.image(format, recipe.options, size);
        if recipe.without_holes {
            fill_holes(&FileStorage::open(&path, FileOptions::write()).unwrap()).unwrap();
        }
        assert_eq!(broken(*platform, &path), [], "{platform}");
        assert!(inspect(*platform, &*open(&path)).unwrap().len() >= 4, "{platform}");
    }
}

#[test]
fn of_another_format_nothing_else_is_said() {
    let folder = folder();
    let path = folder.image("raw", &[], 1 << 20);
    for platform in Platform::ALL.iter().filter(|platform| **platform != Platform::Gcp) {
        let broken = broken(*platform, &path);
        assert_eq!(broken.len(), 1, "{platform}");
        assert_eq!(broken[0].1, "its format is raw");
    }
}

/// An image, and which rules it breaks how.
struct Case {
    platform: Platform,
    format: &'static str,
    options: &'static [(&'static str, &'static str)],
    size_bytes: u64,
    broken: &'static [(&'static str, &'static str)],
}

const CASES: &[Case] = &[
    Case {
        platform: Platform::Azure,
        format: "vpc",
        options: &[("subformat", "fixed"), ("force_size", "on")],
        size_bytes: 3_000_320,
        broken: &[("The size of the disk is a whole number of MiB", "it is 3000320 bytes")],
    },
    Case {
        platform: Platform::Azure,
        format: "vpc",
        options: &[("force_size", "on")],
        size_bytes: 1 << 20,
        broken: &[
            ("The VHD is of the fixed kind", "it is dynamic"),
            (
                "The file is the disk and a footer that names its size",
                "the footer says 1048576 bytes, and 2099712 lie before it",
            ),
        ],
    },
    Case {
        platform: Platform::Aws,
        format: "vmdk",
        options: &[],
        size_bytes: 1 << 20,
        broken: &[
            ("The VMDK is one streamOptimized extent", "the flags of its header are 0x3"),
            (
                "The grain directory is named by a footer at the end",
                "the header says sector 0x1a, the footer 0x0",
            ),
        ],
    },
    Case {
        platform: Platform::VirtualBox,
        format: "vdi",
        options: &[("static", "on")],
        size_bytes: 1 << 20,
        broken: &[("The VDI is dynamic", "its header says kind 2")],
    },
    Case {
        platform: Platform::OpenStack,
        format: "qcow2",
        options: &[("compat", "0.10")],
        size_bytes: 1 << 20,
        broken: &[("The qcow2 is of version 3", "it is of version 2")],
    },
    Case {
        platform: Platform::OpenStack,
        format: "qcow2",
        options: &[("data_file", "qcow2.data")],
        size_bytes: 1 << 20,
        broken: &[("The disk needs no other file", "it needs 'qcow2.data'")],
    },
];

#[test]
fn each_rule_is_named_when_it_is_broken() {
    let folder = folder();
    for case in CASES {
        let path = folder.image(case.format, case.options, case.size_bytes);
        let broken = broken(case.platform, &path);
        let broken: Vec<_> = broken.iter().map(|(rule, how)| (*rule, how.as_str())).collect();
        assert_eq!(broken, case.broken, "{}: {:?}", case.platform, case.options);
    }
}

#[test]
fn holes_and_images_below_are_seen() {
    let folder = folder();
    let path = folder.image("vhdx", &[], 64 << 20);
    let broken = |platform, path: &Path| broken(platform, path);
    assert_eq!(broken(Platform::HyperV, &path)[0].0, "The file is not sparse");

    folder.image("raw", &[], 1 << 20);
    let overlay = folder.path("overlay.qcow2");
    Creator::new("qcow2").backing("raw", "raw").create(&overlay).unwrap();
    let broken = broken(Platform::OpenStack, &overlay);
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].0, "The disk needs no other file");
}
