//! The differences that are meant, each with its reason. Every entry was looked at.

use super::step::Step;

/// A difference between what the two programs say.
struct Meant {
    /// The sub-command; empty for any.
    verb: &'static str,
    /// What qemu-img's side contains: exit code, messages, output.
    theirs: &'static str,
    /// What rimg's side contains.
    ours: &'static str,
    reason: &'static str,
}

const MEANT: &[Meant] = &[
    Meant {
        verb: "check",
        theirs: "This image format does not support checks",
        ours: "exit 0",
        reason: "rimg checks, and repairs, every format that it writes",
    },
    Meant {
        verb: "resize",
        theirs: "Image format driver does not support resize",
        ours: "exit 0",
        reason: "rimg changes the size of disks in every format that it writes",
    },
];

/// Why a difference is meant, if it is.
pub(super) fn reason(step: &Step, theirs: &str, ours: &str) -> Option<&'static str> {
    let fits = |meant: &&Meant| {
        (meant.verb.is_empty() || meant.verb == step.verb())
            && theirs.contains(meant.theirs)
            && ours.contains(meant.ours)
    };
    MEANT.iter().find(fits).map(|meant| meant.reason)
}
