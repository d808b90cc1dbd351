//! What every crate has, and where a format crate keeps what.

use super::{Finding, Source, layers};
use crate::metadata::Package;
use std::path::{Component, Path};

/// The files of a format crate's `src/`, or folders of these names whose insides are free. One
/// name has one role in every format, so who knows one crate finds his way in all.
const FORMAT_FILES: &[(&str, &str)] = &[
    ("lib", "documentation, modules, the driver"),
    ("driver", "probe, open, create"),
    ("options", "option text to typed options"),
    ("spec", "magics, masks and sizes, each citing its section"),
    ("address", "newtypes and their arithmetic"),
    ("header", "parse and encode the header"),
    ("descriptor", "a textual header (vmdk, parallels bundles)"),
    ("table", "mapping entries to and from an enum"),
    ("refcount", "who owns which cluster"),
    ("bitmap", "dirty and allocation bitmaps"),
    ("log", "a journal replayed at open (vhdx)"),
    ("cache", "metadata held in memory, and the order in which it is written"),
    ("map", "guest offset to host offset through cached tables"),
    ("image", "the open image"),
    ("info", "what the image says of itself"),
    ("read", "guest reads"),
    ("write", "guest writes"),
    ("zero", "zeroes and discards"),
    ("compress", "compressed writes"),
    ("crypt", "encryption of guest data"),
    ("inflight", "who is at work on what, outside the lock"),
    ("flush", "the order in which metadata becomes durable"),
    ("allocate", "finding room in the file"),
    ("preallocate", "room before it is written to"),
    ("create", "a new image"),
    ("stream", "an image written front to back"),
    ("resize", "growing and shrinking"),
    ("snapshot", "internal snapshots"),
    ("check", "consistency and repair"),
    ("overlay", "what lies below, and emptying what lies above"),
    ("amend", "changing options of an existing image"),
    ("measure", "how large an image would become"),
    ("bochs", "growing images of Bochs (legacy)"),
    ("cloop", "compressed loop images (legacy)"),
    ("dmg", "disk images of macOS (legacy)"),
    ("error", "the ways in which the format can be corrupt"),
];

/// The integration tests of a format crate: one file a kind of test, and what they share.
const FORMAT_TESTS: &[&str] = &[
    "capability",
    "golden",
    "model",
    "hostile",
    "crash",
    "concurrent",
    "peer",
    "layout",
    "check",
    "corpus",
    "bitmap",
    "common",
];

/// The one module that may use unsafe code: mapping a file has no safe form.
const MMAP: &str = "crates/rimg-storage/src/mmap";

/// Checks the crates' roots and the file names of the format crates.
pub(super) fn check(members: &[Package], sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in members {
        for target in &package.targets {
            if !matches!(&*target.kind, "lib" | "bin" | "proc-macro") {
                continue;
            }
            let root = sources.iter().find(|source| source.path == target.source);
            findings.extend(root.and_then(|root| check_root(package, root)));
        }
        if layers::FORMAT_CRATES.contains(&&*package.name) {
            let folder = package.manifest.parent().unwrap_or(Path::new(""));
            findings.extend(sources.iter().filter_map(|source| check_format_file(folder, source)));
        }
    }
    findings.extend(sources.iter().filter_map(check_unsafe));
    findings
}

/// Every crate is laid on the workspace's lints.
pub(super) fn check_manifest(package: &Package, manifest: &str) -> Option<Finding> {
    let inherits = manifest
        .split("\n[")
        .any(|table| table.starts_with("lints]") && table.contains("workspace = true"));
    (!inherits).then(|| Finding {
        path: package.manifest.display().to_string(),
        what: "has no `[lints] workspace = true`".to_owned(),
        why: "the lints of the workspace hold for every crate",
    })
}

/// Every crate introduces itself.
pub(super) fn check_readme(package: &Package, exists: bool) -> Option<Finding> {
    (!exists).then(|| Finding {
        path: package.manifest.with_file_name("README.md").display().to_string(),
        what: "is missing".to_owned(),
        why: "a reader of the folder needs to know what the crate is for",
    })
}

fn check_root(package: &Package, root: &Source) -> Option<Finding> {
    // Without the feature that needs it, even the exception is none.
    let but_for_mmap = [
        "#![cfg_attr(not(feature = \"mmap\"), forbid(unsafe_code))]",
        "#![cfg_attr(feature = \"mmap\", deny(unsafe_code))]",
    ];
    let forbids = root.text.contains("#![forbid(unsafe_code)]")
        || package.name == "rimg-storage"
            && but_for_mmap.iter().all(|line| root.text.contains(line));
    (!forbids).then(|| Finding {
        path: root.path.display().to_string(),
        what: "does not say `#![forbid(unsafe_code)]`".to_owned(),
        why: "memory safety is the first thing that rimg promises",
    })
}

/// `rimg-storage` denies rather than forbids, so its exceptions have to be looked for.
fn check_unsafe(source: &Source) -> Option<Finding> {
    let lifted = ["expect(unsafe_code", "allow(unsafe_code"];
    let found = lifted.iter().any(|attribute| source.text.contains(attribute));
    let exempt = source.path.to_string_lossy().starts_with(MMAP) || is_tidy(&source.path);
    (found && !exempt).then(|| Finding {
        path: source.path.display().to_string(),
        what: "lifts the ban on unsafe code".to_owned(),
        why: "only the memory mapping module of rimg-storage may",
    })
}

fn check_format_file(folder: &Path, source: &Source) -> Option<Finding> {
    let inside = source.path.strip_prefix(folder).ok()?;
    let mut parts = inside.components();
    let part = parts.next()?;
    let below = Path::new(parts.next()?.as_os_str()).file_stem()?.to_str()?;
    let (known, why): (bool, _) = match part {
        Component::Normal(name) if name == "src" => (
            FORMAT_FILES.iter().any(|(file, _)| *file == below),
            "format crates are all laid out the same: see FORMAT_FILES in crates/xtask/src/tidy/files.rs",
        ),
        Component::Normal(name) if name == "tests" => (
            FORMAT_TESTS.contains(&below),
            "a format's tests are sorted by kind: see FORMAT_TESTS in crates/xtask/src/tidy/files.rs",
        ),
        _ => return None,
    };
    (!known).then(|| Finding {
        path: source.path.display().to_string(),
        what: "is not a file of a format crate".to_owned(),
        why,
    })
}

/// The rules spell out what they look for.
fn is_tidy(path: &Path) -> bool {
    path.starts_with("crates/xtask/src/tidy")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Target;

    fn package(name: &str) -> Package {
        let root = format!("crates/{name}/src/lib.rs");
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: None,
            manifest: format!("crates/{name}/Cargo.toml").into(),
            dependencies: Vec::new(),
            targets: vec![Target {
                name: name.to_owned(),
                kind: "lib".to_owned(),
                source: root.into(),
            }],
        }
    }

    fn paths(name: &str, sources: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = sources.iter().map(|(path, text)| Source::new(path, text)).collect();
        check(&[package(name)], &sources).into_iter().map(|finding| finding.path).collect()
    }

    const FORBID: &str = "#![forbid(unsafe_code)]";

    #[test]
    fn a_root_that_allows_unsafe_code_is_found() {
        assert_eq!(paths("rimg-core", &[("crates/rimg-core/src/lib.rs", FORBID)]), [""; 0]);
        let root = "crates/rimg-core/src/lib.rs";
        assert_eq!(paths("rimg-core", &[(root, "")]), [root]);
        assert_eq!(paths("rimg-core", &[(root, "#![deny(unsafe_code)]")]), [root]);
    }

    #[test]
    fn the_storage_may_lift_the_ban_for_its_feature_only() {
        let storage = "crates/rimg-storage/src/lib.rs";
        let without = "#![cfg_attr(not(feature = \"mmap\"), forbid(unsafe_code))]\n";
        let with = "#![cfg_attr(feature = \"mmap\", deny(unsafe_code))]\n";
        let both = format!("{without}{with}");
        assert_eq!(paths("rimg-storage", &[(storage, &both)]), [""; 0]);
        assert_eq!(paths("rimg-storage", &[(storage, with)]), [storage]);
        assert_eq!(paths("rimg-storage", &[(storage, without)]), [storage]);
    }

    #[test]
    fn only_the_mapping_module_may_lift_the_ban() {
        let lift = "#![expect(unsafe_code, reason = \"…\")]";
        assert_eq!(paths("rimg-storage", &[("crates/rimg-storage/src/mmap.rs", lift)]), [""; 0]);
        let file = "crates/rimg-storage/src/file.rs";
        assert_eq!(paths("rimg-storage", &[(file, lift)]), [file]);
    }

    #[test]
    fn a_format_crate_has_the_known_files_only() {
        let fine = [
            ("crates/rimg-qcow2/src/lib.rs", FORBID),
            ("crates/rimg-qcow2/src/header.rs", ""),
            ("crates/rimg-qcow2/src/header/anything.rs", ""),
            ("crates/rimg-qcow2/tests/hostile.rs", ""),
            ("crates/rimg-qcow2/Cargo.toml", ""),
        ];
        assert_eq!(paths("rimg-qcow2", &fine), [""; 0]);
        for stray in ["src/utils.rs", "src/utils/mod.rs", "tests/misc.rs"] {
            let stray = format!("crates/rimg-qcow2/{stray}");
            assert_eq!(paths("rimg-qcow2", &[(&stray, "")]), [stray]);
        }
        // The rule is about formats: others name their files freely.
        assert_eq!(paths("rimg-convert", &[("crates/rimg-convert/src/plan.rs", "")]), [""; 0]);
    }

    #[test]
    fn a_manifest_without_the_workspace_lints_is_found() {
        let package = package("rimg-core");
        let with = "[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n";
        assert_eq!(check_manifest(&package, with), None);
        for without in ["[package]\n", "[package]\nversion.workspace = true\n[lints]\n[features]\n"]
        {
            assert!(check_manifest(&package, without).is_some(), "{without}");
        }
    }

    #[test]
    fn a_missing_readme_is_found() {
        let package = package("rimg-core");
        assert_eq!(check_readme(&package, true), None);
        let path = check_readme(&package, false).unwrap().path;
        assert_eq!(path, "crates/rimg-core/README.md");
    }
}
