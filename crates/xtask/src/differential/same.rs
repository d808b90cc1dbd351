//! What may differ without meaning anything.

/// Numbers that depend on the moment, or on where in its file an image keeps what.
const NUMBERS: &[&str] = &[
    "\"actual-size\": ",
    "\"image-end-offset\": ",
    "\"date-sec\": ",
    "\"date-nsec\": ",
    "\"cid\": ",
    "\"parent-cid\": ",
    // Nodes without a name get a number, in the order in which they are opened.
    "#block",
];

/// Lines that do.
const LINES: &[&str] = &[
    "disk size: ",
    "Image end offset: ",
    "\"fragmented-clusters\": ",
    "cid: ",
    "parent cid: ",
    "file length: ",
];

/// How far members of nodes below an image are indented: their sizes are those of files.
const NESTED: usize = 12;

/// The text without what may differ. Places in the file count only if `exact`.
pub(super) fn normal(text: &str, exact: bool) -> String {
    let mut normal = String::with_capacity(text.len());
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if LINES.iter().any(|start| trimmed.starts_with(start)) {
            continue;
        }
        // When progress is printed depends on how the work is cut.
        if trimmed.starts_with('(') && line.ends_with("(100.00/100%)") {
            normal.push_str("(progress)\n");
            continue;
        }
        // Whether another member follows depends on what was left out.
        let mut line = without_date(line.trim_end_matches(','));
        for name in NUMBERS {
            mask(&mut line, name);
        }
        if indent >= NESTED {
            mask(&mut line, "\"virtual-size\": ");
        }
        // Whether data in a hole of the file is zero to qemu-img depends on how much of the file
        // takes space just then. The peer tests of map have images of which that is certain.
        line = line.replace("\"zero\": true, \"data\": true", "\"zero\": false, \"data\": true");
        if is_map_line(&line) {
            continue;
        }
        if !exact {
            mask(&mut line, "\"offset\": ");
        }
        if line.contains("allocated, ") && line.contains("fragmented, ") {
            line = line.split(',').next().unwrap_or_default().to_owned();
        }
        if let Some(joined) = joined(last_line(&normal), &line, exact) {
            let end = normal.len() - last_line(&normal).len() - 1;
            normal.truncate(end);
            line = joined;
        }
        normal.push_str(&line);
        normal.push('\n');
    }
    normal
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

/// Two entries of a map as one, where the second goes on with the first: at the next place in the
/// file, if places count.
fn joined(before: &str, line: &str, exact: bool) -> Option<String> {
    let (head, start, len, kind) = map_entry(before)?;
    let (_, next, more, next_kind) = map_entry(line)?;
    let close = next_kind.trim_start_matches(|c| c != ']');
    let (kind, next_kind) =
        (kind.trim_end_matches([',', ']']), next_kind.trim_end_matches([',', ']']));
    let same_place = match (place(kind), place(next_kind)) {
        (Some((_, at)), Some((_, then))) if exact => at.checked_add(len)? == then,
        (None, None) => true,
        (at, then) => at.is_some() == then.is_some() && !exact,
    };
    let without = |kind| place(kind).map_or(kind, |(rest, _)| rest).to_owned();
    let goes_on =
        start.checked_add(len)? == next && same_place && without(kind) == without(next_kind);
    goes_on.then(|| {
        format!(
            "{head}{{ \"start\": {start}, \"length\": {}{kind}{close}",
            len.saturating_add(more)
        )
    })
}

/// What stands before the place in the file, and the place.
fn place(kind: &str) -> Option<(&str, u64)> {
    let (rest, at) = kind.split_once(", \"offset\": ")?;
    Some((rest, at.trim_end_matches('}').parse().ok()?))
}

/// What stands before an entry, where it starts, how long it is, and the rest.
fn map_entry(line: &str) -> Option<(&str, u64, u64, &str)> {
    let (head, rest) = line.split_once("{ \"start\": ")?;
    let (start, rest) = rest.split_once(", \"length\": ")?;
    let (len, _) = rest.split_once(',')?;
    Some((head, start.parse().ok()?, len.parse().ok()?, rest.get(len.len()..)?))
}

/// What kind of a failure a message is about, as far as a script could act on it. Messages of no
/// known kind have to be the same.
pub(super) fn class(error: &str) -> Option<&'static str> {
    const CLASSES: &[(&str, &str)] = &[
        (" lock", "locked"),
        ("No such file", "missing"),
        ("Could not open", "open"),
        ("nvalid parameter", "option"),
        ("Invalid", "value"),
        ("not support", "unsupported"),
        ("nsupported", "unsupported"),
        ("t support", "unsupported"),
    ];
    CLASSES.iter().find(|(words, _)| error.contains(words)).map(|(_, class)| *class)
}

/// Makes the number behind `name` a 0, as often as it comes.
fn mask(line: &mut String, name: &str) {
    let mut from = 0;
    while let Some(at) = line.get(from..).and_then(|rest| rest.find(name)) {
        let start = from + at + name.len();
        let digits = line.get(start..).unwrap_or_default();
        let len = digits.bytes().take_while(u8::is_ascii_digit).count();
        line.replace_range(start..start + len, "0");
        from = start + 1;
    }
}

/// A line of a map in three columns; how many there are depends on places, too.
fn is_map_line(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_number = |word: &str| word.starts_with("0x") || word == "0";
    matches!(words.as_slice(), [start, length, place, _, ..]
        if is_number(start) && is_number(length) && is_number(place))
}

/// Snapshot lists say when: `2026-11-21 20:15:00`.
fn without_date(line: &str) -> String {
    const FORM: &[u8] = b"0000-00-00 00:00:00";
    let is_date = |bytes: &[u8]| {
        bytes.len() == FORM.len()
            && bytes.iter().zip(FORM).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    let found = line.as_bytes().windows(FORM.len()).position(is_date);
    match found.and_then(|at| Some((line.get(..at)?, line.get(at + FORM.len()..)?))) {
        Some((before, behind)) => format!("{before}(date){behind}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_differ_is_left_out() {
        let text = "disk size: 4 KiB\nvirtual size: 1 MiB\n\"offset\": 327680, \"x\": 5,\n";
        assert_eq!(normal(text, true), "virtual size: 1 MiB\n\"offset\": 327680, \"x\": 5\n");
        assert_eq!(normal(text, false), "virtual size: 1 MiB\n\"offset\": 0, \"x\": 5\n");
        let map = "0               0x10000         0x50000         i1\n";
        assert_eq!(normal(map, true), "");
        let list = "1         s0     0 B 2026-11-21 20:15:00 0000:00:00.000 0\n";
        assert_eq!(normal(list, true), "1         s0     0 B (date) 0000:00:00.000 0\n");
        let entry = |start, len, zero, at| {
            format!(
                "{{ \"start\": {start}, \"length\": {len}, \"zero\": {zero}, \"data\": true, \
                 \"offset\": {at}}}"
            )
        };
        let two = |at| format!("[{},\n{}]\n", entry(0, 5, true, 50), entry(5, 7, false, at));
        let one = |at| format!("[{}]\n", entry(0, 12, false, at));
        assert_eq!(normal(&two(55), true), one(50));
        assert_eq!(normal(&two(56), false), one(0));
        assert_eq!(normal(&two(56), true).lines().count(), 2);
        let check = "2/16 = 12.50% allocated, 0.00% fragmented, 0.00% compressed clusters\n";
        assert_eq!(normal(check, true), "2/16 = 12.50% allocated\n");
    }
}
