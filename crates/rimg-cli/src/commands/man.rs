//! `man`: manual pages.

use crate::args::{CommandHelp, Example, Flag, command_page, program_page};
use crate::commands::{Command, common, helps, parse, text};
use crate::message::Stop;
use crate::program::Run;
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "man",
        summary: "Print a manual page: of the program, or of one command",
        usage: "",
        own_usage: "[COMMAND]",
        operands: &[("COMMAND", "the command that the page is about")],
        own_operands: &[],
        examples: &[
            Example { does: "Read about convert", line: "man convert | man -l -" },
            Example { does: "Install the page of the program", line: "man > rimg.1" },
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
    let version = format!("rimg {}", env!("CARGO_PKG_VERSION"));
    let page = match operands.as_slice() {
        [] => program_page("rimg", &version, &helps()),
        [name] => {
            let name = text(name);
            let helps = helps();
            let command = helps.iter().find(|command| command.name == name);
            let unknown = || Stop::Advice(format!("Command not found: {name}"));
            command_page("rimg", &version, command.ok_or_else(unknown)?)
        }
        _ => return Err(Stop::Advice("Expecting one command at most".to_owned())),
    };
    run.print(&page)?;
    Ok(0)
}
