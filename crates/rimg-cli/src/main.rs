//! `rimg`: a drop-in `qemu-img`.
//!
//! The folders are the layers: `args` knows command lines, `commands` has one file for each
//! sub-command, `output` knows what things look like when printed. What they share (sizes, `-o`
//! lists, JSON, messages) lies beside this file.
#![forbid(unsafe_code)]

mod args;
mod class;
mod commands;
mod damage;
mod epoch;
mod images;
mod json;
mod message;
mod options;
mod output;
mod program;
mod secrets;
mod size;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::run(std::env::args_os())
}
