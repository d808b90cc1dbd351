//! READMEs that tell the truth: the capability table of a format's README, held against what its
//! images do.
//!
//! The first table of a format's README has a row for each [`CAPABILITIES`] in their order, and
//! columns for the kinds of images that the format has: a column's head names one, or several with
//! commas between them that are alike. A cell starts with `yes`, `no` or `the format has none`; what
//! follows behind a colon or a semicolon is for people. A format's `tests/capability.rs` hands in one
//! [`Kind`] a name, and everything in the table is tried with it: what is said to work has to, and
//! what is said not to work must not.

mod kind;
mod subject;
mod table;
mod trials;
mod wrong;

pub use kind::Kind;
pub use trials::CAPABILITIES;

use subject::Subject;
use table::{Claim, Table};

/// Tries everything that the first table of `readme` says of `kinds`, and everything that it denies.
///
/// # Panics
/// When a claim is not true, naming all that are not; when the table is not laid out as it should
/// be, or `kinds` are not those that it has.
pub fn hold_to_truth(readme: &str, kinds: &[Kind]) {
    let table = Table::parse(readme).unwrap_or_else(|what| panic!("README.md: {what}"));
    let names = || kinds.iter().map(Kind::name);
    let mut wrong = Vec::new();
    for column in table.columns() {
        for name in &column.kinds {
            assert!(names().any(|known| known == name), "README.md: no test makes a {name}");
        }
    }
    for kind in kinds {
        let column =
            table.column_of(kind.name()).unwrap_or_else(|what| panic!("README.md: {what}"));
        let subject = Subject::new(kind);
        for (capability, claim) in CAPABILITIES.iter().zip(&column.claims) {
            let outcome = capability.try_with(&subject);
            let (kind, capability) = (kind.name(), capability.name());
            match (claim, outcome) {
                (Claim::Yes, Ok(())) | (Claim::No | Claim::FormatHasNone, Err(_)) => {}
                (Claim::Yes, Err(why)) => {
                    wrong.push(format!("{kind}: {capability}: yes, but {why}"))
                }
                (Claim::No, Ok(())) => {
                    wrong.push(format!("{kind}: {capability}: no, but it works"))
                }
                (Claim::FormatHasNone, Ok(())) => {
                    wrong.push(format!("{kind}: {capability}: the format has none, but it works"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "README.md says what is not true:\n{}", wrong.join("\n"));
}
