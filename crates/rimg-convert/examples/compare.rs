//! Compares what the guest sees of two images: `compare FIRST SECOND`.

use rimg::{LocalFiles, Opener};
use rimg_convert::{CompareOptions, Silent, compare};
use std::error::Error;
use std::sync::atomic::AtomicBool;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(first), Some(second)) = (args.next(), args.next()) else {
        return Err("usage: compare FIRST SECOND".into());
    };
    let opener = Opener::new().policy(LocalFiles);
    let (first, second) = (opener.open(first)?, opener.open(second)?);
    let options = CompareOptions::default();
    let found = compare(&*first, &*second, &options, &Silent, &AtomicBool::new(false))?;
    match found.difference {
        None => println!("Images are identical."),
        Some(difference) => println!("{difference}"),
    }
    Ok(())
}
