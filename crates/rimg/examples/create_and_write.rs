//! Creates an image, writes to it, makes it larger, and reads it back.
//!
//! `cargo run --example create_and_write [FORMAT]`

use rimg::{Creator, Opener, Preallocation};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let format = std::env::args().nth(1).unwrap_or_else(|| "raw".to_owned());
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk");

    // Options have the names that qemu-img knows them by.
    Creator::new(&format).size(8 << 20).option("preallocation", "off").create(&path)?;

    // Giving the format is the safe way to open what one made oneself.
    let image = Opener::new().format(&format).writable(true).open(&path)?;
    let writer = image.writer().ok_or("the format cannot be written")?;
    writer.write_at(b"hello, guest", 4096)?;
    writer.write_zeroes_at(0..4096)?;
    if let Some(resizer) = image.resizer() {
        resizer.resize(16 << 20, Preallocation::Off)?;
    }
    // Dropping the image cannot report what goes wrong at the end; closing does.
    image.close()?;

    let image = Opener::new().format(&format).open(&path)?;
    let mut bytes = [0; 12];
    image.read_at(&mut bytes, 4096)?;
    assert_eq!(&bytes, b"hello, guest");
    println!("{} bytes of {format} hold what was written", image.size_bytes());
    Ok(())
}
