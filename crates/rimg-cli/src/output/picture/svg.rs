//! The picture as a file: the disk line by line, and below it where its data lies in the file.

use super::{Look, Picture, Place, percent};
use crate::size::human_size;
use core::fmt::Write as _;

/// Everything is in pixels. The picture is so wide, with room for labels at the left.
const WIDTH: usize = 960;
const LEFT: usize = 90;
const RIGHT: usize = 20;
const ROW: usize = 14;
const TOP: usize = 48;
const LEGEND_ROW: usize = 20;
const PLOT: usize = 220;

/// The picture in lines of `columns` cells.
pub(crate) fn svg(picture: &Picture, columns: usize) -> String {
    let columns = columns.max(1);
    let rows = picture.cells.len().div_ceil(columns);
    let legend: Vec<_> = picture.legend().collect();
    let legend_top = TOP.saturating_add(rows.saturating_mul(ROW)).saturating_add(16);
    let legend_rows = legend.len().div_ceil(3);
    let plot_top =
        legend_top.saturating_add(legend_rows.saturating_mul(LEGEND_ROW)).saturating_add(44);
    let has_plot = !picture.places.is_empty();
    let height = if has_plot { plot_top.saturating_add(PLOT).saturating_add(40) } else { plot_top };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#111827\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
        escaped(&picture.title)
    );
    draw_rows(&mut text, picture, columns);
    draw_legend(&mut text, picture, &legend, legend_top);
    if has_plot {
        draw_places(&mut text, picture, plot_top);
    }
    text.push_str("</svg>\n");
    text
}

fn draw_rows(text: &mut String, picture: &Picture, columns: usize) {
    let cells: Vec<usize> = (0..picture.cells.len()).collect();
    let inner = WIDTH.saturating_sub(LEFT).saturating_sub(RIGHT);
    for (row, cells) in cells.chunks(columns).enumerate() {
        let y = TOP.saturating_add(row.saturating_mul(ROW));
        if row.is_multiple_of(4) {
            let start = cells.first().map_or(0, |cell| picture.cell_start(*cell));
            let (x, y) = (LEFT.saturating_sub(8), y.saturating_add(ROW).saturating_sub(3));
            let size = human_size(start);
            let _ = writeln!(
                text,
                "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" fill=\"#6b7280\">{size}</text>"
            );
        }
        let looks: Vec<Look> = cells.iter().map(|cell| picture.look(*cell)).collect();
        let mut column = 0_usize;
        for run in looks.chunk_by(|one, next| one == next) {
            let place = |column: usize| column.saturating_mul(inner) / columns;
            let end = column.saturating_add(run.len());
            let (x, width) = (place(column), place(end).saturating_sub(place(column)));
            let (x, height) = (x.saturating_add(LEFT), ROW.saturating_sub(2));
            let fill = run.first().map_or("none", |look| colour(*look));
            let _ = writeln!(
                text,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
            );
            column = end;
        }
    }
}

fn draw_legend(text: &mut String, picture: &Picture, legend: &[(Look, u64)], top: usize) {
    let column = WIDTH.saturating_sub(LEFT) / 3;
    for (index, (look, bytes)) in legend.iter().enumerate() {
        let x = LEFT.saturating_add((index % 3).saturating_mul(column));
        let y = top.saturating_add((index / 3).saturating_mul(LEGEND_ROW));
        let fill = colour(*look);
        let words = format!(
            "{}: {} ({})",
            look.name(),
            human_size(*bytes),
            percent(*bytes, picture.size_bytes)
        );
        let (text_x, text_y) = (x.saturating_add(18), y.saturating_add(11));
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{fill}\" \
             stroke=\"#9ca3af\" stroke-width=\"0.5\"/>\n\
             <text x=\"{text_x}\" y=\"{text_y}\" font-size=\"11\">{words}</text>"
        );
    }
}

/// Positions in the disk from left to right, positions in the file from bottom to top.
fn draw_places(text: &mut String, picture: &Picture, top: usize) {
    let inner = WIDTH.saturating_sub(LEFT).saturating_sub(RIGHT);
    let ends = picture.places.iter().map(|place| place.host.saturating_add(place.len));
    let file_end = ends.max().unwrap_or(1).max(1);
    let bottom = top.saturating_add(PLOT);
    let right = LEFT.saturating_add(inner);
    let label = LEFT.saturating_sub(8);
    let (above, below) = (top.saturating_sub(10), bottom.saturating_add(18));
    let (file_size, disk_size) = (human_size(file_end), human_size(picture.size_bytes));
    let top_label = top.saturating_add(10);
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{above}\" font-weight=\"bold\">{}</text>\n\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{inner}\" height=\"{PLOT}\" fill=\"#f9fafb\" \
         stroke=\"#d1d5db\"/>\n\
         <g fill=\"#6b7280\">\n\
         <text x=\"{label}\" y=\"{top_label}\" text-anchor=\"end\">{file_size}</text>\n\
         <text x=\"{label}\" y=\"{bottom}\" text-anchor=\"end\">file</text>\n\
         <text x=\"{LEFT}\" y=\"{below}\">disk</text>\n\
         <text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{disk_size}</text>\n\
         </g>",
        escaped(&picture.scatter())
    );
    let scale = |at: u64, whole: u64, pixels: usize| {
        // Hundredths of a pixel.
        let pixels = u128::try_from(pixels).unwrap_or_default().saturating_mul(100);
        u128::from(at).saturating_mul(pixels) / u128::from(whole.max(1))
    };
    let mut drawn = None;
    for Place { guest, host, len, look } in &picture.places {
        let x = scale(*guest, picture.size_bytes, inner);
        let width = scale(*len, picture.size_bytes, inner).max(150);
        let y = scale(*host, file_end, PLOT);
        let height = scale(*len, file_end, PLOT).max(150);
        // What falls on the same pixel is drawn once.
        let spot = (x / 100, y / 100, *look);
        if drawn.replace(spot) == Some(spot) && width <= 150 {
            continue;
        }
        let x = x.saturating_add(u128::try_from(LEFT).unwrap_or_default().saturating_mul(100));
        let bottom = u128::try_from(bottom).unwrap_or_default().saturating_mul(100);
        let (start, end) =
            (bottom.saturating_sub(y), bottom.saturating_sub(y.saturating_add(height)));
        let _ = writeln!(
            text,
            "<path d=\"M{} {}L{} {}\" stroke=\"{}\" stroke-width=\"2.5\" stroke-linecap=\"round\"/>",
            hundredths(x),
            hundredths(start),
            hundredths(x.saturating_add(width)),
            hundredths(end),
            colour(*look)
        );
    }
}

fn hundredths(number: u128) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

/// One hue an image, lighter where it is compressed.
const fn colour(look: Look) -> &'static str {
    match look {
        Look::Data(0) => "#1d4ed8",
        Look::Data(1) => "#0f766e",
        Look::Data(2) => "#b45309",
        Look::Data(_) => "#7e22ce",
        Look::Compressed(0) => "#60a5fa",
        Look::Compressed(1) => "#2dd4bf",
        Look::Compressed(2) => "#fbbf24",
        Look::Compressed(_) => "#c084fc",
        Look::Opaque(0) => "#be123c",
        Look::Opaque(1) => "#e11d48",
        Look::Opaque(_) => "#fb7185",
        Look::Zero => "#cbd5e1",
        Look::Nothing => "#f1f5f9",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::picture;
    use super::*;

    #[test]
    fn runs_of_cells_are_one_rectangle() {
        let picture = picture(8, &[Some(0), Some(10), None, None, Some(5), None, None, None]);
        let svg = svg(&picture, 4);
        let rows = svg
            .lines()
            .filter(|line| line.contains("height=\"12\" fill") && line.contains("width=\"425\""));
        assert_eq!(rows.count(), 2, "{svg}");
        assert_eq!(svg.matches("<path").count(), 3);
        assert!(svg.contains("Data lies in 2 pieces, 1 out of order."));
    }

    #[test]
    fn names_cannot_break_the_file() {
        assert_eq!(escaped("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
