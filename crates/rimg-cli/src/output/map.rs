//! What `map` prints: runs of the guest's disk and where they lie.

use rimg::MapEntry;
use std::fmt::Write as _;

/// The heading of the table for people.
pub(crate) const HEADING: &str = "Offset          Length          Mapped to       File\n";

/// A line of the table for people, of a run that is stored as it is at `offset` of a file.
pub(crate) fn human_row(entry: &MapEntry, offset: u64, filename: &str) -> String {
    let mut line = String::new();
    for number in [entry.start, entry.len_bytes, offset] {
        let _ = write!(line, "{:<16}", hexadecimal(number));
    }
    let _ = writeln!(line, "{filename}");
    line
}

/// As C's `%#x`: zero has no prefix.
fn hexadecimal(number: u64) -> String {
    if number == 0 { "0".to_owned() } else { format!("{number:#x}") }
}

/// A run for programs, without what separates it from its neighbours.
pub(crate) fn json_row(entry: &MapEntry) -> String {
    let MapEntry { start, len_bytes, depth, present, zero, data, compressed, place } = entry;
    let mut text = format!(
        "{{ \"start\": {start}, \"length\": {len_bytes}, \"depth\": {depth}, \
         \"present\": {present}, \"zero\": {zero}, \"data\": {data}, \
         \"compressed\": {compressed}"
    );
    if let Some(place) = place {
        let _ = write!(text, ", \"offset\": {}", place.host.0);
    }
    text.push('}');
    text
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
        assert_eq!(
            human_row(&entry, 327_680, "m.q"),
            "0               0x10000         0x50000         m.q\n"
        );
        assert_eq!(
            json_row(&entry),
            "{ \"start\": 0, \"length\": 65536, \"depth\": 0, \"present\": true, \
             \"zero\": false, \"data\": true, \"compressed\": false, \"offset\": 327680}"
        );
    }
}
