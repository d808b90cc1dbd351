//! Converts an image and shows how far it is; Ctrl-C is left to the reader: set the flag.
//!
//! `cargo run --example convert_with_progress [SOURCE TARGET FORMAT]`; without arguments it makes a
//! source and copies it to another raw image.

use rimg::{Creator, Opener};
use rimg_convert::{ConvertOptions, Observer, TargetGuard, convert};
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Prints a percentage.
struct Percent;

impl Observer for Percent {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        let percent = done_bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
        println!("{percent:3} % of {total_bytes} bytes");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut arguments = std::env::args().skip(1);
    let (from, to, format) = match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(from), Some(to), Some(format)) => (PathBuf::from(from), PathBuf::from(to), format),
        _ => {
            let from = folder.path().join("source.img");
            Creator::new("raw").size(64 << 20).create(&from)?;
            let image = Opener::new().format("raw").writable(true).open(&from)?;
            let writer = image.writer().ok_or("opened for writing")?;
            writer.write_at(&vec![7; 5 << 20], 32 << 20)?;
            image.close()?;
            (from, folder.path().join("target.img"), "raw".to_owned())
        }
    };

    let source = Opener::new().open(&from)?;
    Creator::new(&format).size(source.size_bytes()).create(&to)?;
    // Until it is complete, the target goes away again when anything fails.
    let guard = TargetGuard::created([&to]);
    let target = Opener::new().format(&format).writable(true).open(&to)?;

    let mut options = ConvertOptions::default();
    options.target_is_new = true;
    let stop = AtomicBool::new(false);
    convert(&[&*source], &*target, &options, &Percent, &stop)?;
    target.close()?;
    guard.complete();

    let copy = Opener::new().format(&format).open(&to)?;
    let mut bytes = [0; 4];
    if copy.size_bytes() >= 37 << 20 {
        copy.read_at(&mut bytes, (37 << 20) - 2)?;
    }
    println!("{} is complete; in its middle: {bytes:?}", to.display());
    Ok(())
}
