//! Out of encoded bytes, by every codec that the formats have.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod adc;

use rimg_codec::{Codec, Decoder};
use rimg_core::{BoxError, Error, HostOffset, Location};
use std::cell::RefCell;
use std::io::{self, Read};

/// Dictionaries of LZMA may take so much memory, in KiB: no chunk is larger.
const LZMA_LIMIT_KIB: u32 = 80 << 10;

/// How a chunk is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zlib,
    Adc,
    Bzip2,
    Lzfse,
    /// LZMA2 in an xz stream.
    Lzma,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Adc => "ADC",
            Self::Bzip2 => "bzip2",
            Self::Lzfse => "LZFSE",
            Self::Lzma => "LZMA",
        }
    }

    /// A chunk at `host` that does not decode.
    pub(crate) fn error(self, host: u64, source: BoxError) -> Error {
        match self {
            Self::Zlib => Error::Decode { codec: Codec::Zlib, host: HostOffset(host), source },
            _ => Error::Corrupt {
                format: crate::dmg::FORMAT,
                at: Location { structure: "chunk", field: self.name(), offset: HostOffset(host) },
                source,
            },
        }
    }
}

/// Why a chunk does not decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error(transparent)]
    Zlib(#[from] rimg_codec::DecodeError),
    #[error("the stream is damaged or ends early")]
    Damaged,
    #[error("the stream is damaged")]
    Stream(#[source] io::Error),
    #[error("the stream holds more than the chunk")]
    Long,
}

/// Fills `decoded` from a stream that has to be as long as that.
pub(crate) fn decode(
    coding: Coding,
    encoded: &[u8],
    decoded: &mut [u8],
) -> Result<(), DecodeError> {
    match coding {
        Coding::Zlib => {
            ZLIB.with_borrow_mut(|decoder| Ok(decoder.decode(Codec::Zlib, encoded, decoded)?))
        }
        Coding::Adc => adc::decode(encoded, decoded).ok_or(DecodeError::Damaged),
        Coding::Bzip2 => fill(bzip2::bufread::MultiBzDecoder::new(encoded), decoded),
        Coding::Lzfse => {
            let mut decoder = lzfse_rust::LzfseRingDecoder::default();
            fill(decoder.reader_bytes(encoded), decoded)
        }
        Coding::Lzma => {
            fill(lzma_rust2::XzReader::new_mem_limit(encoded, false, LZMA_LIMIT_KIB), decoded)
        }
    }
}

thread_local! {
    /// It keeps its tables between chunks.
    static ZLIB: RefCell<Decoder> = RefCell::new(Decoder::new());
}

fn fill(mut stream: impl Read, decoded: &mut [u8]) -> Result<(), DecodeError> {
    stream.read_exact(decoded).map_err(DecodeError::Stream)?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(DecodeError::Long),
        Err(error) => Err(DecodeError::Stream(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn encoded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Zlib => {
                let mut encoder =
                    flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::default());
                encoder.write_all(plain).unwrap();
            }
            Coding::Adc => unreachable!("has tests of its own"),
            Coding::Bzip2 => {
                let mut encoder =
                    bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::best());
                encoder.write_all(plain).unwrap();
            }
            Coding::Lzfse => {
                lzfse_rust::encode_bytes(plain, &mut out).unwrap();
            }
            Coding::Lzma => {
                let options = lzma_rust2::XzOptions::with_preset(3);
                let mut encoder = lzma_rust2::XzWriter::new(&mut out, options).unwrap();
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap();
            }
        }
        out
    }

    #[test]
    fn streams_are_as_long_as_their_chunks() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for coding in [Coding::Zlib, Coding::Bzip2, Coding::Lzfse, Coding::Lzma] {
            let stream = encoded(coding, &plain);
            assert!(stream.len() < plain.len(), "{coding:?}");
            let mut decoded = vec![0; plain.len()];
            decode(coding, &stream, &mut decoded).unwrap();
            assert!(decoded == plain, "{coding:?}");
            let mut longer = vec![0; plain.len() + 1];
            assert!(decode(coding, &stream, &mut longer).is_err(), "{coding:?}");
            assert!(decode(coding, &stream[..stream.len() / 2], &mut decoded).is_err());
            assert!(decode(coding, &[], &mut decoded).is_err(), "{coding:?}");
            if coding != Coding::Zlib {
                let mut shorter = vec![0; plain.len() - 1];
                let error = decode(coding, &stream, &mut shorter).unwrap_err();
                assert!(matches!(error, DecodeError::Long), "{coding:?} {error}");
            }
        }
    }

    #[test]
    fn damaged_streams_do_not_panic() {
        let plain: Vec<u8> = (0..5000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for coding in [Coding::Zlib, Coding::Bzip2, Coding::Lzfse, Coding::Lzma] {
            let stream = encoded(coding, &plain);
            let mut decoded = vec![0; plain.len()];
            for at in 0..stream.len() {
                let mut damaged = stream.clone();
                damaged[at] ^= 0x55;
                let _ = decode(coding, &damaged, &mut decoded);
            }
        }
    }
}
