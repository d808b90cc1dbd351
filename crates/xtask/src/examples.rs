//! Runs the example programs: each is a page of the manual, so it has to work as it stands.

use crate::metadata::{self, Package, Target};
use crate::{Result, run};

/// `cargo xtask examples`: every example of every crate, without arguments.
pub(crate) fn run(_: &[String]) -> Result {
    let members = metadata::members()?;
    let examples: Vec<(&Package, &Target)> = members
        .iter()
        .flat_map(|package| package.targets.iter().map(move |target| (package, target)))
        .filter(|(_, target)| target.kind == "example")
        .collect();
    let mut failed = Vec::new();
    for (package, example) in &examples {
        println!("example {} of {}", example.name, package.name);
        let args = ["run", "--quiet", "-p", &package.name, "--example", &example.name];
        if let Err(error) = run::cargo(&args) {
            eprintln!("{error}");
            failed.push(example.name.as_str());
        }
    }
    if !failed.is_empty() {
        return Err(format!("failed: {}", failed.join(", ")).into());
    }
    println!("{} examples ran", examples.len());
    Ok(())
}
