//! Opens an image whose format is not known and reads its first sector.
//!
//! `cargo run --example open_and_read [IMAGE]`; without an image it makes one.

use rimg::{ChainExtents, Creator, Opener};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => {
            let path = folder.path().join("disk.img");
            Creator::new("raw").size(1 << 20).create(&path)?;
            path
        }
    };

    // Read-only, probed, and no other file is opened: safe for an image from anywhere.
    let image = Opener::new().open(&path)?;
    println!("{}: {}, {} bytes", path.display(), image.format().name, image.size_bytes());

    let mut sector = [0; 512];
    if image.size_bytes() >= 512 {
        image.read_at(&mut sector, 0)?;
    }
    println!("boot signature: {}", sector.ends_with(&[0x55, 0xaa]));

    // What lies where is known without reading it.
    let mut zeroes: u64 = 0;
    for extent in ChainExtents::new(&*image) {
        let extent = extent?;
        if extent.is_zero() {
            zeroes += extent.len_bytes;
        }
    }
    println!("known to be zero: {zeroes} bytes");
    Ok(())
}
