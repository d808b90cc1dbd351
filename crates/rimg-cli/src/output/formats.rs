//! What `formats` prints.

use rimg::InfoValue;
use std::fmt::Write as _;

/// A format and what can be done with its images, beside reading them.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its name in `-f` and `-O`.
    pub(crate) name: &'static str,
    /// A few words.
    pub(crate) description: &'static str,
    /// What can be done, in the order of the table's columns.
    pub(crate) can: [(&'static str, bool); 10],
    /// The names of its creation options.
    pub(crate) options: Vec<&'static str>,
}

impl Row {
    /// As it is printed for programs.
    pub(crate) fn value(&self) -> InfoValue {
        let text = |text: &str| InfoValue::Text(text.to_owned());
        let mut members = vec![
            ("name", text(self.name)),
            ("description", text(self.description)),
            ("read", InfoValue::Bool(true)),
        ];
        members.extend(self.can.map(|(what, can)| (what, InfoValue::Bool(can))));
        let options = self.options.iter().map(|name| text(name)).collect();
        members.push(("create-options", InfoValue::List(options)));
        InfoValue::Map(members)
    }
}

/// The table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("format".len());
    let mut text = format!("{:<name_width$}  read", "format");
    for (what, _) in rows.first().map(|row| row.can).unwrap_or_default() {
        let _ = write!(text, "  {what}");
    }
    text.push_str("  description\n");
    for row in rows {
        let _ = write!(text, "{:<name_width$}  yes ", row.name);
        for (what, can) in row.can {
            let width = what.len();
            let _ = write!(text, "  {:<width$}", if can { "yes" } else { "-" });
        }
        let _ = writeln!(text, "  {}", row.description);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_headings() {
        let mut row = Row {
            name: "parallels",
            description: "Words",
            can: [("x", false); 10],
            options: Vec::new(),
        };
        row.can[0] = ("write", true);
        let table = table(&[row]);
        let mut lines = table.lines();
        assert_eq!(
            lines.next(),
            Some("format     read  write  x  x  x  x  x  x  x  x  x  description")
        );
        assert_eq!(lines.next(), Some("parallels  yes   yes    -  -  -  -  -  -  -  -  -  Words"));
    }
}
