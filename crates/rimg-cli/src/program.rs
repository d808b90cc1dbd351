//! The program as a whole: its name, its own flags, and the way to its commands.

use crate::args::{self, CommandHelp, Flag, Getopt, Order, Shared};
use crate::class::Class;
use crate::commands::{self, Command};
use crate::json::quoted;
use crate::message::{Stop, describe_io};
use crate::output::Form;
use crate::output::progress::Progress;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

/// How much of standard output waits in memory: as much as with C's.
const STDIO_BYTES: usize = 4096;

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

/// What is asked of any command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// How errors and warnings look.
    errors: Form,
    /// How progress looks, where it is asked for in a form.
    progress: Option<Form>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { errors: Form::Human, progress: None }
    }
}

impl Shape {
    fn set(&mut self, (name, value): Shared) -> Result<(), Stop> {
        let value = value.to_string_lossy();
        let form = Form::parse(&value).ok_or_else(|| {
            Stop::Advice(format!("--{name} expects 'human' or 'json' not '{value}'"))
        })?;
        match name {
            "errors" => self.errors = form,
            _ => self.progress = Some(form),
        }
        Ok(())
    }
}

/// One run of one command.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    program: &'a Program,
    shape: Shape,
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
        let errors = format!(
            "how errors and warnings look on standard error; json: one object a line, and an exit \
             code for the class: {}; for others the command's own",
            Class::list()
        );
        let progress = "show how far the work is; json: one object a line on standard error (both \
                        flags also stand behind a command: --errors=json --progress=json)";
        let own = [("--errors human|json", errors.as_str()), ("--progress human|json", progress)];
        let own = (!self.is_qemu_img()).then_some(own.as_slice());
        args::program_help(name, &self.version(), &helps, &formats, own)
    }

    fn say(&self, text: &str) {
        // Nothing can be done when standard error is closed.
        let _ = writeln!(io::stderr(), "{}: {text}", self.name);
    }

    /// Says why a command, or the program itself, stops, and gives the exit code.
    fn stop(&self, stop: Stop, command: Option<&CommandHelp>, errors: Form) -> u8 {
        let stop = if self.is_qemu_img() { stop } else { stop.with_name() };
        if errors == Form::Json {
            let (class, exit, message) = match stop {
                Stop::Help => return self.stop(stop, command, Form::Human),
                Stop::Usage(message) | Stop::Advice(message) => (Class::Usage, 1, message),
                Stop::Failed { message, exit, class, .. } => (class, exit, message),
                Stop::Output(error) => (Class::Io, 1, describe_io(&error)),
            };
            let exit = class.exit().unwrap_or(exit);
            let command = command.map_or_else(|| "null".to_owned(), |help| quoted(help.name));
            let (class, message) = (quoted(class.name()), quoted(&message));
            // Nothing can be done when standard error is closed.
            let _ = writeln!(
                io::stderr(),
                "{{\"kind\": \"error\", \"command\": {command}, \"class\": {class}, \"exit\": {exit}, \
                 \"message\": {message}}}"
            );
            return exit;
        }
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
            Stop::Failed { message, exit, .. } => {
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
        match self.shape.errors {
            Form::Human => self.program.say(text),
            Form::Json => {
                let message = quoted(text.strip_prefix("warning: ").unwrap_or(text));
                let line = format!("{{\"kind\": \"warning\", \"message\": {message}}}\n");
                let _ = io::stderr().write_all(line.as_bytes());
            }
        }
    }

    /// What shows progress, if it is `wanted`: percentages when they grew by more than `step`,
    /// unless another form was asked for.
    pub(crate) fn progress(&self, wanted: bool, step: f32) -> Progress {
        match self.shape.progress {
            Some(Form::Json) => Progress::json(),
            Some(Form::Human) => Progress::start(true, step),
            None => Progress::start(wanted, step),
        }
    }

    /// As [`progress`](Self::progress), never on standard output: a result goes there.
    pub(crate) fn progress_beside_output(&self, wanted: bool, step: f32) -> Progress {
        match self.shape.progress {
            Some(Form::Json) => Progress::json(),
            asked => Progress::beside_output(wanted || asked.is_some(), step),
        }
    }

    /// Prints to standard output.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Stop> {
        self.out.write_all(text.as_bytes()).map_err(Stop::Output)
    }

    /// Lets somebody who watches see what was printed.
    pub(crate) fn show(&mut self) -> Result<(), Stop> {
        if io::stdout().is_terminal() { self.flush() } else { Ok(()) }
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
    let mut shape = Shape::default();
    let command = match own_flags(&program, args, &mut shape) {
        Ok(Some((command, args))) => run_command(&program, command, args, shape),
        Ok(None) => return ExitCode::SUCCESS,
        Err(stop) => program.stop(stop, None, shape.errors),
    };
    ExitCode::from(command)
}

fn run_command(
    program: &Program,
    command: &Command,
    mut args: Vec<OsString>,
    mut shape: Shape,
) -> u8 {
    if !program.is_qemu_img() {
        let (rest, shared) = args::take_shared(&(command.help.flags)(), args);
        args = rest;
        for flag in shared {
            if let Err(stop) = shape.set(flag) {
                return program.stop(stop, Some(&command.help), shape.errors);
            }
        }
    }
    let out = BufWriter::with_capacity(STDIO_BYTES, io::stdout());
    let mut run = Run { program, shape, out };
    let result = (command.run)(&mut run, args);
    let stop = |why| program.stop(why, Some(&command.help), shape.errors);
    match result {
        // Who reads both streams from one pipe, or file, has qemu-img's message first: what it
        // printed before waits in C's buffer until it exits.
        Err(why) if program.is_qemu_img() && !io::stdout().is_terminal() => {
            let exit = stop(why);
            let _ = run.flush();
            exit
        }
        result => {
            let flushed = run.flush();
            result.and_then(|exit| flushed.map(|()| exit)).unwrap_or_else(stop)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Help,
    Version,
    Trace,
    Errors,
    Progress,
}

const OWN_FLAGS: &[(Own, Flag)] = &[
    (Own::Help, Flag::new(&["help"], "print this help and exit").short(b'h')),
    (Own::Version, Flag::new(&["version"], "print the version and exit").short(b'V')),
    (Own::Trace, Flag::new(&["trace"], "accepted for qemu-img").short(b'T').value("TRACE")),
    (Own::Errors, Flag::new(&["errors"], "how errors look").value("human|json").own()),
    (Own::Progress, Flag::new(&["progress"], "how progress looks").value("human|json").own()),
];

type Chosen = (&'static Command, Vec<OsString>);

/// The program's own flags and the command behind them; `None` when all is done already.
fn own_flags(
    program: &Program,
    args: VecDeque<OsString>,
    shape: &mut Shape,
) -> Result<Option<Chosen>, Stop> {
    let flags = commands::known(OWN_FLAGS, !program.is_qemu_img());
    let mut getopt = Getopt::new(&flags, Order::FlagsFirst, args);
    while let Some((flag, value)) = getopt.next_flag()? {
        match flag {
            Own::Help => return Err(Stop::Help),
            Own::Version => {
                print(&program.version());
                return Ok(None);
            }
            // There is nothing to trace, so there is no list of it; scripts that ask for it shall
            // run.
            Own::Trace if value.as_ref().is_some_and(|value| value == "help" || value == "?") => {
                return Ok(None);
            }
            Own::Trace => {}
            Own::Errors => shape.set(("errors", value.unwrap_or_default()))?,
            Own::Progress => shape.set(("progress", value.unwrap_or_default()))?,
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
