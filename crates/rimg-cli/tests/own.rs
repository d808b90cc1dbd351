//! What qemu-img has not: tables, completions, manual pages.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::peer::Peer;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const COMMANDS: &[&str] = &[
    "amend",
    "bench",
    "bitmap",
    "check",
    "commit",
    "compare",
    "convert",
    "create",
    "dd",
    "info",
    "map",
    "measure",
    "rebase",
    "resize",
    "snapshot",
    "checksum",
    "completions",
    "formats",
    "man",
];

#[test]
fn formats_are_listed_with_what_they_can() {
    assert_eq!(rimg(&["formats"]), include_str!("formats.txt"));
}

#[test]
fn what_the_table_of_formats_says_is_what_qemu_img_finds() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let help = qemu_img.run(["--help"]).stdout;
    let supported = help.split("Supported image formats:").nth(1).unwrap();
    let table = rimg(&["formats"]);
    let mut known = 0;
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (name, writes) = (words.next().unwrap(), words.nth(1).unwrap() == "yes");
        assert!(supported.split_whitespace().any(|format| format == name), "{name}");
        let creates = qemu_img.run(["create", "-f", name, "-o", "help"]).status == Some(0);
        assert_eq!(writes, creates, "{name}");
        known += 1;
    }
    assert_eq!(known, 13);
}

#[test]
fn programs_read_the_same_as_people() {
    let json: serde_json::Value =
        serde_json::from_str(&rimg(&["formats", "--output=json"])).unwrap();
    let table = rimg(&["formats"]);
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    for (format, line) in json.as_array().unwrap().iter().zip(lines) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(format["name"], words[0]);
        for (column, word) in columns.iter().zip(words).skip(1).take(11) {
            assert_eq!(format[column], word == "yes", "{column} of {line}");
        }
    }
}

#[test]
fn shells_complete_commands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let script = |shell: &str| {
        let file = folder.join(format!("_{shell}"));
        fs::write(&file, rimg(&["completions", shell])).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let cases = [
        ("rimg conv", "convert"),
        ("rimg convert -O vhd", "vhdx"),
        ("rimg convert --verif", "--verify"),
        ("rimg info --output js", "json"),
    ];
    let bash = script("bash");
    for (line, expected) in cases {
        let words = format!("COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _rimg");
        let ask = format!(". {bash}; {words}; echo \"${{COMPREPLY[@]}}\"");
        assert_eq!(shell(folder, "bash", &ask), format!("{expected}\n"), "bash: {line}");
    }
    if Peer::require("fish").is_some() {
        let fish = script("fish");
        for (line, expected) in cases {
            let said = shell(folder, "fish", &format!("source {fish}; complete -C '{line}'"));
            assert_eq!(said.split_whitespace().next(), Some(expected), "fish: {line}: {said}");
        }
    }
    if Peer::require("zsh").is_some() {
        let zsh = script("zsh");
        shell(
            folder,
            "zsh",
            &format!(
                "zsh -n {zsh} && autoload -U compinit && compinit -D; . {zsh}; (( $+functions[_rimg] ))"
            ),
        );
    }
}

#[test]
fn manual_pages_are_well_formed_and_complete() {
    let Some(groff) = Peer::require("groff") else { return };
    let program = rimg(&["man"]);
    for command in COMMANDS {
        assert!(program.contains(&format!("rimg\\-{command} (1)")), "{command}");
        let page = rimg(&["man", command]);
        let shown = format_page(&groff, &page);
        assert!(shown.contains("SYNOPSIS") && shown.contains("-h, --help"), "{command}:\n{shown}");
        let help = rimg(&[command, "--help"]);
        for word in help.split_whitespace().filter(|word| word.starts_with("--")) {
            let word = word.trim_end_matches(|end: char| !end.is_alphanumeric());
            let word = word.split('=').next().unwrap();
            assert!(shown.contains(word), "{command}: {word}");
        }
    }
    format_page(&groff, &program);
}

/// The text of a page, without a warning.
fn format_page(groff: &Peer, page: &str) -> String {
    let mut command = groff.command(["-man", "-ww", "-Tascii", "-P-c", "-rHY=0", "-rLL=200n"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    // Bold is a letter over itself.
    let mut text = String::new();
    for letter in String::from_utf8_lossy(&out.stdout).chars() {
        if letter == '\u{8}' {
            text.pop();
        } else {
            text.push(letter);
        }
    }
    text
}

#[test]
fn qemu_img_has_none_of_it() {
    for command in &COMMANDS[15..] {
        let mut called = Command::new(env!("CARGO_BIN_EXE_rimg"));
        let out = called.arg0("qemu-img").arg(command).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(
            String::from_utf8_lossy(&out.stderr),
            format!(
                "qemu-img: Command not found: {command}\nTry 'qemu-img --help' for more info\n"
            )
        );
    }
    let mut called = Command::new(env!("CARGO_BIN_EXE_rimg"));
    let help = called.arg0("qemu-img").args(["convert", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    assert!(help.contains("--salvage") && !help.contains("--verify") && !help.contains("  -\n"));
}

fn shell(folder: &Path, shell: &str, ask: &str) -> String {
    let out = Command::new(shell).arg("-c").arg(ask).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{shell}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn rimg(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_rimg")).arg0("rimg").args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
