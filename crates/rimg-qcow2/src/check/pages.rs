//! A count for each of very many clusters, in as few bits as their neighbourhood allows.
//!
//! Clusters are kept in pages. A page that nothing refers to takes no memory; one whose clusters
//! have one reference each takes two bits for each of them; only where there are more, in images
//! with snapshots, do the counts of that page become wider.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use rimg_core::{MetadataBudget, Result, num};

/// How many clusters a page has, as a power of two.
pub(super) const PAGE_BITS: u32 = 15;
const PAGE_CLUSTERS: u64 = 1 << PAGE_BITS;

/// The bits of the counts of a new page, as a power of two.
const NARROW: u32 = 1;

/// What is known of the references to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cell {
    /// How many there are.
    pub(super) count: u64,
    /// One of them is by a table of the disk, with COPIED set.
    pub(super) copied: bool,
    /// One of them is by a table of the disk, with COPIED clear.
    pub(super) not_copied: bool,
}

impl Cell {
    /// The largest count that a cell can have.
    pub(super) const MAX: u64 = (1 << 62) - 1;

    /// In the two bits of a narrow cell: 0 is nothing, 3 a reference that has no COPIED flag.
    const fn narrow(self) -> Option<u64> {
        match self {
            Self { count: 0, copied: false, not_copied: false } => Some(0),
            Self { count: 1, copied: false, not_copied: true } => Some(1),
            Self { count: 1, copied: true, not_copied: false } => Some(2),
            Self { count: 1, copied: false, not_copied: false } => Some(3),
            _ => None,
        }
    }

    /// In `1 << width` bits, if it fits.
    fn encode(self, width: u32) -> Option<u64> {
        if width == NARROW {
            return self.narrow();
        }
        let bits = 1_u32.checked_shl(width)?;
        let fits = self.count.checked_shr(bits.saturating_sub(2)).unwrap_or(0) == 0;
        let flags = u64::from(self.not_copied) | u64::from(self.copied) << 1;
        fits.then_some(self.count << 2 | flags)
    }

    const fn decode(raw: u64, width: u32) -> Self {
        if width == NARROW {
            Self { count: if raw == 0 { 0 } else { 1 }, copied: raw == 2, not_copied: raw == 1 }
        } else {
            Self { count: raw >> 2, copied: raw & 2 != 0, not_copied: raw & 1 != 0 }
        }
    }
}

/// The cells of a page; none while all are blank.
#[derive(Debug, Clone, Default)]
struct Page {
    width: u32,
    words: Vec<u64>,
}

/// Cells by number.
#[derive(Debug)]
pub(super) struct Pages {
    pages: Vec<Page>,
    budget: MetadataBudget,
}

impl Pages {
    /// Cells for `clusters` clusters, all blank.
    pub(super) fn new(clusters: u64, budget: MetadataBudget) -> Result<Self> {
        let mut new = Self { pages: Vec::new(), budget };
        new.grow(clusters)?;
        Ok(new)
    }

    /// Makes room for `clusters` clusters.
    pub(super) fn grow(&mut self, clusters: u64) -> Result<()> {
        let have = num::to_u64(self.pages.len());
        let pages = clusters.div_ceil(PAGE_CLUSTERS);
        if pages > have {
            let bytes = pages.saturating_sub(have).saturating_mul(num::to_u64(size_of::<Page>()));
            self.budget.reserve("reference counts", bytes)?;
            self.pages.resize(num::to_usize(pages)?, Page::default());
        }
        Ok(())
    }

    /// The cell of `cluster`; blank where there is none.
    pub(super) fn get(&self, cluster: u64) -> Cell {
        match self.page(cluster) {
            Some(page) => page.get(cluster),
            None => Cell::default(),
        }
    }

    /// Changes the cell of `cluster`, which is within what there is room for.
    pub(super) fn set(&mut self, cluster: u64, cell: Cell) -> Result<()> {
        let number = usize::try_from(cluster >> PAGE_BITS).unwrap_or(usize::MAX);
        let Some(page) = self.pages.get_mut(number) else { return Ok(()) };
        if page.words.is_empty() {
            *page = Page::blank(NARROW, &mut self.budget)?;
        }
        while !page.set(cluster, cell) {
            page.widen(&mut self.budget)?;
        }
        Ok(())
    }

    /// Notes `cell`, of one reference, for clusters that are blank, as many as there are from
    /// `first` on within the page and before `end`. Returns the first that was not.
    pub(super) fn fill(&mut self, first: u64, end: u64, cell: Cell) -> Result<u64> {
        let number = usize::try_from(first >> PAGE_BITS).unwrap_or(usize::MAX);
        let Some(page) = self.pages.get_mut(number) else { return Ok(first) };
        if page.words.is_empty() {
            *page = Page::blank(NARROW, &mut self.budget)?;
        }
        let page_end = (first | PAGE_CLUSTERS.wrapping_sub(1)).saturating_add(1);
        Ok(page.fill(first, end.min(page_end), cell))
    }

    /// Counts one reference more for `cluster`, with the flags of `cell`, where its cell is wide
    /// enough and its count below `most`. Returns whether it did.
    pub(super) fn add(&mut self, cluster: u64, cell: Cell, most: u64) -> bool {
        let number = usize::try_from(cluster >> PAGE_BITS).unwrap_or(usize::MAX);
        self.pages.get_mut(number).is_some_and(|page| page.add(cluster, cell, most))
    }

    /// The narrow cells of the page that `cluster` is in, 32 to a word, the first of the page
    /// first; empty where all are blank. `None` where they are wider.
    pub(super) fn narrow_words(&self, cluster: u64) -> Option<&[u64]> {
        match self.page(cluster) {
            None => Some(&[]),
            Some(page) if page.words.is_empty() || page.width == NARROW => Some(&page.words),
            Some(_) => None,
        }
    }

    /// The first cluster from `from` on, before `end`, whose cell is not blank.
    pub(super) fn next_used(&self, from: u64, end: u64) -> Option<u64> {
        let mut cluster = from;
        while cluster < end {
            match self.page(cluster) {
                Some(page) if !page.words.is_empty() => {
                    if page.get(cluster) != Cell::default() {
                        return Some(cluster);
                    }
                    cluster = cluster.saturating_add(1);
                }
                _ => cluster = (cluster | PAGE_CLUSTERS.wrapping_sub(1)).saturating_add(1),
            }
        }
        None
    }

    fn page(&self, cluster: u64) -> Option<&Page> {
        usize::try_from(cluster >> PAGE_BITS).ok().and_then(|number| self.pages.get(number))
    }
}

impl Page {
    fn blank(width: u32, budget: &mut MetadataBudget) -> Result<Self> {
        let bytes = PAGE_CLUSTERS.checked_shl(width).unwrap_or(0) / 8;
        budget.reserve("reference counts", bytes)?;
        Ok(Self { width, words: vec![0; num::to_usize(bytes / 8)?] })
    }

    /// Which word, and how far to shift it.
    const fn place(&self, cluster: u64) -> (u64, u32) {
        let bit = (cluster & PAGE_CLUSTERS.wrapping_sub(1)) << self.width;
        (bit >> 6, low_bits(bit))
    }

    const fn mask(&self) -> u64 {
        if self.width >= 6 { u64::MAX } else { (1_u64 << (1_u32 << self.width)).wrapping_sub(1) }
    }

    fn get(&self, cluster: u64) -> Cell {
        let (word, shift) = self.place(cluster);
        let word = usize::try_from(word).ok().and_then(|word| self.words.get(word)).copied();
        let raw = word.unwrap_or(0).checked_shr(shift).unwrap_or(0) & self.mask();
        Cell::decode(raw, self.width)
    }

    /// `false` when the cell is too narrow.
    fn set(&mut self, cluster: u64, cell: Cell) -> bool {
        let Some(raw) = cell.encode(self.width) else { return false };
        let (word, shift) = self.place(cluster);
        let mask = self.mask();
        if let Some(word) = usize::try_from(word).ok().and_then(|word| self.words.get_mut(word)) {
            *word = *word & !(mask << shift) | raw << shift;
        }
        true
    }

    fn fill(&mut self, first: u64, end: u64, cell: Cell) -> u64 {
        let Some(raw) = cell.narrow().filter(|_| self.width == NARROW) else { return first };
        let full = raw.wrapping_mul(0x5555_5555_5555_5555);
        let mut cluster = first;
        while cluster < end {
            let (word, shift) = self.place(cluster);
            let Some(word) = usize::try_from(word).ok().and_then(|word| self.words.get_mut(word))
            else {
                return cluster;
            };
            let left = end.saturating_sub(cluster);
            if shift == 0 && left >= 32 && *word == 0 {
                *word = full;
                cluster = cluster.saturating_add(32);
                continue;
            }
            if *word >> shift & 3 != 0 {
                return cluster;
            }
            *word |= raw << shift;
            cluster = cluster.saturating_add(1);
        }
        cluster
    }

    /// `false` when the cell is narrow, or cannot count on.
    fn add(&mut self, cluster: u64, cell: Cell, most: u64) -> bool {
        if self.width == NARROW {
            return false;
        }
        let (word, shift) = self.place(cluster);
        let mask = self.mask();
        let Some(word) = usize::try_from(word).ok().and_then(|word| self.words.get_mut(word))
        else {
            return false;
        };
        let raw = *word >> shift & mask;
        if raw >> 2 >= most.min(mask >> 2) {
            return false;
        }
        let flags = u64::from(cell.not_copied) | u64::from(cell.copied) << 1;
        let counted = raw.wrapping_add(1 << 2) | flags;
        *word = *word & !(mask << shift) | counted << shift;
        true
    }

    fn widen(&mut self, budget: &mut MetadataBudget) -> Result<()> {
        let mut wider = Self::blank(self.width.saturating_add(1).min(6), budget)?;
        let per_word = 64 >> self.width;
        let first = |number: usize| num::to_u64(number).saturating_mul(per_word);
        let used = self.words.iter().enumerate().filter(|(_, word)| **word != 0);
        let cells = used.flat_map(|(number, _)| (first(number)..).zip(0..per_word));
        for (index, _) in cells {
            let cell = self.get(index);
            if cell != Cell::default() {
                wider.set(index, cell);
            }
        }
        *self = wider;
        Ok(())
    }
}

/// A bit number within a word.
#[expect(
    clippy::as_conversions,
    reason = "six bits fit; the conversion is on the hottest path of the check"
)]
const fn low_bits(bit: u64) -> u32 {
    (bit & 63) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_core::Limits;

    fn pages(clusters: u64) -> Pages {
        Pages::new(clusters, Limits::default().metadata_budget()).unwrap()
    }

    const ONE: Cell = Cell { count: 1, copied: true, not_copied: false };

    #[test]
    fn cells_widen_and_keep_their_neighbours() {
        let mut pages = pages(1 << 17);
        let mut model = std::collections::HashMap::new();
        for (step, count) in [1, 1, 3, 4, 63, 64, 1 << 14, 1 << 30, Cell::MAX].iter().enumerate() {
            let cluster = 40_000 + num::to_u64(step) * 7;
            let cell = Cell { count: *count, copied: step % 2 == 0, not_copied: step == 4 };
            pages.set(cluster, cell).unwrap();
            model.insert(cluster, cell);
            for cluster in 39_990..40_100 {
                let wanted = model.get(&cluster).copied().unwrap_or_default();
                assert_eq!(pages.get(cluster), wanted, "{cluster} after {step}");
            }
        }
        assert_eq!(pages.next_used(0, 1 << 17), Some(40_000));
        assert_eq!(pages.next_used(40_057, 1 << 17), None);
        assert!(pages.narrow_words(40_000).is_none());
        assert_eq!(pages.narrow_words(0), Some(&[][..]));
    }

    #[test]
    fn fills_stop_where_a_cell_is_taken_and_at_the_end_of_a_page() {
        let mut pages = pages(1 << 17);
        pages.set(200, ONE).unwrap();
        assert_eq!(pages.fill(3, 1000, ONE).unwrap(), 200);
        assert_eq!(pages.fill(201, 70_000, ONE).unwrap(), 1 << 15);
        for cluster in 0..40_000 {
            let wanted = if (3..1 << 15).contains(&cluster) { ONE } else { Cell::default() };
            assert_eq!(pages.get(cluster), wanted, "{cluster}");
        }
    }

    #[test]
    fn wide_cells_count_on_in_place() {
        let mut pages = pages(1 << 15);
        let not_copied = Cell { count: 1, copied: false, not_copied: true };
        assert!(!pages.add(7, ONE, Cell::MAX), "blank");
        pages.set(7, ONE).unwrap();
        assert!(!pages.add(7, ONE, Cell::MAX), "narrow");
        pages.set(8, Cell { count: 2, ..ONE }).unwrap();
        assert!(pages.add(8, not_copied, Cell::MAX));
        assert_eq!(pages.get(8), Cell { count: 3, copied: true, not_copied: true });
        assert!(!pages.add(8, ONE, Cell::MAX), "four bits hold no more");
        assert!(pages.add(7, ONE, 2) && !pages.add(7, ONE, 2), "as many as a refcount can say");
        assert!(pages.add(9, not_copied, 1));
        let cells = [6, 7, 9, 10].map(|cluster| pages.get(cluster));
        let blank = Cell::default();
        assert_eq!(cells, [blank, Cell { count: 2, ..ONE }, not_copied, blank]);
        pages.set(8, Cell { count: Cell::MAX, ..ONE }).unwrap();
        assert!(!pages.add(8, ONE, Cell::MAX));
    }

    #[test]
    fn sixteen_tebibytes_fit_into_the_default_budget() {
        let clusters = 16 << 40 >> 16;
        let mut pages = pages(clusters);
        let mut cluster = 0;
        while cluster < clusters {
            cluster = pages.fill(cluster, clusters, ONE).unwrap();
        }
        assert_eq!(pages.get(clusters - 1), ONE);
        // 64 MiB of the 128 are left for tables.
        pages.budget.reserve("test", 63 << 20).unwrap();
    }

    #[test]
    fn memory_is_paid_for() {
        let mut limits = Limits::default();
        limits.metadata_bytes = 10_000;
        let mut pages = Pages::new(1 << 17, limits.metadata_budget()).unwrap();
        pages.set(1, ONE).unwrap();
        let error = pages.set(1 << 16, ONE).unwrap_err();
        assert!(matches!(error, rimg_core::Error::Limit { what: "reference counts", .. }));
    }
}
