//! What `cargo metadata` says of the workspace, as far as the checks need it.

use crate::{Result, run};
use serde_json::Value;
use std::path::PathBuf;

/// A package, of this workspace or not.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: Option<String>,
    pub(crate) manifest: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// For what a dependency is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To build or to run.
    Normal,
    /// For tests, examples and benchmarks only.
    Dev,
}

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// `lib`, `bin`, `example`, `test`, `bench`.
    pub(crate) kind: String,
    pub(crate) source: PathBuf,
}

/// The workspace's own packages.
pub(crate) fn members() -> Result<Vec<Package>> {
    packages(&["--no-deps"])
}

/// The workspace's packages and everything they depend on, on any platform.
pub(crate) fn everything() -> Result<Vec<Package>> {
    packages(&[])
}

fn packages(more: &[&str]) -> Result<Vec<Package>> {
    let mut command = run::cargo_command(&["metadata", "--format-version", "1"]);
    parse(&run::output(command.args(more))?)
}

/// Parses the output of `cargo metadata --format-version 1`.
pub(crate) fn parse(json: &str) -> Result<Vec<Package>> {
    let value: Value = serde_json::from_str(json)?;
    let packages = value["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package> {
    Ok(Package {
        name: text(&value["name"])?,
        version: text(&value["version"])?,
        licence: value["license"].as_str().map(str::to_owned),
        manifest: text(&value["manifest_path"])?.into(),
        dependencies: each(&value["dependencies"], dependency)?,
        targets: each(&value["targets"], target)?,
    })
}

fn dependency(value: &Value) -> Result<Dependency> {
    let kind = match value["kind"].as_str() {
        Some("dev") => Kind::Dev,
        _ => Kind::Normal,
    };
    Ok(Dependency { name: text(&value["name"])?, kind })
}

fn target(value: &Value) -> Result<Target> {
    Ok(Target {
        name: text(&value["name"])?,
        kind: text(&value["kind"][0])?,
        source: text(&value["src_path"])?.into(),
    })
}

fn each<T>(value: &Value, item: fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    value.as_array().map_or(Ok(Vec::new()), |items| items.iter().map(item).collect())
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().ok_or("cargo metadata: a text is missing")?.to_owned())
}
