//! Dependencies point downward only: what is below can be understood, tested and reused without
//! what is above.

use super::Finding;
use crate::metadata::{Dependency, Kind, Package};

/// The layers, lowest first. Crates of one layer do not depend on each other.
const LAYERS: &[(&str, &[&str])] = &[
    ("core", &["rimg-core"]),
    ("parts", &["rimg-storage", "rimg-codec", "rimg-crypto"]),
    ("engine", &["rimg-blocks"]),
    (FORMATS, FORMAT_CRATES),
    ("facade", &["rimg"]),
    ("services", &["rimg-convert", "rimg-platform"]),
    ("apps", &["rimg-cli"]),
];

const FORMATS: &str = "formats";

/// The crates that are laid out as format crates.
pub(super) const FORMAT_CRATES: &[&str] = &[
    "rimg-raw",
    "rimg-qcow2",
    "rimg-qcow",
    "rimg-qed",
    "rimg-vmdk",
    "rimg-vhd",
    "rimg-vhdx",
    "rimg-vdi",
    "rimg-parallels",
    "rimg-luks",
    "rimg-legacy",
];

/// Helpers of the tests: any crate's tests may use it; itself it stands on core and storage.
const TESTKIT: &str = "rimg-testkit";
const TESTKIT_USES: &[&str] = &["rimg-core", "rimg-storage"];

/// Programs that only developers run: they may use everything, nothing may use them.
const DEVELOPER_ONLY: &[&str] = &["xtask", "rimg-benches"];

/// Checks every dependency between two packages of the workspace.
pub(super) fn check(members: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in members {
        if !is_known(&package.name) {
            findings.push(finding(
                package,
                "is in no layer".to_owned(),
                "add it to the table in crates/xtask/src/tidy/layers.rs, so that its place is a decision",
            ));
        }
        for dependency in &package.dependencies {
            let ours = members.iter().any(|member| member.name == dependency.name);
            if ours && let Some(why) = broken_rule(&package.name, dependency) {
                let kind = if dependency.kind == Kind::Dev { "dev-depends" } else { "depends" };
                findings.push(finding(package, format!("{kind} on {}", dependency.name), why));
            }
        }
    }
    findings
}

/// The facade's examples show how to convert, too: that is where people look for it.
const FOR_EXAMPLES: (&str, &str, Kind) = ("rimg", "rimg-convert", Kind::Dev);

fn is_known(name: &str) -> bool {
    layer(name).is_some() || name == TESTKIT || DEVELOPER_ONLY.contains(&name)
}

/// Why `from` must not depend so, if it must not.
fn broken_rule(from: &str, on: &Dependency) -> Option<&'static str> {
    let name = on.name.as_str();
    if DEVELOPER_ONLY.contains(&name) {
        return Some("it is a program for developers, not a library");
    }
    if DEVELOPER_ONLY.contains(&from) {
        return None;
    }
    if name == TESTKIT {
        return (on.kind == Kind::Normal)
            .then_some("the testkit must not reach users: make it a dev-dependency");
    }
    if from == TESTKIT {
        return (!TESTKIT_USES.contains(&name)).then_some(
            "every crate's tests use the testkit, so it stands on core and storage only",
        );
    }
    let (from_rank, from_layer) = layer(from)?;
    let (on_rank, on_layer) = layer(name)?;
    if from_layer == FORMATS && on_layer == FORMATS {
        return Some(
            "formats never depend on each other: what they share belongs to a lower layer",
        );
    }
    if from_layer == FORMATS && name == "rimg-storage" && on.kind == Kind::Normal {
        return Some("formats see no paths and no sockets: bytes come through `Storage`");
    }
    if (from, name, on.kind) == FOR_EXAMPLES {
        return None;
    }
    (on_rank >= from_rank).then_some("dependencies point downward only")
}

fn layer(name: &str) -> Option<(usize, &'static str)> {
    LAYERS
        .iter()
        .enumerate()
        .find(|(_, (_, crates))| crates.contains(&name))
        .map(|(rank, &(layer, _))| (rank, layer))
}

fn finding(package: &Package, what: String, why: &'static str) -> Finding {
    Finding { path: package.manifest.display().to_string(), what, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    /// The findings, as "what", of a made-up workspace: (crate, its dependencies); `dev:` marks a
    /// dev-dependency.
    fn findings(crates: &[(&str, &[&str])]) -> Vec<String> {
        let packages: Vec<_> = crates
            .iter()
            .map(|(name, uses)| {
                let dependencies: Vec<_> = uses
                    .iter()
                    .map(|on| match on.strip_prefix("dev:") {
                        Some(on) => serde_json::json!({ "name": on, "kind": "dev" }),
                        None => serde_json::json!({ "name": on, "kind": null }),
                    })
                    .collect();
                serde_json::json!({
                    "name": name, "version": "1.0.0", "license": "MIT", "targets": [],
                    "manifest_path": format!("crates/{name}/Cargo.toml"),
                    "dependencies": dependencies,
                })
            })
            .collect();
        let json = serde_json::json!({ "packages": packages }).to_string();
        let members = metadata::parse(&json).unwrap();
        check(&members)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.path, finding.what))
            .collect()
    }

    #[test]
    fn the_designed_arrows_are_allowed() {
        let fine: &[(&str, &[&str])] = &[
            ("rimg-core", &["thiserror", "dev:rimg-testkit"]),
            ("rimg-storage", &["rimg-core", "dev:rimg-testkit"]),
            ("rimg-codec", &["rimg-core"]),
            ("rimg-testkit", &["rimg-core", "rimg-storage"]),
            ("rimg-raw", &["rimg-core", "dev:rimg-testkit", "dev:rimg-storage"]),
            ("rimg-qcow2", &["rimg-core", "rimg-codec"]),
            ("rimg", &["rimg-core", "rimg-storage", "rimg-raw", "rimg-qcow2", "dev:rimg-convert"]),
            ("rimg-convert", &["rimg", "rimg-codec"]),
            ("rimg-cli", &["rimg-convert", "rimg"]),
            ("rimg-benches", &["rimg-qcow2", "rimg-testkit"]),
            ("xtask", &[]),
        ];
        assert_eq!(findings(fine), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_arrow_is_found() {
        let wrong: &[(&str, &str, &str)] = &[
            ("rimg-core", "rimg-codec", "depends"),
            ("rimg-codec", "rimg-storage", "depends"),
            ("rimg-qcow2", "rimg-raw", "depends"),
            ("rimg-qcow2", "dev:rimg-raw", "dev-depends"),
            ("rimg-qcow2", "rimg-storage", "depends"),
            ("rimg-qcow2", "rimg", "depends"),
            ("rimg", "rimg-convert", "depends"),
            ("rimg-convert", "rimg-cli", "depends"),
            ("rimg-convert", "dev:rimg-cli", "dev-depends"),
            ("rimg-cli", "rimg-testkit", "depends"),
            ("rimg-testkit", "rimg-qcow2", "depends"),
            ("rimg-cli", "xtask", "depends"),
            ("rimg-cli", "dev:rimg-benches", "dev-depends"),
        ];
        for &(from, on, verb) in wrong {
            let name = on.trim_start_matches("dev:");
            let expected = format!("crates/{from}/Cargo.toml: {verb} on {name}");
            assert_eq!(findings(&[(from, &[on]), (name, &[])]), [expected]);
        }
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        assert_eq!(
            findings(&[("rimg-misc", &[])]),
            ["crates/rimg-misc/Cargo.toml: is in no layer"]
        );
    }
}
