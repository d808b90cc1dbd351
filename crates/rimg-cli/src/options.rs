//! `-o key=value,key2=value2`: splitting the list, checking it against a format's table, help.

use crate::size::{SizeError, parse_size};
use rimg_core::{FormatInfo, OptionKind, OptionSpec, RawOptions};
use std::fmt::Write as _;

/// What `-o` flags gave, in order: names and values, commas unescaped, nothing checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OptionList {
    entries: Vec<(String, String)>,
    wants_help: bool,
    /// Names without a value, and what they stand for.
    short_forms: Vec<(String, String)>,
}

impl OptionList {
    /// Adds one `-o` argument; of a name given twice the last counts.
    ///
    /// # Errors
    /// The message, when the list starts or ends with a comma or is empty.
    pub(crate) fn add(&mut self, list: &str) -> Result<(), String> {
        let open_ended = list.bytes().rev().take_while(|byte| *byte == b',').count() % 2 == 1;
        if list.is_empty() || list.starts_with(',') || open_ended {
            return Err(format!("Invalid option list: {list}"));
        }
        let mut rest = list;
        while !rest.is_empty() {
            let (name, value, tail) = split_entry(rest);
            rest = tail;
            match (name, value) {
                ("help" | "?", None) => self.wants_help = true,
                (name, Some(value)) => self.entries.push((name.to_owned(), value)),
                (name, None) => {
                    let (long, value) = match name.strip_prefix("no") {
                        Some(off) => (off, "off"),
                        None => (name, "on"),
                    };
                    self.short_forms.push((name.to_owned(), format!("{long}={value}")));
                    self.entries.push((long.to_owned(), value.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Puts options before the others, which count more.
    pub(crate) fn put_first(&mut self, options: &[(&str, &str)]) {
        let first = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.entries.splice(0..0, first);
    }

    /// What to say of names without a value, where that is not the habit.
    pub(crate) fn short_form_warnings(&self) -> impl Iterator<Item = String> {
        self.short_forms.iter().map(|(short, long)| {
            format!(
                "warning: short-form boolean option '{short}' deprecated\n\
                 Please use {long} instead"
            )
        })
    }

    /// Whether nothing was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.wants_help
    }

    /// Whether `help` or `?` is among them.
    pub(crate) const fn wants_help(&self) -> bool {
        self.wants_help
    }

    /// All names and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Checks every name and value against `specs`.
    ///
    /// # Errors
    /// The message for the first one that does not fit.
    pub(crate) fn resolve(&self, specs: &[&'static OptionSpec]) -> Result<Chosen, String> {
        let mut chosen = Chosen::default();
        for (name, value) in self.iter() {
            let spec = specs.iter().find(|spec| spec.name == name);
            let spec = spec.ok_or_else(|| format!("Invalid parameter '{name}'"))?;
            chosen.set_checked(spec, normal_form(spec, value)?);
        }
        Ok(chosen)
    }
}

/// The entries of a list: names, and values where they have one.
pub(crate) fn split_list(list: &str) -> Vec<(String, Option<String>)> {
    let mut entries = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let (name, value, tail) = split_entry(rest);
        entries.push((name.to_owned(), value));
        rest = tail;
    }
    entries
}

/// The first entry of a list: its name, its value if it has one, and what follows.
fn split_entry(list: &str) -> (&str, Option<String>, &str) {
    let end = list.find(['=', ',']).unwrap_or(list.len());
    let (name, rest) = list.split_at_checked(end).unwrap_or((list, ""));
    let Some(mut rest) = rest.strip_prefix('=') else {
        return (name, None, rest.strip_prefix(',').unwrap_or_default());
    };
    let mut value = String::new();
    loop {
        let Some((head, tail)) = rest.split_once(',') else {
            value.push_str(rest);
            return (name, Some(value), "");
        };
        value.push_str(head);
        match tail.strip_prefix(',') {
            Some(tail) => {
                value.push(',');
                rest = tail;
            }
            None => return (name, Some(value), tail),
        }
    }
}

/// A value as it is printed, and as a format driver takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NormalForm {
    shown: String,
    plain: String,
}

fn normal_form(spec: &OptionSpec, value: &str) -> Result<NormalForm, String> {
    let name = spec.name;
    let same = |text: String| NormalForm { shown: text.clone(), plain: text };
    match spec.kind {
        OptionKind::Text => Ok(same(value.to_owned())),
        OptionKind::Bool => match parse_bool(value) {
            Some(on) => Ok(NormalForm {
                shown: value.to_owned(),
                plain: if on { "on" } else { "off" }.to_owned(),
            }),
            None => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
        },
        OptionKind::Size => match parse_size(value) {
            Ok(bytes) => Ok(same(bytes.to_string())),
            Err(error) => Err(size_error(name, value, error)),
        },
        OptionKind::Number => match parse_number(value) {
            Some(Some(number)) => Ok(NormalForm {
                shown: number.cast_signed().to_string(),
                plain: number.to_string(),
            }),
            Some(None) => Err(format!("Value '{value}' is too large for parameter '{name}'")),
            None => Err(format!("Parameter '{name}' expects a number")),
        },
    }
}

/// Why `value` is no size for the parameter `name`.
pub(crate) fn size_error(name: &str, value: &str, error: SizeError) -> String {
    match error {
        SizeError::Malformed => format!(
            "Parameter '{name}' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively."
        ),
        SizeError::OutOfRange => format!("Value '{value}' is out of range for parameter '{name}'"),
    }
}

/// Reads a truth value in one of the forms that are taken for one.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// Reads a number as C does: `0x` for hexadecimal, `0` for octal, negative ones wrap around.
/// `None` when it is none, `Some(None)` when it needs more than 64 bits.
pub(crate) fn parse_number(text: &str) -> Option<Option<u64>> {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok();
    Some(number.map(|number| if negative { number.wrapping_neg() } else { number }))
}

/// Options that were checked against a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Chosen {
    entries: Vec<(&'static str, NormalForm)>,
}

impl Chosen {
    /// Sets an option of the program's own making.
    pub(crate) fn set(&mut self, spec: &'static OptionSpec, value: &str) {
        let value = NormalForm { shown: value.to_owned(), plain: value.to_owned() };
        self.set_checked(spec, value);
    }

    fn set_checked(&mut self, spec: &'static OptionSpec, value: NormalForm) {
        match self.entries.iter_mut().find(|(name, _)| *name == spec.name) {
            Some((_, old)) => *old = value,
            None => self.entries.push((spec.name, value)),
        }
    }

    /// The value of `name` as a driver takes it.
    pub(crate) fn plain(&self, name: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|(known, _)| *known == name);
        entry.map(|(_, value)| value.plain.as_str())
    }

    /// ` name=value` for all options that are set or have a default, in the order of the table.
    pub(crate) fn shown(&self, specs: &[&'static OptionSpec]) -> String {
        let mut text = String::new();
        for spec in specs {
            let set = self.entries.iter().find(|(name, _)| *name == spec.name);
            let value = set.map(|(_, value)| value.shown.as_str()).or(spec.default);
            if let Some(value) = value {
                let _ = write!(text, " {}={}", spec.name, value.replace(',', ",,"));
            }
        }
        text
    }

    /// All of them for a format driver, without those that `skip` names.
    pub(crate) fn for_driver(&self, skip: &[&str]) -> RawOptions {
        let mut options = RawOptions::new();
        for (name, value) in &self.entries {
            if !skip.contains(name) {
                options.set(*name, value.plain.as_str());
            }
        }
        options
    }
}

/// Options of the file that an image is created in, rather than of a format.
///
/// They are hints to file systems (`nocow` is about btrfs, `extent_size_hint` about XFS), and
/// accepted as such; `preallocation` is raw's only way to it.
static FILE_OPTIONS: [OptionSpec; 3] = [
    OptionSpec {
        name: "nocow",
        kind: OptionKind::Bool,
        help: "Turn off copy-on-write (valid only on btrfs)",
        default: None,
    },
    OptionSpec {
        name: "preallocation",
        kind: OptionKind::Text,
        help: "Preallocation mode (allowed values: off, falloc, full)",
        default: None,
    },
    OptionSpec {
        name: "extent_size_hint",
        kind: OptionKind::Size,
        help: "Extent size hint for the image file, 0 to disable",
        default: None,
    },
];

/// The options of [`FILE_OPTIONS`] that no format driver is to see.
pub(crate) const HINTS: [&str; 2] = ["nocow", "extent_size_hint"];

/// The options of a format in the order in which they are printed; those of the file too, if
/// `with_file`.
pub(crate) fn table(format: &FormatInfo, with_file: bool) -> Vec<&'static OptionSpec> {
    let of_file = |name: &str| FILE_OPTIONS.iter().any(|spec| spec.name == name);
    // Raw has none of its own but the size: what it can do is what its file can. So it is with
    // where the disk of LUKS lies.
    let by_file = matches!(format.name, "luks" | "raw");
    let own = format.create_options.iter().filter(|spec| !by_file || !of_file(spec.name));
    let mut table: Vec<&'static OptionSpec> = own.collect();
    if with_file {
        for spec in &FILE_OPTIONS {
            if table.iter().all(|known| known.name != spec.name) {
                table.push(spec);
            }
        }
    }
    table.extend(format.extra_options);
    table
}

/// The lines of `-o help`; what qemu-img has not, which is `extra`, comes last.
pub(crate) fn help(specs: &[&'static OptionSpec], extra: &[OptionSpec]) -> String {
    let mut sorted = specs.to_vec();
    sorted.sort_unstable_by_key(|spec| (extra.contains(spec), spec.name));
    let mut text = String::new();
    for spec in sorted {
        let kind = match spec.kind {
            OptionKind::Text => "str",
            OptionKind::Bool => "bool (on/off)",
            OptionKind::Number => "num",
            OptionKind::Size => "size",
        };
        let form = format!("{}=<{kind}>", spec.name);
        let _ = writeln!(text, "  {form:<22} - {}", spec.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    static SPECS: [OptionSpec; 4] = [
        OptionSpec {
            name: "cluster_size",
            kind: OptionKind::Size,
            help: "size",
            default: Some("65536"),
        },
        OptionSpec { name: "lazy", kind: OptionKind::Bool, help: "lazy", default: Some("off") },
        OptionSpec { name: "bits", kind: OptionKind::Number, help: "bits", default: None },
        OptionSpec { name: "backing_file", kind: OptionKind::Text, help: "base", default: None },
    ];

    fn specs() -> Vec<&'static OptionSpec> {
        SPECS.iter().collect()
    }

    fn list(texts: &[&str]) -> OptionList {
        let mut list = OptionList::default();
        for text in texts {
            list.add(text).unwrap();
        }
        list
    }

    #[test]
    fn lists_are_split_at_single_commas() {
        let list = list(&["a=1,b=x,,y,,,c", "nolazy,d==,e="]);
        let entries: Vec<_> = list.iter().collect();
        assert_eq!(
            entries,
            [("a", "1"), ("b", "x,y,"), ("c", "on"), ("lazy", "off"), ("d", "="), ("e", "")]
        );
    }

    #[test]
    fn lists_that_start_or_end_with_a_comma_are_refused() {
        for text in ["", ",", "a=1,", ",a=1", "a=1,,,", ",,a"] {
            let refused = OptionList::default().add(text);
            assert_eq!(refused, Err(format!("Invalid option list: {text}")));
        }
        assert_eq!(OptionList::default().add("a=1,,"), Ok(()));
    }

    #[test]
    fn help_is_a_word_of_its_own() {
        assert!(list(&["a=1,help"]).wants_help());
        assert!(list(&["?"]).wants_help());
        assert!(!list(&["help=1,a=help"]).wants_help());
    }

    #[test]
    fn values_are_checked_by_their_kind() {
        for (text, message) in [
            ("x=1", "Invalid parameter 'x'"),
            ("nolaz", "Invalid parameter 'laz'"),
            ("lazy=ON", "Parameter 'lazy' expects 'on' or 'off'"),
            ("cluster_size=-1", "Value '-1' is out of range for parameter 'cluster_size'"),
            ("bits=1k", "Parameter 'bits' expects a number"),
            ("bits", "Parameter 'bits' expects a number"),
            (
                "bits=99999999999999999999",
                "Value '99999999999999999999' is too large for parameter 'bits'",
            ),
        ] {
            assert_eq!(list(&[text]).resolve(&specs()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn chosen_values_are_shown_in_the_order_of_the_table() {
        let chosen = list(&["backing_file=a,,b,lazy=yes", "bits=010,cluster_size=4k,bits=0x10"]);
        let chosen = chosen.resolve(&specs()).unwrap();
        assert_eq!(chosen.shown(&specs()), " cluster_size=4096 lazy=yes bits=16 backing_file=a,,b");
        assert_eq!(chosen.plain("lazy"), Some("on"));
        assert_eq!(Chosen::default().shown(&specs()), " cluster_size=65536 lazy=off");
    }
}
