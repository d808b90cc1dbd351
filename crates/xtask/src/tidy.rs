//! `cargo xtask tidy`: the rules of the code base that the compiler does not know.

mod files;
mod layers;
mod text;

use crate::metadata::{self, Package};
use crate::{Result, run};
use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// The file, or the crate, where it is broken.
    path: String,
    what: String,
    /// What the rule is good for.
    why: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path, self.what, self.why)
    }
}

/// A source file, its path relative to the top of the repository.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.to_owned() }
    }
}

/// `cargo xtask tidy`
pub(crate) fn run(_: &[String]) -> Result {
    let members = relative_to_root(metadata::members()?);
    let sources = read_sources(&["crates", "benches", "fuzz"])?;
    if members.is_empty() || sources.is_empty() {
        return Err("found nothing to check".into());
    }

    let mut findings = layers::check(&members);
    findings.extend(files::check(&members, &sources));
    findings.extend(sources.iter().flat_map(text::check));
    for member in &members {
        let folder = run::root().join(member.manifest.parent().unwrap_or(Path::new("")));
        let manifest = fs::read_to_string(run::root().join(&member.manifest))?;
        findings.extend(files::check_manifest(member, &manifest));
        findings.extend(files::check_readme(member, folder.join("README.md").is_file()));
    }

    findings.sort_by(|a, b| a.path.cmp(&b.path));
    for finding in &findings {
        println!("{finding}");
    }
    println!("{} crates, {} sources, {} findings", members.len(), sources.len(), findings.len());
    if findings.is_empty() { Ok(()) } else { Err("the findings above".into()) }
}

/// Findings name files as a reader of the repository knows them.
fn relative_to_root(mut members: Vec<Package>) -> Vec<Package> {
    let relative = |path: &Path| path.strip_prefix(run::root()).unwrap_or(path).to_owned();
    for member in &mut members {
        member.manifest = relative(&member.manifest);
        for target in &mut member.targets {
            target.source = relative(&target.source);
        }
    }
    members
}

/// Every Rust file and manifest below the folders, in order.
fn read_sources(folders: &[&str]) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut todo: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = todo.pop() {
        let entries = match fs::read_dir(run::root().join(&folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let skipped = ["target", "corpus", "artifacts", "data"];
            if entry.file_type()?.is_dir() {
                if !skipped.iter().any(|name| entry.file_name() == *name) {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|ext| ext == "rs" || ext == "toml") {
                sources.push(Source { text: fs::read_to_string(run::root().join(&path))?, path });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}
