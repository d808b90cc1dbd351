//! Clusters in and out of their encoded form.

use crate::align;
use crate::error::ConvertError;
use crate::plan::push_zeroes;
use crate::runs::Encoded;
use crate::unit::{Op, Piece, Unit};
use crate::worker::Task;
use core::ops::Range;
use rimg_codec::{Decoder, Encoder, Level, can_recode, recode};
use rimg_core::num::{to_u64, to_usize};
use rimg_core::{Codec, CompressedWrite, Error, Storage, zeroes};

/// How the target encodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coding {
    pub(crate) codec: Codec,
    pub(crate) cluster_bytes: usize,
    /// Where the target ends: the only place where a cluster may be short.
    pub(crate) target_end: u64,
}

impl Coding {
    pub(crate) fn of(compressor: &dyn CompressedWrite, target_end: u64) -> Result<Self, Error> {
        let cluster_bytes = to_usize(compressor.cluster_bytes().into())?;
        Ok(Self { codec: compressor.codec(), cluster_bytes, target_end })
    }

    /// Whether the target would take these encoded bytes as they are, or in another wrapping.
    pub(crate) fn takes(&self, piece: &Piece<'_>, encoded: &Encoded<'_>) -> bool {
        let cluster = to_u64(self.cluster_bytes);
        can_recode(encoded.codec, self.codec)
            && encoded.whole == Some(cluster)
            && piece.at.is_multiple_of(cluster)
            && (piece.len == self.cluster_bytes || piece.end() == self.target_end)
            && encoded.image.file(encoded.at.file).is_some()
    }
}

/// Encodes and decodes for one thread.
pub(crate) struct Recoder {
    coding: Coding,
    encoder: Encoder,
    decoder: Decoder,
    /// A cluster, decoded.
    cluster: Vec<u8>,
    /// Bytes as they came from the source.
    input: Vec<u8>,
}

/// Two encoded clusters this close together are read with one call.
const GAP_BYTES: u64 = 16 << 10;

impl Recoder {
    pub(crate) fn new(coding: Coding) -> Result<Self, Error> {
        let encoder = Encoder::new(coding.codec, Level::Default)
            .map_err(|error| Error::Unsupported { format: "target", feature: error.to_string() })?;
        let cluster = vec![0; coding.cluster_bytes];
        Ok(Self { coding, encoder, decoder: Decoder::new(), cluster, input: Vec::new() })
    }

    /// Turns the pieces of a unit into encoded clusters.
    pub(crate) fn process(
        &mut self,
        task: &Task<'_>,
        unit: &mut Unit<'_>,
    ) -> Result<(), ConvertError> {
        align::make_room(&mut self.input, task.geometry.unit_bytes);
        unit.data.clear();
        unit.data.reserve(task.geometry.unit_bytes.saturating_add(self.coding.cluster_bytes));
        let pieces = std::mem::take(&mut unit.pieces);
        let result = self.process_pieces(task, &pieces, unit);
        unit.pieces = pieces;
        result
    }

    fn process_pieces(
        &mut self,
        task: &Task<'_>,
        pieces: &[Piece<'_>],
        unit: &mut Unit<'_>,
    ) -> Result<(), ConvertError> {
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let as_is = task.passes(first);
            let same = rest
                .iter()
                .scan(first.at, |at, piece| {
                    // What is read together is contiguous; what is passed on need not be.
                    let fits = task.passes(piece) == as_is && (as_is || piece.at == *at);
                    *at = piece.end();
                    fits.then_some(())
                })
                .count();
            let (now, later) = rest.split_at(same);
            rest = later;
            if as_is {
                self.pass(task, now, unit)?;
            } else {
                self.encode(task, now, unit)?;
            }
        }
        Ok(())
    }

    /// Reads contiguous pieces and encodes what is not zero, cluster by cluster.
    fn encode(
        &mut self,
        task: &Task<'_>,
        pieces: &[Piece<'_>],
        unit: &mut Unit<'_>,
    ) -> Result<(), ConvertError> {
        let start = align::ahead(&self.input);
        let mut used = start;
        for piece in pieces {
            let end = used + piece.len;
            let buf = self.input.get_mut(used..end).unwrap_or_default();
            task.read(piece, buf, &mut unit.warnings)?;
            used = end;
        }
        let mut at = pieces.first().map_or(0, |piece| piece.at);
        let input = self.input.get(start..used).unwrap_or_default();
        let runs = task.runs(input, at);
        for (run, zero) in runs {
            if zero {
                let end = at.saturating_add(to_u64(run.len()));
                push_zeroes(&mut unit.ops, at..end, task.geometry.zero_from);
            } else {
                for (index, cluster) in run.chunks(self.coding.cluster_bytes).enumerate() {
                    let at = at.saturating_add(to_u64(index * self.coding.cluster_bytes));
                    encode_cluster(
                        self.coding,
                        &mut self.encoder,
                        &mut self.cluster,
                        cluster,
                        at,
                        unit,
                    );
                }
            }
            at = at.saturating_add(to_u64(run.len()));
        }
        Ok(())
    }

    /// Passes encoded clusters on, each decoded once to be sure that it can be.
    fn pass(
        &mut self,
        task: &Task<'_>,
        pieces: &[Piece<'_>],
        unit: &mut Unit<'_>,
    ) -> Result<(), ConvertError> {
        let mut rest = pieces;
        while let Some((span, count)) = Span::of(rest, self.input.len()) {
            let (now, later) = rest.split_at(count);
            rest = later;
            let len = span.end.saturating_sub(span.start);
            let buf_len = usize::try_from(len).unwrap_or(usize::MAX).min(self.input.len());
            let buf = self.input.get_mut(..buf_len).unwrap_or_default();
            let loaded = span.file.read_exact_at(buf, span.start).is_ok();
            for piece in now {
                let encoded = loaded.then(|| span.bytes_of(piece)).flatten();
                self.pass_one(task, piece, encoded, unit)?;
            }
        }
        Ok(())
    }

    fn pass_one(
        &mut self,
        task: &Task<'_>,
        piece: &Piece<'_>,
        encoded: Option<Range<usize>>,
        unit: &mut Unit<'_>,
    ) -> Result<(), ConvertError> {
        let encoded = encoded.and_then(|range| self.input.get(range));
        let codec = piece.encoded().map_or(self.coding.codec, |encoded| encoded.codec);
        let measured = encoded.and_then(|bytes| {
            let len = self.decoder.decode_measured(codec, bytes, &mut self.cluster).ok()??;
            bytes.get(..len).filter(|bytes| bytes.len() < self.coding.cluster_bytes)
        });
        if let Some(bytes) = measured {
            let guest = self.cluster.get(..piece.len).unwrap_or_default();
            if task.detect && zeroes::is_zero(guest) {
                push_zeroes(&mut unit.ops, piece.at..piece.end(), task.geometry.zero_from);
                return Ok(());
            }
            let start = unit.data.len();
            if recode(codec, self.coding.codec, bytes, &self.cluster, &mut unit.data) {
                unit.ops.push(Op::Encoded { at: piece.at, data: start..unit.data.len() });
                unit.passed += 1;
                return Ok(());
            }
        }
        // The source knows best what is wrong with it, or how it is to be read anyway. The input
        // buffer may hold clusters that others still need.
        let mut cluster = vec![0; piece.len];
        task.read(piece, &mut cluster, &mut unit.warnings)?;
        encode_cluster(self.coding, &mut self.encoder, &mut self.cluster, &cluster, piece.at, unit);
        Ok(())
    }
}

/// Adds `cluster` to the unit in the form that it is to be stored in.
pub(crate) fn encode_cluster(
    coding: Coding,
    encoder: &mut Encoder,
    scratch: &mut [u8],
    cluster: &[u8],
    at: u64,
    unit: &mut Unit<'_>,
) {
    let start = unit.data.len();
    let end = at.saturating_add(to_u64(cluster.len()));
    let encoded = if !at.is_multiple_of(to_u64(coding.cluster_bytes)) {
        None
    } else if cluster.len() == coding.cluster_bytes {
        encoder.encode(cluster, &mut unit.data)
    } else if end == coding.target_end {
        // What lies behind the end of the disk is encoded as zeroes.
        let (head, tail) = scratch.split_at_mut(cluster.len());
        head.copy_from_slice(cluster);
        tail.fill(0);
        encoder.encode(scratch, &mut unit.data)
    } else {
        None
    };
    match encoded {
        Some(_) => unit.ops.push(Op::Encoded { at, data: start..unit.data.len() }),
        None => {
            unit.data.extend_from_slice(cluster);
            push_write(&mut unit.ops, at, start..unit.data.len());
        }
    }
}

/// Adds a write, to the one before where it goes on.
pub(crate) fn push_write(ops: &mut Vec<Op>, at: u64, data: Range<usize>) {
    match ops.last_mut() {
        Some(Op::Write { at: last_at, data: last })
            if last.end == data.start && last_at.saturating_add(to_u64(last.len())) == at =>
        {
            last.end = data.end;
        }
        _ => ops.push(Op::Write { at, data }),
    }
}

/// Encoded clusters that lie close together in a file.
struct Span<'a> {
    file: &'a dyn Storage,
    start: u64,
    end: u64,
}

impl<'a> Span<'a> {
    /// The span of as many of the first `pieces` as fit into `room` bytes, and their number.
    fn of(pieces: &[Piece<'a>], room: usize) -> Option<(Self, usize)> {
        let first = pieces.first()?.encoded()?;
        let file = first.image.file(first.at.file).filter(|file| !file.listens())?;
        let file_end = file.len_bytes().unwrap_or(u64::MAX);
        let start = first.at.host.0;
        let mut end = start.saturating_add(first.len_bytes);
        let mut count = 1;
        for encoded in pieces.iter().skip(1).map_while(Piece::encoded) {
            let next_end = encoded.at.host.0.saturating_add(encoded.len_bytes);
            let near = encoded.at.host.0 >= start
                && encoded.at.host.0 <= end.saturating_add(GAP_BYTES)
                && end.max(next_end).saturating_sub(start) <= to_u64(room);
            let same_file =
                std::ptr::addr_eq(encoded.image, first.image) && encoded.at.file == first.at.file;
            if !near || !same_file {
                break;
            }
            end = end.max(next_end);
            count += 1;
        }
        // Lengths are upper bounds, and may reach past the end of the file.
        Some((Self { file: &**file, start, end: end.min(file_end).max(start) }, count))
    }

    /// Where in the bytes of the span those of `piece` are.
    fn bytes_of(&self, piece: &Piece<'_>) -> Option<Range<usize>> {
        let encoded = piece.encoded()?;
        let start = encoded.at.host.0.checked_sub(self.start)?;
        let end = start.saturating_add(encoded.len_bytes).min(self.end.saturating_sub(self.start));
        Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}
