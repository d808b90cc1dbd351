//! `testdata/`: small images made by qemu-img, whose contents qemu-img has told. A manifest holds
//! for each the commands that made it and the SHA-256 of the file and of its guest's data, so that
//! the tests of the formats need neither qemu-img nor trust in whoever made the file.

mod manifest;
mod recipes;
mod seeds;

use crate::{Result, run};
use manifest::{Entry, Manifest};
use recipes::{Expect, RECIPES, Recipe};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Formats in whose images qemu-img puts random identifiers: an image stays as it is for as long as
/// its recipe does.
const RANDOM_FORMATS: &[&str] = &["vhdx"];

/// `cargo xtask golden [--verify | --new-seeds]`
pub(crate) fn run(args: &[String]) -> Result {
    match args {
        [] => make(false),
        [flag] if flag == "--new-seeds" => make(true),
        [flag] if flag == "--verify" => verify(),
        _ => Err("takes --verify or --new-seeds".into()),
    }
}

fn testdata() -> PathBuf {
    run::root().join("testdata")
}

/// Every file of `testdata/` that the manifest names.
pub(crate) fn images() -> Result<Vec<PathBuf>> {
    let testdata = testdata();
    let entries = Manifest::read(&testdata)?.entries;
    Ok(entries.iter().map(|entry| testdata.join(&entry.file)).collect())
}

/// Makes every image in a folder of its own, and puts the folder in place when all are made.
///
/// The two seeds hold a file system, whose inode times make each making different: they stay as
/// they are unless new ones are asked for, and everything else follows from them.
fn make(new_seeds: bool) -> Result {
    for program in ["qemu-img", "qemu-io", "mke2fs"] {
        run::need(program)?;
    }
    let work = run::root().join("target").join("golden");
    let _ = fs::remove_dir_all(&work);
    let folders: BTreeSet<&str> = RECIPES.iter().map(|recipe| recipe.format).collect();
    for folder in &folders {
        fs::create_dir_all(work.join(folder))?;
    }
    let old = if new_seeds { None } else { Some(Manifest::read(&testdata())?) };

    let mut manifest = Manifest { tools: tools()?, entries: Vec::new() };
    for seed in seeds::SEEDS {
        match &old {
            None => seeds::make(seed, &work)?,
            Some(_) => {
                fs::copy(testdata().join(seed.file), work.join(seed.file))?;
            }
        }
    }
    for recipe in RECIPES {
        println!("{}", recipe.file);
        if old.as_ref().is_some_and(|old| is_kept(recipe, old)) {
            fs::copy(testdata().join(recipe.file), work.join(recipe.file))?;
        } else if !seeds::SEEDS.iter().any(|seed| seed.file == recipe.file) {
            for command in recipe.commands {
                shell(command, &work.join(recipe.format))?;
            }
        }
        manifest.entries.push(entry(recipe, &work)?);
    }

    for folder in &folders {
        let _ = fs::remove_dir_all(testdata().join(folder));
    }
    for entry in &manifest.entries {
        let target = testdata().join(&entry.file);
        fs::create_dir_all(target.parent().unwrap_or(Path::new("")))?;
        fs::copy(work.join(&entry.file), target)?;
    }
    manifest.write(&testdata())?;
    fs::remove_dir_all(&work)?;
    verify()
}

/// Whether an image need not, and cannot, be made again as it is.
fn is_kept(recipe: &Recipe, old: &Manifest) -> bool {
    RANDOM_FORMATS.contains(&recipe.format)
        && old
            .entries
            .iter()
            .any(|entry| entry.file == recipe.file && entry.commands == recipe.commands)
}

/// Describes an image as it lies there and as qemu-img reads it.
fn entry(recipe: &Recipe, work: &Path) -> Result<Entry> {
    let image = work.join(recipe.file);
    let mut entry = Entry {
        file: recipe.file.to_owned(),
        format: recipe.format.to_owned(),
        about: recipe.about.to_owned(),
        commands: recipe.commands.iter().map(|&command| command.to_owned()).collect(),
        file_sha256: String::new(),
        virtual_size_bytes: None,
        guest_sha256: None,
        snapshots: Vec::new(),
        passphrase: None,
        refused: None,
    };
    match recipe.expect {
        Expect::Companion => {}
        Expect::Refused { error, says } => {
            entry.refused = Some((error.to_owned(), says.to_owned()));
        }
        Expect::Encrypted { passphrase } => {
            let (size, sha) = encrypted_guest(&image, recipe.format, passphrase, work)?;
            entry.virtual_size_bytes = Some(size);
            entry.guest_sha256 = Some(sha);
            entry.passphrase = Some(passphrase.to_owned());
        }
        Expect::Guest { snapshots } => {
            let (size, sha) = guest(&image, recipe.format, None, work)?;
            entry.virtual_size_bytes = Some(size);
            entry.guest_sha256 = Some(sha);
            for &name in snapshots {
                let (_, sha) = guest(&image, recipe.format, Some(name), work)?;
                entry.snapshots.push((name.to_owned(), sha));
            }
        }
    }
    entry.file_sha256 = sha256(&image)?;
    Ok(entry)
}

/// Size and SHA-256 of what the guest sees, by qemu-img.
fn guest(image: &Path, format: &str, snapshot: Option<&str>, work: &Path) -> Result<(u64, String)> {
    let raw = work.join("guest.raw");
    let mut convert = Command::new(run::need("qemu-img")?);
    convert.args(["convert", "-f", format, "-O", "raw"]);
    if let Some(name) = snapshot {
        convert.arg("-l").arg(format!("snapshot.name={name}"));
    }
    // qemu-img looks for a data file from the folder it runs in, for a backing file from the image's.
    let folder = image.parent().unwrap_or(Path::new("."));
    run::output(convert.arg(image).arg(&raw).current_dir(folder))?;
    measured(&raw)
}

/// As [`guest`], with a passphrase.
fn encrypted_guest(
    image: &Path,
    format: &str,
    passphrase: &str,
    work: &Path,
) -> Result<(u64, String)> {
    let raw = work.join("guest.raw");
    let secret = format!("secret,id=s,data={passphrase}");
    let name = image.display();
    let key = if format == "luks" { "key-secret" } else { "encrypt.key-secret" };
    let opts = format!("driver={format},{key}=s,file.filename={name}");
    let mut convert = Command::new(run::need("qemu-img")?);
    convert.args(["convert", "--object", &secret, "--image-opts", &opts, "-O", "raw"]);
    run::output(convert.arg(&raw))?;
    measured(&raw)
}

/// Size and SHA-256 of a file that is not needed any more.
fn measured(raw: &Path) -> Result<(u64, String)> {
    let told = (fs::metadata(raw)?.len(), sha256(raw)?);
    fs::remove_file(raw)?;
    Ok(told)
}

/// Checks every file against the manifest, and that none is without an entry.
fn verify() -> Result {
    let manifest = Manifest::read(&testdata())?;
    let mut wrong = Vec::new();
    for entry in &manifest.entries {
        match sha256(&testdata().join(&entry.file)) {
            Ok(sha) if sha == entry.file_sha256 => {}
            Ok(_) => wrong.push(format!("{}: SHA-256 is not the manifest's", entry.file)),
            Err(error) => wrong.push(format!("{}: {error}", entry.file)),
        }
        let told = [entry.guest_sha256.is_some(), entry.refused.is_some()];
        let companion = recipes::is_companion(&entry.file);
        if told.iter().filter(|&&told| told).count() != usize::from(!companion) {
            wrong.push(format!("{}: needs either guest_sha256 or refused", entry.file));
        }
    }
    for file in files(&testdata(), Path::new(""))? {
        if !manifest.entries.iter().any(|entry| Path::new(&entry.file) == file) {
            wrong.push(format!("{}: has no entry in the manifest", file.display()));
        }
    }
    if manifest.entries.is_empty() {
        wrong.push("the manifest is empty".to_owned());
    }
    if wrong.is_empty() {
        println!("{} golden files are as the manifest says", manifest.entries.len());
        return Ok(());
    }
    Err(format!("testdata/ is not what its manifest says:\n{}", wrong.join("\n")).into())
}

/// The files in the format folders below `testdata/`, relative to it.
fn files(top: &Path, below: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files(top, &path)?);
        } else if below != Path::new("") {
            found.push(path);
        }
    }
    Ok(found)
}

fn tools() -> Result<Vec<(String, String)>> {
    let qemu = run::output(Command::new(run::need("qemu-img")?).arg("--version"))?;
    let mke2fs = Command::new(run::need("mke2fs")?).arg("-V").output()?;
    let first = |text: &str| text.lines().next().unwrap_or_default().trim().to_owned();
    Ok(vec![
        ("qemu-img".to_owned(), first(&qemu)),
        ("mke2fs".to_owned(), first(&String::from_utf8_lossy(&mke2fs.stderr))),
    ])
}

fn shell(command: &str, folder: &Path) -> Result {
    // qemu-io's `abort` is meant to crash: it shall leave no core file.
    run::output(
        Command::new("sh").arg("-c").arg(format!("ulimit -c 0\n{command}")).current_dir(folder),
    )?;
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
