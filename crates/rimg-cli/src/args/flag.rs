//! What there is to say of a flag and of a command, in one place for parser, help and manual.

/// One flag. `None` and empty lists mean that it has no such form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// The letter behind one dash.
    pub(crate) short: Option<u8>,
    /// Its long names, the one to show in help first.
    pub(crate) long: &'static [&'static str],
    /// What its value is called, for flags that take one.
    pub(crate) value: Option<&'static str>,
    /// What it does: a phrase without a full stop.
    pub(crate) help: &'static str,
    /// Whether qemu-img has it not. Such a flag is not known under that name, and is not to be
    /// abbreviated, so that it changes nothing for the others.
    pub(crate) own: bool,
}

impl Flag {
    /// A flag with one long name and no value; the other forms are added to it.
    pub(crate) const fn new(long: &'static [&'static str], help: &'static str) -> Self {
        Self { short: None, long, value: None, help, own: false }
    }

    /// Adds the letter.
    pub(crate) const fn short(self, letter: u8) -> Self {
        Self { short: Some(letter), ..self }
    }

    /// Makes it one that qemu-img has not.
    pub(crate) const fn own(self) -> Self {
        Self { own: true, ..self }
    }

    /// Makes it take a value.
    pub(crate) const fn value(self, name: &'static str) -> Self {
        Self { value: Some(name), ..self }
    }
}

/// What help says of a command apart from its flags.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandHelp {
    /// The word on the command line.
    pub(crate) name: &'static str,
    /// What it does: a phrase without a full stop.
    pub(crate) summary: &'static str,
    /// The forms of its command line, without program and command name.
    pub(crate) usage: &'static str,
    /// A further form, of which qemu-img knows nothing; empty where there is none.
    pub(crate) own_usage: &'static str,
    /// Its operands and what they are.
    pub(crate) operands: &'static [(&'static str, &'static str)],
    /// Those of which qemu-img knows nothing.
    pub(crate) own_operands: &'static [(&'static str, &'static str)],
    /// Command lines to learn from.
    pub(crate) examples: &'static [Example],
    /// All its flags.
    pub(crate) flags: fn() -> Vec<Flag>,
}

/// A command line to learn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example {
    /// What it does.
    pub(crate) does: &'static str,
    /// The line, without the program's name.
    pub(crate) line: &'static str,
}
