//! `--picture`: the map for the eye.

use crate::class::Class;
use crate::images::Opened;
use crate::message::{Stop, describe, describe_io};
use crate::output::picture::{Picture, svg, text};
use crate::program::Run;
use crate::size::human_size;
use rimg::ChainExtents;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal};
use std::ops::Range;

/// A picture in a file has so many cells in a line, and so many lines.
const SVG_COLUMNS: usize = 425;
const SVG_ROWS: usize = 24;

/// So many lines on a terminal, of which this much is not the disk.
const TEXT_ROWS: usize = 16;
const MARGIN: usize = 24;
const DEFAULT_WIDTH: usize = 80;

/// Draws an image to standard output, or into a file.
pub(super) fn draw(
    run: &mut Run<'_>,
    opened: &Opened,
    range: Range<u64>,
    file: Option<&OsStr>,
) -> Result<(), Stop> {
    let Some(file) = file else {
        let width = width().saturating_sub(MARGIN).clamp(16, 400);
        let picture = picture(opened, range, width.saturating_mul(TEXT_ROWS))?;
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        return run.print(&text(&picture, width, coloured));
    };
    if opened.consists_of(file.as_ref()) {
        let name = file.to_string_lossy();
        return Err(Stop::failed(format!("'{name}' is what is to be drawn")));
    }
    let picture = picture(opened, range, SVG_COLUMNS.saturating_mul(SVG_ROWS))?;
    fs::write(file, svg(&picture, SVG_COLUMNS)).map_err(|error| {
        Stop::failed(format!("Cannot write '{}': {}", file.to_string_lossy(), describe_io(&error)))
            .of(Class::of(&error))
    })
}

fn picture(opened: &Opened, range: Range<u64>, cells: usize) -> Result<Picture, Stop> {
    let depth = opened.image.layers().len();
    let below = match depth {
        0 | 1 => String::new(),
        2 => ", one image below".to_owned(),
        more => format!(", {} images below", more.saturating_sub(1)),
    };
    let size = opened.disk().size_bytes();
    let title = format!("{}: {}, {}{below}", opened.filename, opened.format(), human_size(size));
    let len = range.end.saturating_sub(range.start);
    let mut picture = Picture::new(title, len, cells);
    for extent in ChainExtents::within(opened.disk(), range.clone()) {
        let mut extent = extent.map_err(|error| {
            Stop::failed(format!("Could not read file metadata: {}", describe(&error)))
                .of(Class::of(&error))
        })?;
        extent.start = extent.start.saturating_sub(range.start);
        picture.add(&extent);
    }
    Ok(picture)
}

/// How wide the terminal is, or what the user says.
fn width() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = console::Term::stdout().size_checked().map(|(_, columns)| columns.into());
    terminal.or(said).unwrap_or(DEFAULT_WIDTH)
}
