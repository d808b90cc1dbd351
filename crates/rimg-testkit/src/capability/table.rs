//! The table of a README.

use super::CAPABILITIES;

/// The first table of a README.
#[derive(Debug)]
pub(super) struct Table(Vec<Column>);

/// What is said of some kinds of images.
#[derive(Debug)]
pub(super) struct Column {
    /// The kinds that the column's head names.
    pub(super) kinds: Vec<String>,
    /// One for each of [`CAPABILITIES`], in their order.
    pub(super) claims: Vec<Claim>,
}

/// What a cell starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Yes,
    No,
    /// Not a gap: there is nothing like it in the format.
    FormatHasNone,
}

impl Table {
    /// Finds the table, and what its cells start with.
    pub(super) fn parse(readme: &str) -> Result<Self, String> {
        let is_row = |line: &&str| line.starts_with('|');
        let mut rows =
            readme.lines().skip_while(|line| !is_row(line)).take_while(is_row).map(cells);
        let head = rows.next().ok_or("no table")?;
        let [first, names @ ..] = head.as_slice() else { return Err("no columns".to_owned()) };
        if first != "capability" || names.is_empty() {
            return Err(format!("the first table is about {head:?}, and not about capabilities"));
        }
        let mut columns: Vec<Column> = names.iter().map(|head| Column::headed(head)).collect();
        rows.next().ok_or("no line below the head of the table")?;
        let mut known = CAPABILITIES.iter();
        for row in rows {
            let [name, row @ ..] = row.as_slice() else { return Err("an empty row".to_owned()) };
            let wanted = known.next().map(|capability| capability.name());
            if wanted != Some(name.as_str()) {
                let wanted = wanted.unwrap_or("the end");
                return Err(format!("a row '{name}' where '{wanted}' should be"));
            }
            if row.len() != columns.len() {
                return Err(format!("row '{name}' has {} cells, not {}", row.len(), columns.len()));
            }
            for (column, cell) in columns.iter_mut().zip(row) {
                let claim = Claim::parse(cell).ok_or_else(|| {
                    format!("row '{name}': '{cell}' starts with none of {:?}", Claim::WORDS)
                })?;
                column.claims.push(claim);
            }
        }
        match known.next() {
            Some(missing) => Err(format!("row '{}' is missing", missing.name())),
            None => Ok(Self(columns)),
        }
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.0
    }

    /// The one column that is about this kind.
    pub(super) fn column_of(&self, kind: &str) -> Result<&Column, String> {
        let is_about = |column: &&Column| column.kinds.iter().any(|name| name == kind);
        let mut found = self.0.iter().filter(is_about);
        match (found.next(), found.next()) {
            (Some(column), None) => Ok(column),
            (None, _) => Err(format!("no column for {kind}")),
            (Some(_), Some(_)) => Err(format!("two columns for {kind}")),
        }
    }
}

impl Column {
    fn headed(head: &str) -> Self {
        let kinds = head.split(',').map(|name| name.trim().to_owned()).collect();
        Self { kinds, claims: Vec::new() }
    }
}

impl Claim {
    const WORDS: [(&str, Self); 3] =
        [("yes", Self::Yes), ("no", Self::No), ("the format has none", Self::FormatHasNone)];

    fn parse(cell: &str) -> Option<Self> {
        let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', ';']);
        let says = |word| cell.strip_prefix(word).is_some_and(ends);
        Self::WORDS.into_iter().find_map(|(word, claim)| says(word).then_some(claim))
    }
}

/// The cells between the bars of a row.
fn cells(row: &str) -> Vec<String> {
    let inner = row.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readme(change: impl Fn(&mut Vec<String>)) -> String {
        let mut lines = vec!["| capability | a, b | c |".to_owned(), "|---|---|---|".to_owned()];
        for capability in CAPABILITIES {
            lines.push(format!("| {} | yes: all | the format has none |", capability.name()));
        }
        change(&mut lines);
        format!("# format\n\nWords.\n\n{}\n\n| another | table |\n", lines.join("\n"))
    }

    fn refused(change: impl Fn(&mut Vec<String>)) -> String {
        Table::parse(&readme(change)).unwrap_err()
    }

    #[test]
    fn columns_are_about_the_kinds_in_their_heads() {
        let table = Table::parse(&readme(|_| {})).unwrap();
        for (kind, claim) in [("a", Claim::Yes), ("b", Claim::Yes), ("c", Claim::FormatHasNone)] {
            assert_eq!(table.column_of(kind).unwrap().claims, [claim; CAPABILITIES.len()]);
        }
        assert_eq!(table.column_of("d").unwrap_err(), "no column for d");
        let twice = readme(|lines| lines[0] = "| capability | a | a |".to_owned());
        assert_eq!(Table::parse(&twice).unwrap().column_of("a").unwrap_err(), "two columns for a");
    }

    #[test]
    fn every_row_is_there_once_and_no_other() {
        assert_eq!(Table::parse("# format\n").unwrap_err(), "no table");
        let last = CAPABILITIES.len() + 1;
        assert_eq!(
            refused(|lines| drop(lines.remove(last))),
            format!("row '{}' is missing", CAPABILITIES[last - 2].name())
        );
        assert_eq!(refused(|lines| drop(lines.remove(2))), "a row 'read' where 'probe' should be");
        assert_eq!(
            refused(|lines| lines.push("| tea | yes | yes |".to_owned())),
            "a row 'tea' where 'the end' should be"
        );
        assert_eq!(
            refused(|lines| lines[2] = "| probe | yes |".to_owned()),
            "row 'probe' has 1 cells, not 2"
        );
        assert!(refused(|lines| lines[0] = "| word | a | c |".to_owned()).contains("is about"));
    }

    #[test]
    fn a_cell_starts_with_a_claim() {
        for (cell, claim) in [
            ("yes", Some(Claim::Yes)),
            ("no: not yet", Some(Claim::No)),
            ("the format has none; really", Some(Claim::FormatHasNone)),
            ("nothing", None),
            ("yes and no", None),
            ("", None),
        ] {
            assert_eq!(Claim::parse(cell), claim, "{cell}");
        }
    }
}
