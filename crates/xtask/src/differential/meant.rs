//! The differences that are meant, each with its reason. Every entry was looked at.

use super::step::Step;

/// A difference between what the two programs say.
struct Meant {
    /// The sub-command; empty for any.
    verb: &'static str,
    /// Words of the command line; empty for any.
    words: &'static str,
    /// What qemu-img's side contains: exit code, messages, output.
    theirs: &'static str,
    /// What rimg's side contains.
    ours: &'static str,
    reason: &'static str,
}

const MEANT: &[Meant] = &[
    Meant {
        verb: "check",
        words: "",
        theirs: "This image format does not support checks",
        ours: "exit 0",
        reason: "rimg checks, and repairs, every format that it writes",
    },
    Meant {
        verb: "resize",
        words: "",
        theirs: "Image format driver does not support resize",
        ours: "exit 0",
        reason: "rimg changes the size of disks in every format that it writes",
    },
    Meant {
        verb: "measure",
        words: "",
        theirs: "does not support size measurement",
        ours: "exit 0",
        reason: "rimg measures for more formats",
    },
    Meant {
        verb: "commit",
        words: "",
        theirs: "does not support reopening files",
        ours: "exit 0",
        reason: "rimg commits into every format that it writes",
    },
    Meant {
        verb: "commit",
        words: "",
        theirs: "Block job failed: Operation not supported",
        ours: "exit 0",
        reason: "rimg makes the disk below larger in every format that it writes",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "mage was not closed correctly",
        ours: "",
        reason: "qemu-img leaves images marked as in use when it fails, and rimg does not",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "QED table offset is invalid",
        ours: "",
        reason: "qemu-img makes QED images with tables of one cluster that it cannot open",
    },
    Meant {
        verb: "compare",
        words: "vhdx",
        theirs: "Strict mode",
        ours: "mismatch",
        reason: "rimg knows where a VHDX has no data",
    },
    Meant {
        verb: "convert",
        words: "-O qcow ",
        theirs: "exit 1\n",
        ours: "exit 0",
        reason: "qemu-img fails without a word when it compresses zeroes, or an odd rest, into qcow",
    },
    Meant {
        verb: "rebase",
        words: "",
        theirs: "Operation not supported",
        ours: "exit 0",
        reason: "rimg changes the name of the image below in every format that has one",
    },
    Meant {
        verb: "rebase",
        words: "",
        theirs: "could not get block driver info",
        ours: "exit 1",
        reason: "rimg says what is not supported",
    },
    Meant {
        verb: "amend",
        words: "refcount_bits",
        theirs: "exit 124",
        ours: "exit 0",
        reason: "qemu-img may look for a place for wider refcounts for ever",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "This qcow2 v2 image contains bitmaps",
        ours: "",
        reason: "rimg takes bitmaps out of the header of an image that becomes one of version 2",
    },
    Meant {
        verb: "measure",
        words: "compat=v",
        theirs: "Invalid compatibility level",
        ours: "exit 0",
        reason: "rimg takes v2 and v3 wherever it takes 0.10 and 1.1",
    },
    Meant {
        verb: "resize",
        words: "",
        theirs: "Shrinking images is currently not supported",
        ours: "exit 0",
        reason: "rimg changes the size of disks in every format that it writes",
    },
    Meant {
        verb: "convert",
        words: "-U",
        theirs: "",
        ours: "is a source, too",
        reason: "rimg does not convert an image into itself",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "Unsupported image type 'monolithicSparse'",
        ours: "",
        reason: "qemu-img cannot open the empty VMDK that it makes",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "exit 0",
        ours: "the marker is not that of a footer",
        reason: "what qemu-io writes behind the end of a finished stream is no stream any more",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "write failed",
        ours: "invalid VMDK image descriptor",
        reason: "what qemu-io writes behind the end of a finished stream is no stream any more",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "Invalid argument",
        ours: "the parent has the content ID",
        reason: "rimg says what is wrong with a parent",
    },
    Meant {
        verb: "resize",
        words: "",
        theirs: "Failed to zero out new clusters",
        ours: "exit 0",
        reason: "rimg hides what lies below a disk that grows over images of any format",
    },
    Meant {
        verb: "resize",
        words: "",
        theirs: "Block driver does not support requested flags",
        ours: "exit 0",
        reason: "rimg hides what lies below a disk that grows over images of any format",
    },
    Meant {
        verb: "",
        words: "",
        theirs: "exit signal: 6 (SIGABRT)",
        ours: "",
        reason: "qemu-img crashes",
    },
    Meant {
        verb: "convert",
        words: " -c ",
        theirs: "error while writing",
        ours: "exit 0",
        reason: "qemu-img cannot put compressed clusters over others",
    },
    Meant {
        verb: "convert",
        words: " -c ",
        theirs: "error while writing at byte 0: Invalid argument",
        ours: "exit 0",
        reason: "qemu-img cannot compress part of a cluster but at the end of a disk",
    },
    Meant {
        verb: "check",
        words: "",
        theirs: "Leaked cluster",
        ours: "exit 0\nNo errors were found",
        reason: "qemu-img leaks what rimg gives back",
    },
    Meant {
        verb: "check",
        words: "json",
        theirs: "Leaked cluster",
        ours: "exit 0\n{",
        reason: "qemu-img leaks what rimg gives back",
    },
    Meant {
        verb: "snapshot",
        words: "-c",
        theirs: "Could not create snapshot",
        ours: "exit 0",
        reason: "qemu-img makes tables to discard nothing from, and refcounts of 1 bit cannot share them",
    },
];

/// Why a difference is meant, if it is.
pub(super) fn reason(step: &Step, theirs: &str, ours: &str) -> Option<&'static str> {
    // A panic, or a signal, is never meant.
    let ended_itself = [0, 1, 2, 3, 4, 63].map(|code| format!("exit {code}\n"));
    if !ended_itself.iter().any(|exit| ours.starts_with(exit.as_str())) {
        return None;
    }
    let line = step.to_string();
    let fits = |meant: &&Meant| {
        (meant.verb.is_empty() || meant.verb == step.verb())
            && line.contains(meant.words)
            && theirs.contains(meant.theirs)
            && ours.contains(meant.ours)
    };
    MEANT.iter().find(fits).map(|meant| meant.reason)
}
