//! The picture for a terminal.

use super::{Look, Picture, percent};
use crate::size::human_size;
use std::fmt::Write as _;

/// The picture in lines of `width` cells, with colours if `coloured`.
pub(crate) fn text(picture: &Picture, width: usize, coloured: bool) -> String {
    let width = width.max(1);
    let mut text = format!("{}\n", picture.title);
    let cells: Vec<usize> = (0..picture.cells.len()).collect();
    for row in cells.chunks(width) {
        let start = row.first().map_or(0, |cell| picture.cell_start(*cell));
        let _ = write!(text, "{:>9} |", human_size(start));
        let mut last = None;
        for cell in row {
            let look = picture.look(*cell);
            if coloured && last != Some(look) {
                text.push_str(colour(look));
                last = Some(look);
            }
            text.push(letter(look));
        }
        if coloured {
            text.push_str("\x1b[0m");
        }
        let breaks: u64 = row.iter().filter_map(|cell| picture.breaks.get(*cell)).sum();
        let _ = match breaks {
            0 => writeln!(text, "|"),
            breaks => writeln!(text, "| {breaks}"),
        };
    }
    for (look, bytes) in picture.legend() {
        let (size, share) = (human_size(bytes), percent(bytes, picture.size_bytes));
        let _ = writeln!(text, "  {} {}: {size} ({share})", letter(look), look.name());
    }
    let _ = writeln!(text, "{}", picture.scatter());
    if picture.pieces > 0 {
        text.push_str("Numbers at the right count the pieces that begin in a line.\n");
    }
    text
}

/// How it looks without colours.
const fn letter(look: Look) -> char {
    match look {
        Look::Data(0) => '#',
        Look::Data(1) => '1',
        Look::Data(2) => '2',
        Look::Data(_) => '3',
        Look::Compressed(0) => 'c',
        Look::Compressed(1) => 'd',
        Look::Compressed(2) => 'e',
        Look::Compressed(_) => 'f',
        Look::Opaque(0) => 'x',
        Look::Opaque(1) => 'y',
        Look::Opaque(_) => 'w',
        Look::Zero => 'z',
        Look::Nothing => '.',
    }
}

/// The terminal's own colours, which fit its background.
const fn colour(look: Look) -> &'static str {
    match look {
        Look::Data(0) | Look::Compressed(0) => "\x1b[0;34m",
        Look::Data(1) | Look::Compressed(1) => "\x1b[0;36m",
        Look::Data(2) | Look::Compressed(2) => "\x1b[0;33m",
        Look::Data(_) | Look::Compressed(_) => "\x1b[0;35m",
        Look::Opaque(_) => "\x1b[0;31m",
        Look::Zero => "\x1b[0m",
        Look::Nothing => "\x1b[0;2m",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::picture;
    use super::*;

    #[test]
    fn lines_hold_cells_and_count_pieces() {
        let picture = picture(8, &[Some(0), Some(10), None, Some(40), None, None, None, None]);
        assert_eq!(
            text(&picture, 4, false),
            "disk\n      0 B |##.#| 2\n     40 B |....|\n  # data: 30 B (37%)\n  \
             . nothing: 50 B (62%)\nData lies in 2 pieces, in the order of the disk.\n\
             Numbers at the right count the pieces that begin in a line.\n"
        );
        assert!(text(&picture, 4, true).contains("|\x1b[0;34m##\x1b[0;2m.\x1b[0;34m#\x1b[0m|"));
    }
}
