//! Deflate and zstd for whole clusters.
//!
//! Disk image formats compress in units: clusters in qcow2, grains in VMDK. A unit is small
//! (512 B to 2 MiB), its decoded length is known beforehand, and it is worth storing encoded
//! only when it shrinks. [`Encoder`] and [`Decoder`] do exactly that work. Each is made once per
//! worker thread and reused; neither starts threads, and neither allocates per cluster once its
//! buffers have grown to the size of a cluster.
//!
//! ```
//! use rimg_codec::{Codec, Decoder, Encoder, Level};
//!
//! let cluster = [b"the same few words, ".as_slice(); 200].concat();
//! let mut encoded = Vec::new();
//! let mut encoder = Encoder::new(Codec::Deflate, Level::Default)?;
//! let len = encoder.encode(&cluster, &mut encoded).expect("words that repeat shrink");
//! assert!(len < cluster.len());
//!
//! let mut decoded = vec![0; cluster.len()];
//! Decoder::new().decode(Codec::Deflate, &encoded, &mut decoded)?;
//! assert_eq!(decoded, cluster);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod decode;
mod encode;
mod error;

pub use decode::Decoder;
pub use encode::{Encoder, Level, can_recode, recode};
pub use error::{CodecUnavailable, DecodeError};
pub use rimg_core::Codec;
