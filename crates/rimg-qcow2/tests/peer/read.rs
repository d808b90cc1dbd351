//! What qemu-img and qemu-io write is read as they read it, and mapped as they map it.

use crate::folder::{Folder, folder};
use rimg_core::{BlockImage, ExtentKind, SnapshotSelector};
use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use rimg_testkit::{Rng, digest};
use serde_json::Value;
use std::fs;

/// One image to make.
#[derive(Debug, Clone, Default)]
struct Recipe {
    options: String,
    size: u64,
    compressed: bool,
    /// How many images lie below.
    below: usize,
    snapshots: bool,
    /// Whether zeroes and pieces of clusters are written on top.
    touched: bool,
}

fn recipes() -> Vec<Recipe> {
    let size = 3 << 20;
    let recipe = |options: &str| Recipe { options: options.into(), size, ..Recipe::default() };
    let mut recipes = Vec::new();
    for bits in 9..=21 {
        let cluster = format!("cluster_size={}", 1_u64 << bits);
        recipes.push(recipe(&cluster));
        recipes.push(Recipe { touched: true, snapshots: true, ..recipe(&cluster) });
        recipes.push(Recipe { compressed: true, touched: true, ..recipe(&cluster) });
        let zstd = format!("{cluster},compression_type=zstd");
        recipes.push(Recipe { compressed: true, ..recipe(&zstd) });
        let old = format!("{cluster},compat=0.10");
        recipes.push(Recipe { compressed: true, snapshots: true, ..recipe(&old) });
        if bits >= 14 {
            let extended = format!("{cluster},extended_l2=on");
            recipes.push(Recipe { touched: true, snapshots: true, ..recipe(&extended) });
            recipes.push(Recipe { touched: true, below: 2, ..recipe(&extended) });
            recipes.push(Recipe { compressed: true, touched: true, ..recipe(&extended) });
        }
        recipes.push(Recipe { below: 2, touched: true, ..recipe(&cluster) });
    }
    for refcount_bits in [1, 2, 4, 8, 16, 32, 64] {
        let options = format!("refcount_bits={refcount_bits},cluster_size=4096");
        let snapshots = refcount_bits > 1;
        recipes.push(Recipe { touched: true, snapshots, ..recipe(&options) });
        recipes.push(Recipe { compressed: refcount_bits >= 8, ..recipe(&options) });
    }
    for data_file in ["data_file=d", "data_file=d,data_file_raw=on", "data_file=d,extended_l2=on"] {
        recipes.push(recipe(data_file));
        recipes.push(Recipe { touched: true, ..recipe(data_file) });
        recipes
            .push(Recipe { touched: true, ..recipe(&format!("{data_file},cluster_size=16384")) });
    }
    for mode in ["metadata", "falloc", "full"] {
        for more in ["", ",extended_l2=on", ",cluster_size=512"] {
            recipes
                .push(Recipe { touched: true, ..recipe(&format!("preallocation={mode}{more}")) });
        }
    }
    for size in [0, 512, 1024, 65_536 - 512, 65_536 + 512, (1 << 20) + 1536] {
        recipes.push(Recipe { size, ..recipe("") });
        recipes.push(Recipe { size, compressed: true, ..recipe("") });
        recipes.push(Recipe { size, below: 1, touched: size > 0, ..recipe("cluster_size=4096") });
        recipes.push(Recipe { size, touched: size > 0, ..recipe("extended_l2=on") });
    }
    recipes
}

#[test]
fn everything_that_qemu_img_makes_is_read() {
    let (Some(img), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let (dir, folder) = folder();
    let (img, io) = (img.in_dir(&dir), io.in_dir(&dir));
    let recipes = recipes();
    assert!(recipes.len() > 150);
    let mut wrong = Vec::new();
    for (recipe, seed) in recipes.iter().zip(0..) {
        make(recipe, seed, &folder, &img, &io);
        if let Err(difference) = compare(&folder, &img) {
            wrong.push(format!("{recipe:?}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), recipes.len(), wrong.join("\n"));
}

/// Makes `top`, and below it `below0`, `below1`, … as the recipe says.
fn make(recipe: &Recipe, seed: u64, folder: &Folder, img: &Peer, io: &Peer) {
    for name in ["top", "d"] {
        let _ = fs::remove_file(folder.path(name));
    }
    let mut parent: Option<String> = None;
    for level in 0..recipe.below {
        // Shorter, longer and as long as the image above.
        let size = [recipe.size, recipe.size / 2 / 512 * 512, recipe.size + (1 << 20)][level % 3];
        let name = format!("below{level}");
        create(img, "", parent.as_deref(), &name, size);
        fill(io, &name, size, seed * 100 + 50 + u64::try_from(level).unwrap());
        parent = Some(name);
    }
    if parent.is_none() && recipe.size > 0 && !recipe.options.contains("prealloc") {
        GuestContents::with_segments_up_to(seed, recipe.size, 128 << 10)
            .write_file(folder.path("raw"))
            .unwrap();
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        if recipe.compressed {
            args.push("-c");
        }
        if !recipe.options.is_empty() {
            args.extend(["-o", &recipe.options]);
        }
        args.extend(["raw", "top"]);
        img.ok(args);
    } else {
        create(img, &recipe.options, parent.as_deref(), "top", recipe.size);
    }
    if recipe.snapshots {
        img.ok(["snapshot", "-c", "before", "top"]);
    }
    if recipe.touched {
        fill(io, "top", recipe.size, seed * 100);
    }
    if recipe.snapshots {
        img.ok(["snapshot", "-c", "after", "top"]);
        fill(io, "top", recipe.size, seed * 100 + 1);
    }
}

fn create(img: &Peer, options: &str, parent: Option<&str>, name: &str, size: u64) {
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    if let Some(parent) = parent {
        args.extend(["-b", parent, "-F", "qcow2"]);
    }
    let size = size.to_string();
    args.extend([name, &size]);
    img.ok(args);
}

/// Writes, zeroes and discards at random places.
fn fill(io: &Peer, name: &str, size: u64, seed: u64) {
    if size == 0 {
        return;
    }
    let mut rng = Rng::new(seed);
    let mut args = vec!["-f".to_owned(), "qcow2".into()];
    for turn in 0..12 {
        let at = rng.below(size / 512) * 512;
        let most = [4 << 10, 64 << 10, 300 << 10][usize::try_from(rng.below(3)).unwrap()];
        let len = (1 + rng.below(most / 512)) * 512;
        let len = len.min(size - at);
        args.push("-c".into());
        args.push(match rng.below(6) {
            0 => format!("write -z {at} {len}"),
            1 => format!("write -z -u {at} {len}"),
            2 => format!("discard {at} {len}"),
            _ => format!("write -P {} {at} {len}", turn + 1),
        });
    }
    args.push(name.into());
    io.ok(args);
}

fn compare(folder: &Folder, img: &Peer) -> Result<(), String> {
    let image = folder.open("top").map_err(|error| format!("open: {error}"))?;
    same_bytes(image.as_ref(), folder, img, &["-f", "qcow2"])?;
    let snapshots = image.snapshots().ok_or("no snapshots")?;
    for snapshot in snapshots.list().map_err(|error| error.to_string())? {
        let selector = SnapshotSelector::IdOrName(&snapshot.name);
        let disk = snapshots.open(&selector).map_err(|e| e.to_string())?.ok_or("no snapshot")?;
        let name = format!("snapshot.name={}", snapshot.name);
        same_bytes(disk.as_ref(), folder, img, &["-f", "qcow2", "-l", &name])
            .map_err(|difference| format!("{}: {difference}", snapshot.name))?;
    }
    same_map(image.as_ref(), img)
}

fn same_bytes(
    image: &dyn BlockImage,
    folder: &Folder,
    img: &Peer,
    args: &[&str],
) -> Result<(), String> {
    let convert = ["convert", "-O", "raw"];
    img.ok(convert.iter().chain(args).chain(&["top", "out"]));
    let theirs = digest::of_file(folder.path("out")).unwrap();
    let ours = digest::of_guest(image).map_err(|error| format!("read: {error}"))?;
    if ours == theirs { Ok(()) } else { Err("other bytes".into()) }
}

/// Compares each run of `qemu-img map` with the extents of the layer that it names.
fn same_map(image: &dyn BlockImage, img: &Peer) -> Result<(), String> {
    let map: Value = serde_json::from_str(&img.ok(["map", "--output=json", "top"])).unwrap();
    for run in map.as_array().unwrap() {
        let number = |key: &str| run[key].as_u64();
        let (start, len) = (number("start").unwrap(), number("length").unwrap());
        // A run that no layer has is counted to the last one.
        let depth = number("depth").unwrap();
        let mut layer = image;
        for _ in 0..depth {
            for_extents(layer, start..start + len, |_, kind| match kind {
                ExtentKind::Backing { .. } => Ok(()),
                other => Err(format!("{run}: {other:?} hides the layer below")),
            })?;
            layer = layer.backing().ok_or("no layer below")?.as_ref();
        }
        for_extents(layer, start..start + len, |at, kind| {
            let is = |key: &str| run[key].as_bool().unwrap();
            let place = number("offset").map(|offset| offset + (at - start));
            let fits = match kind {
                ExtentKind::Data(file) => {
                    // The file itself may have a hole there.
                    is("present") && (is("data") || is("zero")) && place == Some(file.host.0)
                }
                ExtentKind::Encoded { .. } => is("compressed") && is("data"),
                ExtentKind::Zero { allocation } => {
                    is("present")
                        && is("zero")
                        && (place.is_none() || allocation.map(|file| file.host.0) == place)
                }
                ExtentKind::Backing { allocation } => {
                    let host = allocation.map(|file| file.host.0);
                    is("zero") && !is("data") && !is("present") && host == place
                }
                _ => false,
            };
            if fits { Ok(()) } else { Err(format!("{run}: {kind:?} at {at:#x}")) }
        })?;
    }
    Ok(())
}

fn for_extents(
    layer: &dyn BlockImage,
    range: std::ops::Range<u64>,
    test: impl Fn(u64, ExtentKind) -> Result<(), String>,
) -> Result<(), String> {
    let end = range.end.min(layer.size_bytes());
    let mut at = range.start;
    while at < end {
        let extent = layer.extent_at(at..end).map_err(|error| format!("extent: {error}"))?;
        test(at, extent.kind)?;
        at += extent.len_bytes;
    }
    Ok(())
}
