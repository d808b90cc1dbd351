//! Clusters into encoded bytes.

mod compressible;
mod deflate;
#[cfg(feature = "zstd")]
mod zstd;

use rimg_core::Codec;

use crate::error::CodecUnavailable;

/// Whether [`recode`] brings encoded bytes from one codec to another: without decoding and encoding
/// them anew.
///
/// Raw deflate is wrapped as zlib. Not the other way round: zlib streams may reach back farther than
/// readers of qcow2 look.
#[must_use]
pub fn can_recode(from: Codec, to: Codec) -> bool {
    from == to || (from, to) == (Codec::Deflate, Codec::Zlib)
}

/// Appends `encoded`, exactly to the end of its stream, in the form of another codec; `cluster` is
/// what it decodes to.
///
/// Where they [cannot be](can_recode), nothing is appended and the answer is `false`.
#[must_use]
pub fn recode(from: Codec, to: Codec, encoded: &[u8], cluster: &[u8], out: &mut Vec<u8>) -> bool {
    if from == to {
        out.extend_from_slice(encoded);
    } else if can_recode(from, to) {
        deflate::wrap(encoded, cluster, out);
    }
    can_recode(from, to)
}

/// How much work to spend on making clusters small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Level {
    /// Fastest; a few per cent larger than the default.
    Fast,
    /// As small as qemu-img's defaults, give or take 3 %.
    #[default]
    Default,
}

/// A reusable encoder of clusters with one codec.
///
/// It keeps its tables between clusters; make one per thread. The same cluster gives the same
/// bytes whatever was encoded before.
#[derive(Debug)]
pub struct Encoder {
    /// Bytes that matches reach back at most.
    window: usize,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Deflate(deflate::Deflater<{ deflate::QCOW2_WINDOW }, 4096>),
    Zlib(deflate::Deflater<{ deflate::ZLIB_WINDOW }, 16384>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::ZstdEncoder>),
}

impl Encoder {
    /// An encoder for `codec`.
    ///
    /// # Errors
    ///
    /// [`CodecUnavailable`] when the build lacks the codec.
    pub fn new(codec: Codec, level: Level) -> Result<Self, CodecUnavailable> {
        let (backend, window) = match codec {
            Codec::Deflate => {
                (Backend::Deflate(deflate::Deflater::new(level)), deflate::QCOW2_WINDOW)
            }
            Codec::Zlib => (Backend::Zlib(deflate::Deflater::new(level)), deflate::ZLIB_WINDOW),
            #[cfg(feature = "zstd")]
            Codec::Zstd => (Backend::Zstd(Box::new(zstd::ZstdEncoder::new(level))), usize::MAX),
            _ => return Err(CodecUnavailable(codec)),
        };
        Ok(Self { window, backend })
    }

    /// Appends the encoded `cluster` to `out` and returns its length in bytes.
    ///
    /// `None`, and `out` as it was, when the result would not be shorter than `cluster`: it is
    /// then to be stored as it is.
    ///
    /// Deflate streams reach back 4 KiB at most, which strict readers of qcow2 insist on. Zstd
    /// clusters are one frame that declares its content size, with a window of no more than the
    /// cluster.
    pub fn encode(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if !compressible::may_shrink(cluster, self.window) {
            return None;
        }
        match &mut self.backend {
            Backend::Deflate(deflater) => deflater.encode_raw(cluster, out),
            Backend::Zlib(deflater) => deflater.encode_zlib(cluster, out),
            #[cfg(feature = "zstd")]
            Backend::Zstd(encoder) => encoder.encode(cluster, out),
        }
    }
}
