//! How the bytes of a cluster may be encoded.

use core::fmt;

/// The encoding of a cluster (grain, block) that is not stored as the guest sees it.
///
/// Two images that name the same codec and the same cluster size can exchange encoded clusters
/// without decoding them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Raw deflate (RFC 1951), which qcow2 calls `zlib`.
    Deflate,
    /// Deflate in its zlib wrapping (RFC 1950), as in VMDK grains.
    Zlib,
    /// Zstandard frames (RFC 8878).
    Zstd,
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deflate => "deflate",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        })
    }
}
