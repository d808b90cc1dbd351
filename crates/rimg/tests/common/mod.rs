//! Images for the tests, byte by byte, so that what they name is exactly what a test wants.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

/// The size of the disk of a [`qcow2`] in bytes.
pub(crate) const DISK_BYTES: u64 = 8192;
/// Where its header ends.
const HEADER_BYTES: usize = 104;
const CLUSTER_BYTES: usize = 512;

/// A version 3 image with clusters of 512 bytes and no data but, where asked, one cluster of
/// `byte`s at guest offset 0.
pub(crate) fn qcow2(backing: Option<(&str, Option<&str>)>, byte: Option<u8>) -> Vec<u8> {
    let mut image = vec![0; 6 * CLUSTER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &9_u32.to_be_bytes());
    put(24, &DISK_BYTES.to_be_bytes());
    // One L2 table of 64 entries maps 32 KiB.
    put(36, &1_u32.to_be_bytes());
    put(40, &512_u64.to_be_bytes());
    put(48, &1024_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    // The refcount table, and a block of 16-bit refcounts for six clusters.
    put(1024, &1536_u64.to_be_bytes());
    for cluster in 0..6 {
        put(1536 + 2 * cluster, &1_u16.to_be_bytes());
    }
    if let Some(byte) = byte {
        let copied = 1_u64 << 63;
        put(512, &(copied | 2048).to_be_bytes());
        put(2048, &(copied | 2560).to_be_bytes());
        put(2560, &[byte; CLUSTER_BYTES]);
    }
    if let Some((name, format)) = backing {
        let mut at = HEADER_BYTES;
        if let Some(format) = format {
            put(at, &0xe279_2aca_u32.to_be_bytes());
            put(at + 4, &u32::try_from(format.len()).unwrap().to_be_bytes());
            put(at + 8, format.as_bytes());
            at += 8 + format.len().next_multiple_of(8);
        }
        // Eight zeroes end the extensions.
        at += 8;
        put(8, &u64::try_from(at).unwrap().to_be_bytes());
        put(16, &u32::try_from(name.len()).unwrap().to_be_bytes());
        put(at, name.as_bytes());
    }
    image
}

/// Writes such an image to a file.
pub(crate) fn write_qcow2(
    path: impl AsRef<Path>,
    backing: Option<(&str, Option<&str>)>,
    byte: Option<u8>,
) {
    std::fs::write(path, qcow2(backing, byte)).unwrap();
}

/// An error with all its causes.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
