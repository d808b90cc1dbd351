//! Converts an image, with progress: `convert SOURCE FORMAT TARGET [OPTION=VALUE]...`, where an
//! option is one of the format's, or `compress=on` or `threads=N`.

use rimg::{CacheMode, Creator, LocalFiles, Opener};
use rimg_convert::{ConvertOptions, Observer, TargetGuard, convert};
use std::error::Error;
use std::sync::atomic::AtomicBool;

struct Percent;

impl Observer for Percent {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        eprint!("\r{} %", done_bytes * 100 / total_bytes.max(1));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(source), Some(format), Some(target)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: convert SOURCE FORMAT TARGET [OPTION=VALUE]...".into());
    };
    let source = Opener::new().policy(LocalFiles).open(source)?;

    let mut exists = false;
    let mut options = ConvertOptions::default();
    options.target_is_new = true;
    let mut creator = Creator::new(&format).size(source.size_bytes());
    for option in args {
        match option.split_once('=') {
            Some(("compress", value)) => options.compress = value == "on",
            Some(("create", "off")) => exists = true,
            Some(("threads", value)) => options.threads = Some(value.parse()?),
            Some((name, value)) => creator = creator.option(name, value),
            None => return Err(format!("'{option}' is no OPTION=VALUE").into()),
        }
    }
    if !exists {
        creator.create(&target)?;
    }
    // Unless it gets complete, nothing is to be left that looks like a target.
    let guard = TargetGuard::created([&target]);
    let target =
        Opener::new().format(format).writable(true).cache(CacheMode::Unsafe).open(&target)?;
    // A program sets it from a signal handler.
    let cancel = AtomicBool::new(false);
    convert(&[&*source], &*target, &options, &Percent, &cancel)?;
    target.close()?;
    guard.complete();
    eprintln!();
    Ok(())
}
