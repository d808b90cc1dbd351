//! `cargo xtask startup`: which functions short commands run, for the linker to put side by side.
//!
//! A page of the program that is touched costs a fault, and the kernel maps those around it as
//! well. What one `rimg info` runs is two hundred of many thousand functions, all over the program;
//! side by side, they halve the program's part of its memory. valgrind tells what runs, nm where.
//! The list is a script for the linker, which `crates/rimg-cli/build.rs` hands to it.

use crate::{Result, run};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const HELP: &str = "\
cargo xtask startup [--check]

Lists the functions that info, check, map and create run on the images of testdata/, and writes
crates/rimg-cli/startup.ld. Wants valgrind and nm.

  --check  only look whether the program still has what the list names; wants nm";

/// The formats that are created.
const FORMATS: [&str; 9] =
    ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"];

/// Names without their hashes may fit many instances of a generic function. Where more than this
/// is not run, the instances that are run are not worth the rest.
const WASTE_BYTES: u64 = 4096;

const HEADER: &str = "\
/* Functions that short commands run, put side by side: made by `cargo xtask startup`, which tells
 * more. Names that fit nothing do no harm; hashes, which change with every compiler, are left out.
 * Only a part of a script: the linker's own one is used with it. */
SECTIONS
{
  .text.startup_path :
  {
";

const FOOTER: &str = "  }
}
INSERT BEFORE .text;
";

/// `cargo xtask startup`
pub(crate) fn run(args: &[String]) -> Result {
    let list = run::root().join("crates/rimg-cli/startup.ld");
    match args {
        [] => make(&list),
        [flag] if flag == "--check" => check(&list),
        [flag] if flag == "--help" => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err("takes only --check".into()),
    }
}

/// A list of which less fits the program is out of date. Compilers differ in what they inline.
const FITS_PERCENT: usize = 60;

/// A list ages in silence: what fits nothing is no error for the linker.
fn check(list: &Path) -> Result {
    let symbols = symbols(&crate::bench::build_rimg()?)?;
    let known: BTreeSet<String> = symbols.iter().map(|(symbol, _)| pattern(symbol)).collect();
    let text = fs::read_to_string(list)?;
    let patterns: Vec<&str> = text.lines().filter_map(pattern_of).collect();
    let fitting = patterns.iter().filter(|pattern| known.contains(**pattern)).count();
    println!("{fitting} of {} names fit functions of the program", patterns.len());
    if patterns.is_empty() || fitting * 100 < patterns.len() * FITS_PERCENT {
        return Err(format!("{} is out of date: run `cargo xtask startup`", list.display()).into());
    }
    Ok(())
}

fn make(list: &Path) -> Result {
    let program = crate::bench::build_rimg()?;
    let scratch = tempfile::tempdir()?;
    let profile = scratch.path().join("profile");
    let mut runs = BTreeMap::new();
    let mut called = BTreeSet::new();
    for arguments in commands(scratch.path())? {
        let ran = functions(&program, &arguments, &profile)?;
        let patterns: BTreeSet<String> = ran.iter().map(|symbol| pattern(symbol)).collect();
        for pattern in patterns {
            *runs.entry(pattern).or_insert(0_u32) += 1;
        }
        called.extend(ran);
    }
    let (text, bytes) = script(&runs, &symbols(&program)?, &called);
    fs::write(list, text)?;
    println!("{}: {} KiB of functions", list.display(), bytes.div_ceil(1024));
    Ok(())
}

/// The functions of a program, and their sizes in bytes.
fn symbols(program: &Path) -> Result<Vec<(String, u64)>> {
    Ok(sized_functions(&run::output(Command::new("nm").arg("--print-size").arg(program))?))
}

/// What nm prints of functions: where, how large, which kind, and the name.
fn sized_functions(text: &str) -> Vec<(String, u64)> {
    let functions = text.lines().filter_map(|line| {
        let [_, size, kind, symbol] = *line.split(' ').collect::<Vec<_>>() else { return None };
        let size = u64::from_str_radix(size, 16).ok()?;
        matches!(kind, "t" | "T" | "w" | "W").then(|| (symbol.to_owned(), size))
    });
    functions.collect()
}

/// The command lines whose functions are wanted; images are made in `scratch`.
fn commands(scratch: &Path) -> Result<Vec<Vec<String>>> {
    let mut commands = Vec::new();
    for file in crate::golden::images()? {
        let image = file.display().to_string();
        commands.extend(["info", "check", "map"].map(|name| vec![name.to_owned(), image.clone()]));
    }
    commands.extend(FORMATS.map(|format| {
        let image = scratch.join(format).display().to_string();
        ["create", "-f", format, &image, "64M"].map(str::to_owned).to_vec()
    }));
    Ok(commands)
}

/// The symbols of Rust functions that a run of the program calls. Whether it succeeds is no
/// matter: errors are answers as well.
fn functions(program: &Path, arguments: &[String], profile: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg("--demangle=no");
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(program).args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("valgrind: {error}"))?;
    let text = fs::read_to_string(profile).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{command:?} left no profile: {error}\n{said}")
    })?;
    fs::remove_file(profile)?;
    Ok(called(&text))
}

/// The Rust functions that a profile of callgrind names: `fn=(7) name`, where they are met first,
/// and `cfn=` where another calls them.
fn called(profile: &str) -> BTreeSet<String> {
    let lines = profile.lines();
    let names = lines.filter_map(|line| {
        let (_, name) =
            line.strip_prefix('c').unwrap_or(line).strip_prefix("fn=(")?.split_once(") ")?;
        // Recursion is counted behind the name.
        let name = name.split('\'').next()?;
        (name.starts_with("_ZN") || name.starts_with("_R")).then(|| name.to_owned())
    });
    names.collect()
}

/// What fits a symbol whatever the compiler's hashes are.
fn pattern(symbol: &str) -> String {
    let name = symbol.split(".llvm.").next().unwrap_or(symbol);
    // Legacy mangling ends with 16 digits between "17h" and "E".
    let legacy = name.len().checked_sub(20).and_then(|at| name.split_at_checked(at));
    if let Some((path, hash)) = legacy
        && hash.starts_with("17h")
    {
        return format!("{path}17h*");
    }
    // The v0 one has a number in front of a crate's name: "Cs", base 62, "_".
    let mut pattern = String::new();
    let mut rest = name;
    while let Some((before, behind)) = rest.split_once("Cs") {
        pattern.push_str(before);
        pattern.push_str("Cs");
        let number = behind.chars().take_while(char::is_ascii_alphanumeric).count();
        rest = behind;
        if number > 8 && behind.get(number..).is_some_and(|rest| rest.starts_with('_')) {
            pattern.push('*');
            rest = behind.get(number..).unwrap_or_default();
        }
    }
    pattern + rest + "*"
}

/// The linker's script, those that most commands run first, and how many bytes it puts together.
fn script(
    runs: &BTreeMap<String, u32>,
    symbols: &[(String, u64)],
    called: &BTreeSet<String>,
) -> (String, u64) {
    let mut patterns: BTreeMap<String, Sizes> = BTreeMap::new();
    for (symbol, bytes) in symbols {
        let sizes = patterns.entry(pattern(symbol)).or_default();
        sizes.matched += bytes;
        sizes.called += if called.contains(symbol) { *bytes } else { 0 };
    }
    let chosen = runs.iter().filter_map(|(pattern, runs)| {
        let sizes = patterns.get(pattern)?;
        let waste = sizes.matched - sizes.called;
        (waste <= WASTE_BYTES.max(2 * sizes.called)).then_some((pattern, runs, sizes.matched))
    });
    let mut chosen: Vec<_> = chosen.collect();
    chosen.sort_by_key(|(pattern, runs, _)| (Reverse(*runs), *pattern));
    let mut text = HEADER.to_owned();
    for (pattern, ..) in &chosen {
        // What the compiler takes for cold is in a section `.text.unlikely.`.
        let _ = writeln!(text, "    *(.text*.{pattern})");
    }
    (text + FOOTER, chosen.iter().map(|(_, _, bytes)| bytes).sum())
}

/// The pattern of a line of the script.
fn pattern_of(line: &str) -> Option<&str> {
    line.trim().strip_prefix("*(.text*.")?.strip_suffix(')')
}

/// In bytes, of all functions that a pattern fits.
#[derive(Default)]
struct Sizes {
    matched: u64,
    called: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_no_hashes() {
        for (symbol, wanted) in [
            ("_ZN4rimg4main17h68a08a302e9b0aa8E", "_ZN4rimg4main17h*"),
            ("_ZN4rimg4main17h68a08a302e9b0aa8E.llvm.42", "_ZN4rimg4main17h*"),
            ("_RNvNtCsjrHSEGnQ3l9_3std3env7args_os", "_RNvNtCs*_3std3env7args_os*"),
            (
                "_RNvNtNtCsgEmfK2I1SDS_4core3fmt5writeCsjrHSEGnQ3l9_3std",
                "_RNvNtNtCs*_4core3fmt5writeCs*_3std*",
            ),
            ("_RNvNt5CsvRow3std", "_RNvNt5CsvRow3std*"),
        ] {
            assert_eq!(pattern(symbol), wanted);
        }
    }

    #[test]
    fn called_functions_are_told_by_both_sides_of_a_call() {
        let profile = "fl=(1) a.rs\nfn=(1) _ZN1aE\n1 2\ncfn=(2) _RNvC1b\ncalls=1 2\nfn=(2)\n\
                       cfn=(3) main\nfn=(4) _ZN1aE'2\n";
        assert_eq!(called(profile), BTreeSet::from(["_ZN1aE", "_RNvC1b"].map(str::to_owned)));
    }

    #[test]
    fn functions_of_most_commands_are_first_and_crowds_are_left_out() {
        let names = ["_ZN1a17h*", "_ZN1b17h*", "_ZN1c17h*"].map(str::to_owned);
        let runs = names.into_iter().zip([1, 3, 3]).collect();
        let symbol = |name, hash: u8| format!("_ZN1{name}17h00000000000000{hash:02x}E");
        let mut sizes = format!("00 10 t {}\n00 20 T {}\n", symbol('a', 1), symbol('b', 1));
        // Data of that name do not count.
        let _ = writeln!(sizes, "00 10000 d {}", symbol('b', 2));
        for hash in 0..100 {
            let _ = writeln!(sizes, "00 100 t {}", symbol('c', hash));
        }
        let called = ['a', 'b', 'c'].map(|name| symbol(name, 1)).into();
        let (text, bytes) = script(&runs, &sized_functions(&sizes), &called);
        assert!(text.contains("\n    *(.text*._ZN1b17h*)\n"), "{text}");
        let patterns: Vec<_> = text.lines().filter_map(pattern_of).collect();
        assert_eq!(patterns, ["_ZN1b17h*", "_ZN1a17h*"]);
        assert_eq!(bytes, 0x30);
    }
}
