//! What `check` prints when it is done.

use crate::damage;
use crate::json;
use crate::message::describe;
use rimg_core::{CheckSummary, Error, InfoValue, op};
use std::fmt::Write as _;

/// What was repaired, for people.
pub(crate) fn repaired(summary: &CheckSummary) -> String {
    let CheckSummary { leaks_fixed, corruptions_fixed, .. } = *summary;
    format!(
        "The following inconsistencies were found and repaired:\n\n    \
         {leaks_fixed} leaked clusters\n    {corruptions_fixed} corruptions\n\n\
         Double checking the fixed image now...\n"
    )
}

/// What a user of this program can do about a finding: behind it, on a line of its own.
pub(crate) fn hint(message: &str) -> &'static str {
    if message.starts_with("ERROR: overflow cluster offset=") {
        "\nUse qemu-img amend to increase the refcount entry width or qemu-img convert to create a \
         clean copy if the image cannot be opened for writing"
    } else {
        ""
    }
}

/// Why a check could not be finished: what is to be said before, and the reason in the system's
/// words.
pub(crate) fn failure(error: &Error) -> (Option<String>, String) {
    let too_large = "File too large".to_owned();
    match error {
        Error::Limit { what: "number of snapshots", needed, limit } => {
            let more = needed.saturating_sub(*limit);
            let before = format!(
                "ERROR snapshot table too large\nYou can force-remove all {more} overhanging \
                 snapshots with qemu-img check -r all"
            );
            (Some(before), too_large)
        }
        Error::Corrupt { at, .. } if at.field == "snapshots_offset" => {
            (Some("ERROR snapshot table offset invalid".to_owned()), "Invalid argument".to_owned())
        }
        Error::Corrupt { at, .. } if at.structure == "snapshot table" => {
            let why = damage::snapshot_table(error).unwrap_or_default();
            (Some(format!("ERROR failed to read the snapshot table: {why}")), too_large)
        }
        // The map is read for the check alone: QEMU does not open such an image.
        Error::Corrupt { format: "vdi", .. } => (None, describe(error)),
        Error::Corrupt { .. } => (None, "Input/output error".to_owned()),
        Error::Io { op: op::WRITE_REFCOUNT_TABLE, .. } => {
            let reason = describe(error);
            (Some(format!("ERROR writing reftable: {reason}")), reason)
        }
        other => (None, describe(other)),
    }
}

/// The summary for people.
pub(crate) fn human(summary: &CheckSummary) -> String {
    let mut text = String::new();
    let CheckSummary { check_errors, corruptions, leaks, .. } = *summary;
    if check_errors == 0 && corruptions == 0 && leaks == 0 {
        text.push_str("No errors were found on the image.\n");
    }
    if corruptions > 0 {
        let _ = writeln!(
            text,
            "\n{corruptions} errors were found on the image.\n\
             Data may be corrupted, or further writes to the image may corrupt it."
        );
    }
    if leaks > 0 {
        let _ = writeln!(
            text,
            "\n{leaks} leaked clusters were found on the image.\n\
             This means waste of disk space, but no harm to data."
        );
    }
    if check_errors > 0 {
        let _ = writeln!(text, "\n{check_errors} internal errors have occurred during the check.");
    }
    let CheckSummary { total_clusters, allocated_clusters, .. } = *summary;
    if total_clusters > 0 && allocated_clusters > 0 {
        let _ = writeln!(
            text,
            "{allocated_clusters}/{total_clusters} = {:.2}% allocated, {:.2}% fragmented, \
             {:.2}% compressed clusters",
            percent(allocated_clusters, total_clusters),
            percent(summary.fragmented_clusters, allocated_clusters),
            percent(summary.compressed_clusters, allocated_clusters)
        );
    }
    if summary.image_end_offset > 0 {
        let _ = writeln!(text, "Image end offset: {}", summary.image_end_offset);
    }
    text
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "two decimals are shown, an f64 has fifteen digits"
)]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// The summary for programs: counts that are zero are left out, all but that of check errors.
pub(crate) fn json(filename: &str, format: &str, summary: &CheckSummary) -> String {
    let text = |text: &str| Some(InfoValue::Text(text.to_owned()));
    let count = |count: u64| (count > 0).then_some(InfoValue::Number(count));
    let members = [
        ("image-end-offset", count(summary.image_end_offset)),
        ("compressed-clusters", count(summary.compressed_clusters)),
        ("total-clusters", count(summary.total_clusters)),
        ("corruptions-fixed", count(summary.corruptions_fixed)),
        ("corruptions", count(summary.corruptions)),
        ("check-errors", Some(InfoValue::Number(summary.check_errors))),
        ("leaks-fixed", count(summary.leaks_fixed)),
        ("leaks", count(summary.leaks)),
        ("allocated-clusters", count(summary.allocated_clusters)),
        ("filename", text(filename)),
        ("format", text(format)),
        ("fragmented-clusters", count(summary.fragmented_clusters)),
    ];
    let present = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
    json::pretty(&InfoValue::Map(present.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_image_is_said_to_be_clean() {
        let summary = CheckSummary {
            total_clusters: 64,
            allocated_clusters: 4,
            image_end_offset: 589_824,
            ..CheckSummary::default()
        };
        assert_eq!(
            human(&summary),
            "No errors were found on the image.\n\
             4/64 = 6.25% allocated, 0.00% fragmented, 0.00% compressed clusters\n\
             Image end offset: 589824\n"
        );
        assert_eq!(
            json("m.q", "qcow2", &summary),
            "{\n    \"image-end-offset\": 589824,\n    \"total-clusters\": 64,\n    \
             \"check-errors\": 0,\n    \"allocated-clusters\": 4,\n    \"filename\": \"m.q\",\n    \
             \"format\": \"qcow2\"\n}\n"
        );
    }

    #[test]
    fn errors_and_leaks_are_counted_apart() {
        let summary = CheckSummary { corruptions: 3, leaks: 1, ..CheckSummary::default() };
        assert_eq!(
            human(&summary),
            "\n3 errors were found on the image.\n\
             Data may be corrupted, or further writes to the image may corrupt it.\n\
             \n1 leaked clusters were found on the image.\n\
             This means waste of disk space, but no harm to data.\n"
        );
    }
}
