//! A picture of an image: what its disk is made of, and how scattered it lies.

mod svg;
mod text;

pub(crate) use svg::svg;
pub(crate) use text::text;

use rimg::{ChainExtent, ExtentKind};

/// What a stretch of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Bytes as they are, of the image this deep in the chain.
    Data(usize),
    /// Compressed.
    Compressed(usize),
    /// Encrypted, or stored as only the format knows.
    Opaque(usize),
    /// Known to be zero.
    Zero,
    /// No image says anything.
    Nothing,
}

/// Images deeper than this look like this one.
const MAX_DEPTH: usize = 3;

impl Look {
    const ALL: [Self; 14] = [
        Self::Data(0),
        Self::Data(1),
        Self::Data(2),
        Self::Data(3),
        Self::Compressed(0),
        Self::Compressed(1),
        Self::Compressed(2),
        Self::Compressed(3),
        Self::Opaque(0),
        Self::Opaque(1),
        Self::Opaque(2),
        Self::Opaque(3),
        Self::Zero,
        Self::Nothing,
    ];

    fn of(extent: &ChainExtent) -> Self {
        let depth = extent.depth.min(MAX_DEPTH);
        match extent.kind {
            ExtentKind::Data(_) => Self::Data(depth),
            ExtentKind::Encoded { .. } => Self::Compressed(depth),
            ExtentKind::Zero { .. } => Self::Zero,
            ExtentKind::Backing { .. } => Self::Nothing,
            _ => Self::Opaque(depth),
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|look| *look == self).unwrap_or_default()
    }

    fn name(self) -> String {
        let (what, depth) = match self {
            Self::Data(depth) => ("data", depth),
            Self::Compressed(depth) => ("compressed", depth),
            Self::Opaque(depth) => ("encrypted", depth),
            Self::Zero => return "known to be zero".to_owned(),
            Self::Nothing => return "nothing".to_owned(),
        };
        match depth {
            0 => what.to_owned(),
            MAX_DEPTH.. => format!("{what}, {depth} or more images below"),
            1 => format!("{what} of the image below"),
            _ => format!("{what}, {depth} images below"),
        }
    }
}

/// How many bytes of each look.
type Weights = [u64; Look::ALL.len()];

/// A disk drawn in so many cells of equal length.
#[derive(Debug)]
pub(crate) struct Picture {
    /// What stands above it.
    title: String,
    size_bytes: u64,
    cells: Vec<Weights>,
    /// How many pieces of a file begin in each cell.
    breaks: Vec<u64>,
    totals: Weights,
    /// How many pieces of a file there are, and how many lie before the one that they follow.
    pieces: u64,
    backward: u64,
    /// Where data lies, piece by piece: of the disk, of the file; what it looks like.
    places: Vec<Place>,
    last: Option<End>,
}

/// Data that lies in one piece.
#[derive(Debug, Clone, Copy)]
struct Place {
    guest: u64,
    host: u64,
    len: u64,
    look: Look,
}

/// Where the last data of a file ended.
#[derive(Debug, Clone, Copy)]
struct End {
    depth: usize,
    file: u16,
    host: u64,
}

/// So many pieces are drawn; more are not to be told apart.
const MAX_PLACES: usize = 20_000;

impl Picture {
    /// An empty picture of a disk.
    pub(crate) fn new(title: String, size_bytes: u64, cells: usize) -> Self {
        let cells = cells.max(1);
        Self {
            title,
            size_bytes,
            cells: vec![Weights::default(); cells],
            breaks: vec![0; cells],
            totals: Weights::default(),
            pieces: 0,
            backward: 0,
            places: Vec::new(),
            last: None,
        }
    }

    /// Adds what comes next.
    pub(crate) fn add(&mut self, extent: &ChainExtent) {
        let look = Look::of(extent);
        let index = look.index();
        if let Some(total) = self.totals.get_mut(index) {
            *total = total.saturating_add(extent.len_bytes);
        }
        let (mut at, end) = (extent.start, extent.end().min(self.size_bytes));
        while at < end {
            let cell = self.cell_at(at);
            let cell_end = self.cell_start(cell.saturating_add(1)).clamp(at.saturating_add(1), end);
            let weights = self.cells.get_mut(cell).and_then(|weights| weights.get_mut(index));
            if let Some(weight) = weights {
                *weight = weight.saturating_add(cell_end.saturating_sub(at));
            }
            at = cell_end;
        }
        self.add_place(extent, look);
    }

    fn add_place(&mut self, extent: &ChainExtent, look: Look) {
        let (at, len) = match extent.kind {
            ExtentKind::Data(at) => (at, extent.len_bytes),
            ExtentKind::Encoded { at, len_bytes, .. } => (at, len_bytes),
            _ => return,
        };
        let next = End { depth: extent.depth, file: at.file, host: at.host.0.saturating_add(len) };
        let last = self.last.replace(next);
        let same = last.filter(|last| (last.depth, last.file) == (next.depth, next.file));
        let encoded = matches!(extent.kind, ExtentKind::Encoded { .. });
        // Lengths of encoded clusters are bounds: they may reach a little into the next.
        let follows = same.is_some_and(|last| {
            let gap = last.host.abs_diff(at.host.0);
            gap == 0 || (encoded && gap <= 1024)
        });
        if !follows {
            self.pieces = self.pieces.saturating_add(1);
            if same.is_some_and(|last| at.host.0 < last.host) {
                self.backward = self.backward.saturating_add(1);
            }
            let cell = self.cell_at(extent.start);
            if let Some(breaks) = self.breaks.get_mut(cell) {
                *breaks = breaks.saturating_add(1);
            }
        }
        if self.places.len() < MAX_PLACES {
            self.places.push(Place { guest: extent.start, host: at.host.0, len, look });
        }
    }

    fn count(&self) -> u64 {
        u64::try_from(self.cells.len()).unwrap_or(u64::MAX)
    }

    fn cell_at(&self, at: u64) -> usize {
        let size = u128::from(self.size_bytes.max(1));
        let cell = u128::from(at).saturating_mul(u128::from(self.count())) / size;
        usize::try_from(cell).unwrap_or(usize::MAX).min(self.cells.len().saturating_sub(1))
    }

    /// Where a cell begins, in bytes.
    fn cell_start(&self, cell: usize) -> u64 {
        let cell = u128::try_from(cell).unwrap_or_default();
        let start = cell.saturating_mul(u128::from(self.size_bytes));
        u64::try_from(start.div_ceil(u128::from(self.count()))).unwrap_or(u64::MAX)
    }

    /// What a cell looks like: data is shown though there be little of it among zeroes.
    fn look(&self, cell: usize) -> Look {
        let Some(weights) = self.cells.get(cell) else { return Look::Nothing };
        let heaviest = |looks: &[Look]| {
            let weighed = looks.iter().map(|look| (weights.get(look.index()).copied(), *look));
            weighed.filter(|(weight, _)| *weight > Some(0)).max_by_key(|(weight, _)| *weight)
        };
        let (data, rest) = Look::ALL.split_at(Look::Zero.index());
        heaviest(data).or_else(|| heaviest(rest)).map_or(Look::Nothing, |(_, look)| look)
    }

    /// The looks that occur, and how many bytes of each.
    fn legend(&self) -> impl Iterator<Item = (Look, u64)> {
        Look::ALL.into_iter().zip(self.totals).filter(|(_, bytes)| *bytes > 0)
    }

    /// How scattered the data is, in words.
    fn scatter(&self) -> String {
        match (self.pieces, self.backward) {
            (0, _) => "No data.".to_owned(),
            (1, _) => "All data lies in one piece.".to_owned(),
            (pieces, 0) => format!("Data lies in {pieces} pieces, in the order of the disk."),
            (pieces, back) => format!("Data lies in {pieces} pieces, {back} out of order."),
        }
    }
}

/// `part` of `whole` in percent, rounded, but never to nothing.
fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part).saturating_mul(100) / u128::from(whole.max(1));
    if percent == 0 && part > 0 { "<1%".to_owned() } else { format!("{percent}%") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg::{FileOffset, HostOffset};

    /// Data at these places of the file, `None` for nothing: 10 bytes each.
    pub(super) fn picture(cells: usize, runs: &[Option<u64>]) -> Picture {
        let size = u64::try_from(runs.len()).unwrap() * 10;
        let mut picture = Picture::new("disk".to_owned(), size, cells);
        for (start, run) in (0..).step_by(10).zip(runs) {
            let kind = match run {
                Some(host) => ExtentKind::Data(FileOffset { file: 0, host: HostOffset(*host) }),
                None => ExtentKind::Backing { allocation: None },
            };
            picture.add(&ChainExtent { start, len_bytes: 10, depth: 0, kind });
        }
        picture
    }

    #[test]
    fn cells_show_data_among_nothing() {
        let picture = picture(2, &[None, None, Some(0), None, None, None, None, None]);
        assert_eq!((picture.look(0), picture.look(1)), (Look::Data(0), Look::Nothing));
        assert_eq!(
            picture.legend().collect::<Vec<_>>(),
            [(Look::Data(0), 10), (Look::Nothing, 70)]
        );
    }

    #[test]
    fn every_byte_is_in_one_cell() {
        for cells in [1, 3, 7, 64, 1000] {
            let picture = picture(cells, &[Some(0); 13]);
            let sum: u64 = picture.cells.iter().flatten().sum();
            assert_eq!(sum, 130, "{cells} cells");
        }
    }

    #[test]
    fn pieces_and_their_order_are_counted() {
        let scatter = |runs: &[Option<u64>]| picture(4, runs).scatter();
        assert_eq!(scatter(&[None]), "No data.");
        assert_eq!(scatter(&[Some(0), Some(10), None, Some(20)]), "All data lies in one piece.");
        assert_eq!(
            scatter(&[Some(0), Some(20), Some(30)]),
            "Data lies in 2 pieces, in the order of the disk."
        );
        assert_eq!(
            scatter(&[Some(90), Some(20), Some(50)]),
            "Data lies in 3 pieces, 1 out of order."
        );
    }
}
