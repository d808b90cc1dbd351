//! What can go wrong.

use rimg_core::Codec;

/// This build has no implementation of the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("built without {0}")]
pub struct CodecUnavailable(pub Codec);

/// Why a cluster could not be decoded.
///
/// The cluster's contents are unspecified after any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// This build has no implementation of the codec.
    #[error(transparent)]
    Unavailable(#[from] CodecUnavailable),
    /// The encoded bytes break the rules of the codec.
    #[error("damaged {0} stream")]
    Damaged(Codec),
    /// The stream's own checksum does not match what it decoded to.
    #[error("checksum mismatch in {0} stream")]
    Checksum(Codec),
    /// The encoded bytes ended before the stream did.
    #[error("{0} stream ends early")]
    Truncated(Codec),
    /// The stream ended before the cluster was full.
    #[error("{codec} stream holds {decoded} bytes of a cluster of {cluster}")]
    Short {
        /// The codec asked for.
        codec: Codec,
        /// Bytes the stream decoded to.
        decoded: usize,
        /// Bytes of the cluster.
        cluster: usize,
    },
    /// The stream holds more than the cluster, and the codec does not allow that.
    #[error("{codec} stream holds more than a cluster of {cluster} bytes")]
    Long {
        /// The codec asked for.
        codec: Codec,
        /// Bytes of the cluster.
        cluster: usize,
    },
}
