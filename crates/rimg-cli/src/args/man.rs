//! Manual pages, made from the tables.

use crate::args::{CommandHelp, Flag};
use std::fmt::Write as _;

/// The page of the program itself.
pub(crate) fn program_page(program: &str, version: &str, commands: &[CommandHelp]) -> String {
    let mut text = heading(program, version);
    section(&mut text, "NAME");
    let _ = writeln!(text, "{program} \\- virtual disk images: convert, inspect, create, check");
    section(&mut text, "SYNOPSIS");
    let _ = writeln!(text, ".B {program}\n[\\-\\-help] [\\-\\-version] \\fICOMMAND\\fR ...");
    section(&mut text, "DESCRIPTION");
    let _ = writeln!(
        text,
        "{} takes the command line of \\fBqemu\\-img\\fR(1) and answers as it does. Called by that \
         name, it is qemu\\-img; called by its own it has more, and shows examples.",
        escaped(program)
    );
    section(&mut text, "COMMANDS");
    for command in commands {
        let name = escaped(command.name);
        let _ = writeln!(
            text,
            ".TP\n.BR {}\\-{name} (1)\n{}",
            escaped(program),
            words(command.summary)
        );
    }
    section(&mut text, "SEE ALSO");
    let _ = writeln!(text, ".BR qemu\\-img (1)");
    text
}

/// The page of one command.
pub(crate) fn command_page(program: &str, version: &str, command: &CommandHelp) -> String {
    let name = format!("{program}-{}", command.name);
    let mut text = heading(&name, version);
    section(&mut text, "NAME");
    let _ = writeln!(text, "{} \\- {}", escaped(&name), words(command.summary));
    section(&mut text, "SYNOPSIS");
    for form in [command.usage, command.own_usage].into_iter().filter(|form| !form.is_empty()) {
        let _ = writeln!(text, ".B {program} {}\n{}\n.br", command.name, words(form));
    }
    section(&mut text, "OPTIONS");
    for flag in (command.flags)() {
        let _ = writeln!(text, ".TP\n{}\n{}", forms(&flag), words(flag.help));
    }
    let operands = command.operands.iter().chain(command.own_operands);
    for (index, (operand, meaning)) in operands.enumerate() {
        if index == 0 {
            section(&mut text, "OPERANDS");
        }
        let _ = writeln!(text, ".TP\n.I {}\n{}", words(operand), words(meaning));
    }
    for (index, example) in command.examples.iter().enumerate() {
        if index == 0 {
            section(&mut text, "EXAMPLES");
        }
        let line = escaped(&format!("{program} {}", example.line));
        let _ = writeln!(text, ".TP\n{}:\n.nf\n{line}\n.fi", words(example.does));
    }
    section(&mut text, "SEE ALSO");
    let _ = writeln!(text, ".BR {program} (1)");
    text
}

fn heading(name: &str, version: &str) -> String {
    format!(".TH {} 1 \"\" \"{version}\" \"User Commands\"\n", name.to_uppercase())
}

fn section(text: &mut String, name: &str) {
    let _ = writeln!(text, ".SH {name}");
}

fn forms(flag: &Flag) -> String {
    let mut forms = Vec::new();
    forms.extend(flag.short.map(|letter| format!("\\fB\\-{}\\fR", char::from(letter))));
    forms.extend(flag.long.iter().map(|long| format!("\\fB\\-\\-{}\\fR", escaped(long))));
    let mut text = forms.join(", ");
    if let Some(value) = flag.value {
        let _ = write!(text, " \\fI{}\\fR", escaped(value));
    }
    text
}

/// Running text: what roff would take for a request at the start of a line is none.
fn words(text: &str) -> String {
    let text = escaped(text);
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// What roff would take for its own.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_a_request() {
        assert_eq!(words(".SH"), "\\&.SH");
        assert_eq!(words("a -b \\ 'c'"), "a \\-b \\e \\(aqc\\(aq");
    }
}
