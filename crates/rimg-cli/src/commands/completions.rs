//! `completions`: what a shell has to know to complete command lines.

use crate::args::{CommandHelp, Example, Flag, Shell, completions};
use crate::commands::{Command, common, helps, parse, text};
use crate::images::format_names;
use crate::message::Stop;
use crate::program::Run;
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "completions",
        summary: "Print what bash, zsh or fish needs to complete command lines",
        usage: "",
        own_usage: "bash|zsh|fish",
        operands: &[("bash|zsh|fish", "the shell")],
        own_operands: &[],
        examples: &[
            Example {
                does: "Complete command lines in this bash",
                line: "completions bash > rimg.bash && . ./rimg.bash",
            },
            Example {
                does: "Complete them in every fish",
                line: "completions fish > ~/.config/fish/completions/rimg.fish",
            },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Help;

const FLAGS: &[(Help, Flag)] = &[(Help, common::HELP)];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let operands = parse(FLAGS, args, |Help, _| Err(Stop::Help))?;
    let [shell] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting the name of a shell".to_owned()));
    };
    let name = text(shell);
    let shell = Shell::parse(&name).ok_or_else(|| {
        Stop::Advice(format!("Unknown shell '{name}'; known are bash, zsh, fish"))
    })?;
    run.print(&completions(shell, "rimg", &helps(), &format_names()))?;
    Ok(0)
}
