//! What must not stand in a source file.

use super::{Finding, Source};

/// A file longer than this holds more than one concept.
const MAX_LINES: usize = 700;

/// Words that leave work to somebody else. Put together, so that this file does not hold them.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("unimplemented", "!"),
    concat!("to", "do!"),
];

const SKIPPED_TEST: &str = concat!("#[", "ignore");

/// Checks one source file, line by line.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line: Option<usize>, what: String, why| {
        let line = line.map_or(String::new(), |line| format!(":{}", line + 1));
        findings.push(Finding { path: format!("{}{line}", source.path.display()), what, why });
    };
    for (number, line) in source.text.lines().enumerate() {
        if let Some(word) = LEFTOVERS.iter().find(|word| holds_word(line, word)) {
            found(Some(number), format!("holds {word}"), "what is not done goes into an issue");
        }
        if line.contains(SKIPPED_TEST) {
            found(
                Some(number),
                format!("holds {SKIPPED_TEST}"),
                "a test that does not run proves nothing",
            );
        }
    }
    let lines = source.text.lines().count();
    if source.path.extension().is_some_and(|ext| ext == "rs") && lines > MAX_LINES {
        found(None, format!("has {lines} lines"), "one concept a file: 700 lines are the limit");
    }
    findings
}

/// Whether `word` stands in the line and is not part of a longer name.
fn holds_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text))
            .into_iter()
            .map(|f| format!("{}: {}", f.path, f.what))
            .collect()
    }

    #[test]
    fn each_leftover_is_found_on_its_line() {
        for word in LEFTOVERS {
            let text = format!("fine\n    // {word}: later\n");
            assert_eq!(found("a.rs", &text), [format!("a.rs:2: holds {word}")]);
            assert_eq!(found("a.rs", &format!("my_{word}x\n")), [""; 0]);
        }
    }

    #[test]
    fn a_skipped_test_is_found() {
        let text = format!("{SKIPPED_TEST} = \"slow\"]\nfn x() {{}}\n");
        assert_eq!(found("a.rs", &text), [format!("a.rs:1: holds {SKIPPED_TEST}")]);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(found("a.rs", &"x\n".repeat(MAX_LINES)), [""; 0]);
        assert_eq!(found("a.rs", &"x\n".repeat(MAX_LINES + 1)), ["a.rs: has 701 lines"]);
        // Manifests are data.
        assert_eq!(found("a.toml", &"x\n".repeat(MAX_LINES + 1)), [""; 0]);
    }
}
