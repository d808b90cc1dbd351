//! The program as a whole: its name, its own flags, and the way to its commands.

use crate::args::{self, CommandHelp, Flag, Getopt, Order};
use crate::commands::{self, Command};
use crate::message::{Stop, describe_io};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

/// The name under which scripts know the commands.
const QEMU_IMG: &str = "qemu-img";

/// How the program was called. Messages start with that name, as scripts expect.
#[derive(Debug)]
pub(crate) struct Program {
    /// As typed.
    path: String,
    /// Without folders.
    name: String,
}

/// One run of one command.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    program: &'a Program,
    /// Standard output. What is written here appears when the command ends, or on `flush`.
    pub(crate) out: BufWriter<io::Stdout>,
}

impl Program {
    fn new(path: Option<OsString>) -> Self {
        let path = path.map_or_else(|| "rimg".to_owned(), |path| path.to_string_lossy().into());
        let name = Path::new(&path).file_name();
        let name = name.map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned());
        Self { path, name }
    }

    /// Whether this stands in for qemu-img.
    fn is_qemu_img(&self) -> bool {
        self.name == QEMU_IMG
    }

    /// All commands, in the order of help.
    fn commands(&self) -> impl Iterator<Item = &'static Command> {
        let own = if self.is_qemu_img() { &[] } else { commands::OWN };
        commands::ALL.iter().chain(own)
    }

    fn version(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        if self.is_qemu_img() {
            format!("qemu-img version {} (rimg {version})\n", commands::QEMU_IMG_VERSION)
        } else {
            let model = commands::QEMU_IMG_VERSION;
            format!("rimg version {version} (command line of qemu-img {model})\n")
        }
    }

    fn help(&self) -> String {
        let helps: Vec<CommandHelp> = self.commands().map(|command| command.help).collect();
        let formats = crate::images::format_names();
        let name = &self.name;
        args::program_help(name, &self.version(), &helps, &formats, !self.is_qemu_img())
    }

    fn say(&self, text: &str) {
        // Nothing can be done when standard error is closed.
        let _ = writeln!(io::stderr(), "{}: {text}", self.name);
    }

    /// Says why a command, or the program itself, stops, and gives the exit code.
    fn stop(&self, stop: Stop, command: Option<&CommandHelp>) -> u8 {
        let called = match command {
            Some(command) => format!("{} {}", self.path, command.name),
            None => self.path.clone(),
        };
        match stop {
            Stop::Help => {
                let text = match command {
                    Some(command) => args::command_help(&self.name, command, !self.is_qemu_img()),
                    None => self.help(),
                };
                print(&text);
                0
            }
            Stop::Usage(message) => {
                let _ = writeln!(
                    io::stderr(),
                    "{called}: {message}\nTry '{called} --help' for more info"
                );
                1
            }
            Stop::Advice(message) => {
                self.say(&message);
                let _ = writeln!(io::stderr(), "Try '{called} --help' for more info");
                1
            }
            Stop::Failed { message, exit } => {
                self.say(&message);
                exit
            }
            Stop::Output(error) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    self.say(&format!("Cannot write the output: {}", describe_io(&error)));
                }
                1
            }
        }
    }
}

impl Run<'_> {
    /// Whether what qemu-img has not is to be had.
    pub(crate) fn has_own(&self) -> bool {
        !self.program.is_qemu_img()
    }

    /// Prints to standard error behind the program's name.
    pub(crate) fn say(&self, text: &str) {
        self.program.say(text);
    }

    /// Prints to standard output.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Stop> {
        self.out.write_all(text.as_bytes()).map_err(Stop::Output)
    }

    /// Makes what was printed appear now.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.out.flush().map_err(Stop::Output)
    }
}

/// Runs the program with its command line, its own name first.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: VecDeque<OsString> = args.into_iter().collect();
    let program = Program::new(args.pop_front());
    let command = match own_flags(&program, args) {
        Ok(Some((command, args))) => return ExitCode::from(run_command(&program, command, args)),
        Ok(None) => return ExitCode::SUCCESS,
        Err(stop) => program.stop(stop, None),
    };
    ExitCode::from(command)
}

fn run_command(program: &Program, command: &Command, args: Vec<OsString>) -> u8 {
    let out = BufWriter::new(io::stdout());
    let mut run = Run { program, out };
    let result = (command.run)(&mut run, args);
    let flushed = run.flush();
    drop(run);
    match result.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(stop) => program.stop(stop, Some(&command.help)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Help,
    Version,
    Trace,
}

const OWN_FLAGS: &[(Own, Flag)] = &[
    (Own::Help, Flag::new(&["help"], "print this help and exit").short(b'h')),
    (Own::Version, Flag::new(&["version"], "print the version and exit").short(b'V')),
    (Own::Trace, Flag::new(&["trace"], "accepted for qemu-img").short(b'T').value("TRACE")),
];

type Chosen = (&'static Command, Vec<OsString>);

/// The program's own flags and the command behind them; `None` when all is done already.
fn own_flags(program: &Program, args: VecDeque<OsString>) -> Result<Option<Chosen>, Stop> {
    let mut getopt = Getopt::new(OWN_FLAGS, Order::FlagsFirst, args);
    while let Some((flag, value)) = getopt.next_flag()? {
        match flag {
            Own::Help => return Err(Stop::Help),
            Own::Version => {
                print(&program.version());
                return Ok(None);
            }
            // There is nothing to trace, so there is no list of it; scripts that ask for it shall
            // run.
            Own::Trace if value.is_some_and(|value| value == "help" || value == "?") => {
                return Ok(None);
            }
            Own::Trace => {}
        }
    }
    let mut operands = getopt.into_operands().into_iter();
    let Some(name) = operands.next() else {
        return Err(Stop::Advice("Not enough arguments".to_owned()));
    };
    let name = name.to_string_lossy();
    match program.commands().find(|command| command.help.name == name) {
        Some(command) => Ok(Some((command, operands.collect()))),
        None => Err(Stop::Advice(format!("Command not found: {name}"))),
    }
}

/// Prints a text of the program itself; nobody is left to tell when that fails.
fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
