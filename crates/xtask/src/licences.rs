//! Checks every dependency's licence: fast, and without a tool that has to be compiled first.

use crate::{Result, metadata, run};
use std::fs;

/// `cargo xtask licences`: the `license` field of every package in the lock file against the
/// `allow` list of deny.toml; cargo-deny, which reads licence texts too, where it is installed.
pub(crate) fn run(_: &[String]) -> Result {
    let allowed = allow_list(&fs::read_to_string(run::root().join("deny.toml"))?)?;
    let packages = metadata::everything()?;
    let mut bad = 0_u32;
    for package in &packages {
        let expression = package.licence.as_deref().unwrap_or("");
        if let Err(why) = check(expression, &allowed) {
            println!("{} {}: '{expression}': {why}", package.name, package.version);
            bad += 1;
        }
    }
    if bad > 0 {
        return Err(format!("{bad} packages have a licence that deny.toml does not allow").into());
    }
    println!("the licences of {} packages are allowed", packages.len());
    if run::output(&mut run::cargo_command(&["deny", "--version"])).is_ok() {
        run::cargo(&["deny", "check", "licenses", "bans", "sources"])?;
    }
    Ok(())
}

/// The strings of `allow = [ … ]`, the only part of deny.toml that is needed here.
fn allow_list(toml: &str) -> Result<Vec<String>> {
    let start = toml.find("\nallow = [").ok_or("deny.toml has no `allow = [`")?;
    let list = toml.get(start..).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    let names: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    if names.is_empty() { Err("the allow list of deny.toml is empty".into()) } else { Ok(names) }
}

/// Whether an SPDX expression can be satisfied by the allowed licences.
fn check(expression: &str, allowed: &[String]) -> std::result::Result<(), String> {
    // Old manifests separate alternatives with a slash.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    if tokens.is_empty() {
        return Err("no licence stated".to_owned());
    }
    let mut parser = Parser { tokens: &tokens, at: 0, allowed };
    let satisfied = parser.alternatives()?;
    if parser.at < tokens.len() {
        return Err(format!("unexpected '{}'", tokens[parser.at]));
    }
    if satisfied { Ok(()) } else { Err("not allowed".to_owned()) }
}

/// A recursive-descent reader of SPDX licence expressions (SPDX 2.3, annex D): `OR` binds less
/// than `AND`, `WITH` most.
struct Parser<'a> {
    tokens: &'a [&'a str],
    at: usize,
    allowed: &'a [String],
}

impl Parser<'_> {
    fn alternatives(&mut self) -> std::result::Result<bool, String> {
        let mut satisfied = self.conjunction()?;
        while self.take("OR") {
            satisfied |= self.conjunction()?;
        }
        Ok(satisfied)
    }

    fn conjunction(&mut self) -> std::result::Result<bool, String> {
        let mut satisfied = self.licence()?;
        while self.take("AND") {
            satisfied &= self.licence()?;
        }
        Ok(satisfied)
    }

    fn licence(&mut self) -> std::result::Result<bool, String> {
        if self.take("(") {
            let satisfied = self.alternatives()?;
            return if self.take(")") { Ok(satisfied) } else { Err("missing ')'".to_owned()) };
        }
        let mut name = self.next()?.to_owned();
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.next()?);
        }
        Ok(self.allowed.contains(&name))
    }

    fn next(&mut self) -> std::result::Result<&str, String> {
        let token = self.tokens.get(self.at).copied().ok_or("expression ends early")?;
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.tokens.get(self.at) == Some(&token);
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<String> {
        ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).to_vec()
    }

    #[test]
    fn one_allowed_alternative_is_enough() {
        for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(GPL-2.0 AND X) OR Apache-2.0"] {
            assert_eq!(check(good, &allowed()), Ok(()), "{good}");
        }
        assert_eq!(check("Apache-2.0 WITH LLVM-exception", &allowed()), Ok(()));
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT WITH Other", "(MIT", "MIT MIT", "MIT OR"]
        {
            assert!(check(bad, &allowed()).is_err(), "{bad}");
        }
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert_eq!(check("MIT OR Apache-2.0 AND GPL-3.0", &allowed()), Ok(()));
        assert!(check("(MIT OR Apache-2.0) AND GPL-3.0", &allowed()).is_err());
    }

    #[test]
    fn the_allow_list_is_read_from_deny_toml() {
        let toml = "[licenses]\nallow = [\n  \"MIT\", # note\n  \"ISC\",\n]\nother = [\"GPL\"]\n";
        assert_eq!(allow_list(toml).unwrap(), ["MIT", "ISC"]);
        assert!(allow_list("[licenses]\n").is_err());
    }
}
