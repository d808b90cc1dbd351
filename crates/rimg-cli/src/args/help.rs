//! Help texts, made from the tables.

use crate::args::{CommandHelp, Flag};
use std::fmt::Write as _;

/// How wide a line of help may get.
const WIDTH: usize = 79;

/// The help of one command. `program` is how the program was called; `own` whether to show what
/// qemu-img has not.
pub(crate) fn command_help(program: &str, command: &CommandHelp, own: bool) -> String {
    let CommandHelp { name, summary, usage, operands, .. } = *command;
    let mut text = format!("Usage:\n{summary}.  Usage:\n\n");
    let own_usage = if own { command.own_usage } else { "" };
    for form in [usage, own_usage].into_iter().filter(|form| !form.is_empty()) {
        wrap_words(&mut text, &format!("  {program} {name} "), "        ", groups(form));
    }
    text.push_str("\nArguments:\n");
    for flag in (command.flags)().into_iter().filter(|flag| own || !flag.own) {
        let _ = writeln!(text, "  {}", flag_forms(&flag));
        wrap(&mut text, "     ", "     ", flag.help);
    }
    let own_operands = if own { command.own_operands } else { &[] };
    for (operand, meaning) in operands.iter().chain(own_operands) {
        let _ = writeln!(text, "  {operand}");
        wrap(&mut text, "     ", "     ", meaning);
    }
    if own && !command.examples.is_empty() {
        text.push_str("\nExamples:\n");
        for example in command.examples {
            let _ = writeln!(text, "  # {}\n  {program} {}", example.does, example.line);
        }
    }
    text.push('\n');
    text
}

/// The help of the program itself.
pub(crate) fn program_help(
    program: &str,
    version: &str,
    commands: &[CommandHelp],
    formats: &[&str],
    own_options: Option<&[(&str, &str)]>,
) -> String {
    let mut own = String::new();
    for (forms, help) in own_options.unwrap_or_default() {
        let _ = writeln!(own, "  {forms}");
        wrap(&mut own, "     ", "     ", help);
    }
    let mut text = format!(
        "{version}\
         Virtual disk images: convert, inspect, create, check.  Usage:\n\n\
         \x20 {program} [standard options] COMMAND [--help | command options]\n\n\
         Standard options:\n\
         \x20 -h, --help\n     print this help and exit\n\
         \x20 -V, --version\n     print the version and exit\n{own}\n\
         Recognized commands (run {program} COMMAND --help for more about one):\n\n"
    );
    for command in commands {
        let _ = writeln!(text, "  {} - {}", command.name, command.summary);
    }
    text.push_str("\nSupported image formats:\n\n");
    wrap(&mut text, "  ", "  ", &formats.join(" "));
    if own_options.is_some() {
        text.push_str("\nExamples:\n");
        for example in commands.iter().filter_map(|command| command.examples.first()) {
            let _ = writeln!(text, "  # {}\n  {program} {}", example.does, example.line);
        }
    }
    text
}

fn flag_forms(flag: &Flag) -> String {
    let mut forms = Vec::new();
    forms.extend(flag.short.map(|letter| format!("-{}", char::from(letter))));
    forms.extend(flag.long.iter().map(|long| format!("--{long}")));
    let mut text = forms.join(", ");
    if let Some(value) = flag.value {
        text.push(' ');
        text.push_str(value);
    }
    text
}

/// Adds `words` behind `first`, broken into lines that start with `indent`.
fn wrap(text: &mut String, first: &str, indent: &str, words: &str) {
    wrap_words(text, first, indent, words.split(' '));
}

/// The parts of a usage line that belong together: what is in brackets is not broken.
fn groups(usage: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let at_top = |letter: char| {
        match letter {
            '[' => depth = depth.saturating_add(1),
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ' ' && depth == 0
    };
    usage.split(at_top).collect()
}

fn wrap_words<'w>(
    text: &mut String,
    first: &str,
    indent: &str,
    words: impl IntoIterator<Item = &'w str>,
) {
    let mut line = first.to_owned();
    let mut fresh = true;
    for word in words {
        if !fresh && line.len().saturating_add(word.len()).saturating_add(1) > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = indent.to_owned();
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line.push_str(word);
        fresh = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped() {
        let mut text = String::new();
        wrap(&mut text, "  ", "    ", &"word ".repeat(40));
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")));
    }

    #[test]
    fn brackets_hold_words_together() {
        assert_eq!(groups("[-f FMT | -x] A [B [C ...]]"), ["[-f FMT | -x]", "A", "[B [C ...]]"]);
    }

    #[test]
    fn every_form_of_a_flag_is_shown() {
        let flag = Flag::new(&["format", "fmt"], "").short(b'f').value("FMT");
        assert_eq!(flag_forms(&flag), "-f, --format, --fmt FMT");
    }
}
