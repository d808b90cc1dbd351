//! Completion scripts for shells, made from the tables.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::args::{CommandHelp, Flag};
use std::fmt::Write as _;

/// A shell that completes command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// The shell with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}

/// The script that teaches `shell` the command lines of `program`.
pub(crate) fn completions(
    shell: Shell,
    program: &str,
    commands: &[CommandHelp],
    formats: &[&str],
) -> String {
    let formats = formats.join(" ");
    match shell {
        Shell::Bash => bash(program, commands, &formats),
        Shell::Zsh => zsh(program, commands, &formats),
        Shell::Fish => fish(program, commands, &formats),
    }
}

/// The words that a flag's value is one of; `None` where it may be anything, a file among it.
fn words(flag: &Flag, formats: &str) -> Option<String> {
    let value = flag.value?;
    if value.ends_with("FMT") {
        Some(formats.to_owned())
    } else if value.contains('|') {
        Some(value.replace('|', " "))
    } else {
        None
    }
}

/// A flag as it is typed, in all its forms.
fn forms(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|letter| format!("-{}", char::from(letter)));
    short.into_iter().chain(flag.long.iter().map(|long| format!("--{long}"))).collect()
}

fn bash(program: &str, commands: &[CommandHelp], formats: &str) -> String {
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let mut text = format!(
        "# Completion of {program} for bash: source it, or put it into\n\
         # ~/.local/share/bash-completion/completions/{program}\n\
         _{program}() {{\n\
         \x20   local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}\n\
         \x20   local command=${{COMP_WORDS[1]}} flags= values=\n\
         \x20   if ((COMP_CWORD == 1)); then\n\
         \x20       COMPREPLY=($(compgen -W '{} --help --version' -- \"$word\"))\n\
         \x20       return\n\
         \x20   fi\n\
         \x20   case $command in\n",
        names.join(" ")
    );
    for command in commands {
        let flags = (command.flags)();
        let all: Vec<String> = flags.iter().flat_map(forms).collect();
        let _ = writeln!(text, "    {})\n        flags='{}'", command.name, all.join(" "));
        text.push_str("        case $before in\n");
        for flag in flags.iter().filter(|flag| flag.value.is_some()) {
            let action = match words(flag, formats) {
                Some(words) => format!("values='{words}'"),
                None => "flags=".to_owned(),
            };
            let _ = writeln!(text, "        {}) {action} ;;", forms(flag).join("|"));
        }
        text.push_str("        esac ;;\n");
    }
    let _ = write!(
        text,
        "    esac\n\
         \x20   if [[ $values ]]; then\n\
         \x20       COMPREPLY=($(compgen -W \"$values\" -- \"$word\"))\n\
         \x20   elif [[ $word == -* ]]; then\n\
         \x20       COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n\
         \x20   else\n\
         \x20       COMPREPLY=($(compgen -f -- \"$word\"))\n\
         \x20   fi\n\
         }}\n\
         complete -o filenames -F _{program} {program}\n"
    );
    text
}

fn zsh(program: &str, commands: &[CommandHelp], formats: &str) -> String {
    let mut text = format!(
        "#compdef {program}\n\
         # Completion of {program} for zsh: put it into a folder of $fpath as _{program}\n\
         _{program}() {{\n\
         \x20   local -a commands=(\n"
    );
    for command in commands {
        let described = format!("{}:{}", command.name, command.summary.replace(':', "\\:"));
        let _ = writeln!(text, "        {}", quoted(&described));
    }
    text.push_str(
        "    )\n    \
             if ((CURRENT == 2)); then\n        \
                 _describe command commands\n        \
                 return\n    \
             fi\n    \
             local command=$words[2]\n    \
             shift words\n    \
             ((CURRENT--))\n    \
             case $command in\n",
    );
    for command in commands {
        let _ = writeln!(text, "    {})\n        _arguments -s -S \\", command.name);
        for flag in (command.flags)() {
            let value = match (flag.value, words(&flag, formats)) {
                (None, _) => String::new(),
                (Some(name), Some(words)) => format!(":{}:({words})", escaped(name)),
                (Some(name), None) => format!(":{}:_files", escaped(name)),
            };
            let help = escaped(flag.help);
            let forms = forms(&flag);
            for form in &forms {
                let others = format!("({})", forms.join(" "));
                let _ = writeln!(
                    text,
                    "            {} \\",
                    quoted(&format!("{others}{form}[{help}]{value}"))
                );
            }
        }
        text.push_str("            '*:file:_files' ;;\n");
    }
    let _ = write!(
        text,
        "    esac\n}}\nif [[ $funcstack[1] == _{program} ]]; then\n    _{program} \"$@\"\nelse\n    compdef _{program} {program}\nfi\n"
    );
    text
}

/// What `_arguments` of zsh would take for its own.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

fn fish(program: &str, commands: &[CommandHelp], formats: &str) -> String {
    let mut text = format!(
        "# Completion of {program} for fish: put it into\n\
         # ~/.config/fish/completions/{program}.fish\n"
    );
    for command in commands {
        let _ = writeln!(
            text,
            "complete -c {program} -f -n __fish_use_subcommand -a {} -d {}",
            command.name,
            quoted(command.summary)
        );
    }
    for command in commands {
        for flag in (command.flags)() {
            let _ = write!(
                text,
                "complete -c {program} -n '__fish_seen_subcommand_from {}'",
                command.name
            );
            if let Some(letter) = flag.short {
                let _ = write!(text, " -s {}", char::from(letter));
            }
            for long in flag.long {
                let _ = write!(text, " -l {long}");
            }
            match (flag.value, words(&flag, formats)) {
                (None, _) => {}
                (Some(_), Some(words)) => {
                    let _ = write!(text, " -x -a {}", quoted(&words));
                }
                (Some(_), None) => text.push_str(" -r"),
            }
            let _ = writeln!(text, " -d {}", quoted(flag.help));
        }
    }
    text
}

/// A word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_known_kinds_have_words() {
        let flag = |value| Flag::new(&["x"], "").value(value);
        assert_eq!(words(&flag("SRC_FMT"), "raw qcow2").as_deref(), Some("raw qcow2"));
        assert_eq!(words(&flag("human|json"), "raw").as_deref(), Some("human json"));
        assert_eq!(words(&flag("CACHE"), "raw"), None);
        assert_eq!(words(&Flag::new(&["x"], ""), "raw"), None);
    }

    #[test]
    fn what_shells_would_take_for_theirs_is_quoted() {
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(escaped("[a]:b"), r"\[a\]\:b");
    }
}
