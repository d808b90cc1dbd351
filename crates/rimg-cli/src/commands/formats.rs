//! `formats`: what can be done with images of which format.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::{Command, common, output_form, parse};
use crate::json::pretty;
use crate::message::{Stop, describe};
use crate::output::Form;
use crate::output::formats::{Row, table};
use crate::program::Run;
use rimg::{
    Creator, Error, FORMATS, FileError, FormatDriver, InfoValue, MemoryStorage, OpenedImage,
    Opener, RawOptions, Secret, Storage,
};
use rimg_core::TargetFiles;
use std::ffi::OsString;
use std::sync::Arc;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "formats",
        summary: "List the formats and what can be done with their images",
        usage: "",
        own_usage: "[--output human|json]",
        operands: &[],
        own_operands: &[],
        examples: &[
            Example { does: "Show a table", line: "formats" },
            Example {
                does: "Print the names of all formats that can be written",
                line: "formats --output=json | jq -r '.[] | select(.write) | .name'",
            },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Output,
}

const FLAGS: &[(Key, Flag)] = &[(Key::Help, common::HELP), (Key::Output, common::OUTPUT)];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut form = Form::Human;
    let operands = parse(FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Output => form = output_form(&value)?,
        }
        Ok(())
    })?;
    if !operands.is_empty() {
        return Err(Stop::Advice("Expecting no operands".to_owned()));
    }
    let rows = FORMATS.iter().map(|driver| row(*driver)).collect::<Result<Vec<_>, _>>()?;
    match form {
        Form::Human => run.print(&table(&rows))?,
        Form::Json => {
            let list = rows.iter().map(Row::value).collect();
            run.print(&pretty(&InfoValue::List(list)))?;
        }
    }
    Ok(0)
}

/// How large the disk is that a format is tried with, in bytes.
const TRIAL_BYTES: u64 = 4 << 20;

/// What a format can: what it says of itself, and what an image of it offers that is made in
/// memory for a look at it.
fn row(driver: &dyn FormatDriver) -> Result<Row, Stop> {
    let info = driver.format();
    let failed = |error: &Error| {
        Stop::failed(format!("{}: {}", info.name, describe(error))).of(Class::of(error))
    };
    let (image, options) = match info.writable {
        true => trial(driver).map(|(image, options)| (Some(image), options)),
        false => Ok((None, RawOptions::new())),
    }
    .map_err(|error| failed(&error))?;
    let has = |offers: fn(&OpenedImage) -> bool| image.as_ref().is_some_and(offers);
    let measured = driver.measure(TRIAL_BYTES, &options);
    let takes = |prefix: &str| info.all_create_options().any(|spec| spec.name.starts_with(prefix));
    Ok(Row {
        name: info.name,
        description: info.description,
        can: [
            ("write", info.writable),
            ("backing", info.backing),
            ("compress", info.compresses),
            ("resize", has(|image| image.resizer().is_some())),
            ("check", has(|image| image.checker().is_some())),
            ("snapshots", has(|image| image.snapshots().is_some())),
            ("bitmaps", has(|image| image.bitmaps().is_some())),
            ("encrypt", info.name == "luks" || takes("encrypt")),
            ("amend", !info.amend_options.is_empty()),
            ("measure", measured.is_ok_and(|measure| measure.is_some())),
        ],
        options: info.all_create_options().map(|spec| spec.name).collect(),
    })
}

/// A small image in memory, and the options that it was made with.
fn trial(driver: &dyn FormatDriver) -> Result<(OpenedImage, RawOptions), Error> {
    let name = driver.format().name;
    let key = Secret::from(&b"no secret at all"[..]);
    let (mut creator, mut opener) = (Creator::new(name).size(TRIAL_BYTES), Opener::new());
    if name == "luks" {
        creator = creator.option("key-secret", "k").option("iter-time", "1");
        creator = creator.secret("k", key.clone());
        opener = opener.option("key-secret", "k").secret("k", key);
    }
    let inner = |FileError { source, .. }| source;
    let plan = creator.plan("trial").map_err(inner)?;
    let memory = Memory(Arc::new(MemoryStorage::new()));
    plan.driver.create(&memory, plan.size_bytes, &plan.options)?;
    let image = opener.format(name).writable(true).open_storage(memory.0).map_err(inner)?;
    Ok((image, plan.options))
}

struct Memory(Arc<dyn Storage>);

impl TargetFiles for Memory {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.0
    }

    fn sibling(&self, _name: &str) -> Result<Arc<dyn Storage>, Error> {
        Ok(Arc::new(MemoryStorage::new()))
    }
}
