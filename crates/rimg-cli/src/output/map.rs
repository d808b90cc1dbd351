//! What `map` prints: runs of the guest's disk and where they lie.

use rimg::MapEntry;
use rimg_core::num;
use std::fmt::Write as _;

/// The heading of the table for people.
pub(crate) const HEADING: &str = "Offset          Length          Mapped to       File\n";

/// Adds a line of the table for people, of a run that is stored as it is at `offset` of a file.
pub(crate) fn human_row(text: &mut String, entry: &MapEntry, offset: u64, filename: &str) {
    for number in [entry.start, entry.len_bytes, offset] {
        // As C's `%#x`: zero has no prefix.
        let _ =
            if number == 0 { write!(text, "{:<16}", "0") } else { write!(text, "{number:<#16x}") };
    }
    text.push_str(filename);
    text.push('\n');
}

/// Adds a run for programs, without what separates it from its neighbours.
pub(crate) fn json_row(text: &mut String, entry: &MapEntry) {
    let truth = |truth| if truth { "true" } else { "false" };
    text.push_str("{ \"start\": ");
    push_number(text, entry.start);
    text.push_str(", \"length\": ");
    push_number(text, entry.len_bytes);
    text.push_str(", \"depth\": ");
    push_number(text, num::to_u64(entry.depth));
    for (name, value) in [
        (", \"present\": ", entry.present),
        (", \"zero\": ", entry.zero),
        (", \"data\": ", entry.data),
        (", \"compressed\": ", entry.compressed),
    ] {
        text.push_str(name);
        text.push_str(truth(value));
    }
    if let Some(place) = entry.place {
        text.push_str(", \"offset\": ");
        push_number(text, place.host.0);
    }
    text.push('}');
}

/// Maps have many numbers, and formatting is most of the work.
fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    let digit = u32::try_from(number % 10).unwrap_or_default();
    text.extend(char::from_digit(digit, 10));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg::{FileOffset, HostOffset};

    #[test]
    fn lines_are_those_of_qemu_img() {
        let entry = MapEntry {
            start: 0,
            len_bytes: 65536,
            depth: 0,
            present: true,
            zero: false,
            data: true,
            compressed: false,
            place: Some(FileOffset { file: 0, host: HostOffset(327_680) }),
        };
        let (mut human, mut json) = (String::new(), String::new());
        human_row(&mut human, &entry, 327_680, "m.q");
        json_row(&mut json, &entry);
        assert_eq!(human, "0               0x10000         0x50000         m.q\n");
        assert_eq!(
            json,
            "{ \"start\": 0, \"length\": 65536, \"depth\": 0, \"present\": true, \
             \"zero\": false, \"data\": true, \"compressed\": false, \"offset\": 327680}"
        );
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 1_048_576, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }
}
