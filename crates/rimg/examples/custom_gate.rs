//! Decides about the files that an image names: base images come from a catalogue in memory, by
//! name, and nothing else is opened.

use rimg::{Dependency, DependencyRole, Error, Grant, MemoryStorage, Opener, Policy, Storage};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Base images by the names that overlays use for them.
struct Catalogue(BTreeMap<&'static str, Arc<dyn Storage>>);

impl Policy for Catalogue {
    fn decide(&self, wanted: &Dependency<'_>, _from: Option<&Path>) -> rimg::Result<Grant> {
        let known = self.0.get(wanted.name).filter(|_| wanted.role == DependencyRole::Backing);
        match known {
            Some(image) => Ok(Grant::Storage(Arc::clone(image))),
            None => Err(Error::Denied(format!(
                "{} '{}' is not in the catalogue",
                wanted.role, wanted.name
            ))),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base: Arc<dyn Storage> = Arc::new(MemoryStorage::from(vec![b'B'; 8192]));
    let catalogue = Arc::new(Catalogue(BTreeMap::from([("debian-13", base)])));
    let policy = move |wanted: &Dependency<'_>, from: Option<&Path>| catalogue.decide(wanted, from);
    let opener = Opener::new().policy(policy);

    // The overlay is empty, so its disk reads as the base image does.
    let image = opener.open_storage(Arc::new(MemoryStorage::from(overlay("debian-13"))))?;
    let mut bytes = [0; 4];
    image.read_at(&mut bytes, 0)?;
    assert_eq!(&bytes, b"BBBB");
    println!("{} layers, the lowest is {}", image.layers().len(), image.layers()[1].format.name);

    // Somebody tries his luck.
    let Err(error) = opener.open_storage(Arc::new(MemoryStorage::from(overlay("/etc/shadow"))))
    else {
        return Err("that should have been refused".into());
    };
    assert!(matches!(error.source, Error::Denied(_)));
    println!("refused: {}", error.source);
    Ok(())
}

/// A qcow2 image without data over `backing`, whose format is raw: version 3, clusters of 512
/// bytes, a disk of 8192.
fn overlay(backing: &str) -> Vec<u8> {
    let backing_at: u64 = 104 + 16 + 8;
    let mut bytes = Vec::new();
    bytes.extend(b"QFI\xfb");
    bytes.extend(3_u32.to_be_bytes());
    bytes.extend(backing_at.to_be_bytes());
    bytes.extend(u32::try_from(backing.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(9_u32.to_be_bytes()); // cluster_bits
    bytes.extend(8192_u64.to_be_bytes()); // size
    bytes.extend(0_u32.to_be_bytes()); // crypt_method
    bytes.extend(1_u32.to_be_bytes()); // l1_size
    bytes.extend(512_u64.to_be_bytes()); // l1_table_offset
    bytes.extend(1024_u64.to_be_bytes()); // refcount_table_offset
    bytes.extend(1_u32.to_be_bytes()); // refcount_table_clusters
    bytes.resize(96, 0); // no snapshots, no features
    bytes.extend(4_u32.to_be_bytes()); // refcount_order
    bytes.extend(104_u32.to_be_bytes()); // header_length
    bytes.extend(0xe279_2aca_u32.to_be_bytes()); // the backing format's extension
    bytes.extend(3_u32.to_be_bytes());
    bytes.extend(b"raw\0\0\0\0\0");
    bytes.extend([0; 8]); // no more extensions
    bytes.extend(backing.as_bytes());
    bytes.resize(3 * 512, 0);
    bytes
}
