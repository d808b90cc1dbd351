//! Command lines: tables of flags, a parser with the habits and messages of GNU getopt, and help
//! made from the same tables.

mod complete;
mod flag;
mod getopt;
mod help;
mod man;
mod shared;

pub(crate) use complete::{Shell, completions};
pub(crate) use flag::{CommandHelp, Example, Flag};
pub(crate) use getopt::{Getopt, Order, UsageError};
pub(crate) use help::{command_help, program_help};
pub(crate) use man::{command_page, program_page};
pub(crate) use shared::{Shared, take_shared};
