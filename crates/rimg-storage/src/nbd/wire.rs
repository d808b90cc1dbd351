//! What goes over the wire: numbers of the specification, and its structures as bytes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::ops::Range;

/// The first bytes of every server.
pub(super) const INIT_PASSWD: [u8; 8] = *b"NBDMAGIC";
/// The next ones of one that negotiates, and of every option.
pub(super) const IHAVEOPT: [u8; 8] = *b"IHAVEOPT";
/// The next ones of one that does not ("oldstyle").
pub(super) const OLDSTYLE: [u8; 8] = [0x00, 0x00, 0x42, 0x02, 0x81, 0x86, 0x12, 0x53];
/// The first bytes of the reply to an option.
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Handshake flags, which the client answers with the same bits.
pub(super) mod handshake {
    pub(in crate::nbd) const FIXED_NEWSTYLE: u16 = 1;
    pub(in crate::nbd) const NO_ZEROES: u16 = 1 << 1;
}

/// Options that a client negotiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opt {
    ExportName,
    Abort,
    Go,
    StructuredReply,
    SetMetaContext,
}

impl Opt {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::ExportName => 1,
            Self::Abort => 2,
            Self::Go => 7,
            Self::StructuredReply => 8,
            Self::SetMetaContext => 10,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ExportName => "export name",
            Self::Abort => "abort",
            Self::Go => "go",
            Self::StructuredReply => "structured reply",
            Self::SetMetaContext => "set meta context",
        }
    }
}

/// Kinds of replies to an option.
pub(super) mod rep {
    pub(in crate::nbd) const ACK: u32 = 1;
    pub(in crate::nbd) const INFO: u32 = 3;
    pub(in crate::nbd) const META_CONTEXT: u32 = 4;
    pub(in crate::nbd) const ERROR_BIT: u32 = 1 << 31;
    pub(in crate::nbd) const ERR_UNSUP: u32 = ERROR_BIT | 1;
    pub(in crate::nbd) const ERR_POLICY: u32 = ERROR_BIT | 2;
    pub(in crate::nbd) const ERR_INVALID: u32 = ERROR_BIT | 3;
    pub(in crate::nbd) const ERR_PLATFORM: u32 = ERROR_BIT | 4;
    pub(in crate::nbd) const ERR_TLS_REQD: u32 = ERROR_BIT | 5;
    pub(in crate::nbd) const ERR_UNKNOWN: u32 = ERROR_BIT | 6;
    pub(in crate::nbd) const ERR_SHUTDOWN: u32 = ERROR_BIT | 7;
    pub(in crate::nbd) const ERR_BLOCK_SIZE_REQD: u32 = ERROR_BIT | 8;
}

/// Kinds of information about an export.
pub(super) mod info {
    pub(in crate::nbd) const EXPORT: u16 = 0;
    pub(in crate::nbd) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub(super) mod flag {
    pub(in crate::nbd) const HAS_FLAGS: u16 = 1;
    pub(in crate::nbd) const READ_ONLY: u16 = 1 << 1;
    pub(in crate::nbd) const SEND_FLUSH: u16 = 1 << 2;
    pub(in crate::nbd) const SEND_FUA: u16 = 1 << 3;
    pub(in crate::nbd) const SEND_TRIM: u16 = 1 << 5;
    pub(in crate::nbd) const SEND_WRITE_ZEROES: u16 = 1 << 6;
}

/// Requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    WriteZeroes,
    BlockStatus,
}

impl Command {
    const fn number(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
        }
    }
}

/// Flags of a request.
pub(super) mod command_flag {
    pub(in crate::nbd) const FUA: u16 = 1;
    pub(in crate::nbd) const NO_HOLE: u16 = 1 << 1;
    /// Block status of the first extent only: servers look for all of them otherwise.
    pub(in crate::nbd) const REQ_ONE: u16 = 1 << 3;
}

/// The length of [`request`] in bytes.
pub(super) const REQUEST_BYTES: usize = 28;

/// The header of a request.
pub(super) fn request(
    command: Command,
    flags: u16,
    cookie: u64,
    offset: u64,
    len_bytes: u32,
) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    let fields: [&[u8]; 6] = [
        &REQUEST.to_be_bytes(),
        &flags.to_be_bytes(),
        &command.number().to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &len_bytes.to_be_bytes(),
    ];
    for (byte, field) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
        *byte = *field;
    }
    bytes
}

/// An option with its data, which is shorter than 4 GiB.
pub(super) fn option(option: Opt, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    [&IHAVEOPT[..], &option.number().to_be_bytes(), &len.to_be_bytes(), data].concat()
}

/// A text with its length before it.
pub(super) fn text(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

/// The header of the reply to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionReply {
    pub(super) option: u32,
    pub(super) kind: u32,
    pub(super) len_bytes: u32,
}

impl OptionReply {
    /// The length in bytes.
    pub(super) const BYTES: usize = 20;

    pub(super) fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u64()? == OPTION_REPLY).then_some(())?;
        Some(Self { option: fields.u32()?, kind: fields.u32()?, len_bytes: fields.u32()? })
    }
}

/// The header of a reply to a request, or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    pub(super) body: Body,
}

/// What follows the header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// A simple reply: an error, or what the request asks for.
    Simple {
        /// 0 or an error.
        error: u32,
    },
    /// A chunk of a structured reply.
    Chunk {
        /// No more chunks follow.
        done: bool,
        /// What kind of chunk it is.
        kind: u16,
        /// How much follows.
        len_bytes: u32,
    },
}

/// Kinds of chunks.
pub(super) mod chunk {
    pub(in crate::nbd) const NONE: u16 = 0;
    pub(in crate::nbd) const OFFSET_DATA: u16 = 1;
    pub(in crate::nbd) const OFFSET_HOLE: u16 = 2;
    pub(in crate::nbd) const BLOCK_STATUS: u16 = 5;
    pub(in crate::nbd) const ERROR_BIT: u16 = 1 << 15;
}

/// The lengths in bytes of what a reply begins with.
pub(super) const SIMPLE_BYTES: usize = 16;
/// What a chunk's header has besides.
pub(super) const CHUNK_REST_BYTES: usize = 4;

/// What the first bytes of a reply say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyStart {
    /// All of it.
    Simple(Reply),
    /// A chunk, whose length comes next.
    Chunk { cookie: u64, done: bool, kind: u16 },
}

impl ReplyStart {
    pub(super) fn parse(bytes: &[u8; SIMPLE_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        match fields.u32()? {
            SIMPLE_REPLY => {
                let error = fields.u32()?;
                Some(Self::Simple(Reply { cookie: fields.u64()?, body: Body::Simple { error } }))
            }
            STRUCTURED_REPLY => {
                let done = fields.u16()? & 1 != 0;
                let kind = fields.u16()?;
                Some(Self::Chunk { cookie: fields.u64()?, done, kind })
            }
            _ => None,
        }
    }
}

/// A run of a disk that the server says one thing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) len_bytes: u64,
    /// Takes up no space.
    pub(super) is_hole: bool,
    pub(super) is_zero: bool,
}

impl Status {
    pub(super) fn kind(&self) -> (bool, bool) {
        (self.is_hole, self.is_zero)
    }
}

/// Reads the payload of a block status chunk for the context `context`: runs of length 0 and none
/// at all are errors, and what lies behind `range` is cut off.
pub(super) fn block_status(
    payload: &[u8],
    context: u32,
    range: &Range<u64>,
) -> Result<Vec<Status>, &'static str> {
    /// In the context `base:allocation`: takes up no space.
    const STATE_HOLE: u32 = 1;
    /// In the context `base:allocation`: reads as zeroes.
    const STATE_ZERO: u32 = 1 << 1;
    let mut fields = Fields(payload);
    if fields.u32() != Some(context) {
        return Err("block status of a context that was not asked for");
    }
    let mut runs = Vec::new();
    let mut left = range.end.saturating_sub(range.start);
    while !fields.0.is_empty() {
        let (Some(len), Some(flags)) = (fields.u32(), fields.u32()) else {
            return Err("block status with half an extent");
        };
        if len == 0 {
            return Err("block status with an empty extent");
        }
        let len_bytes = u64::from(len).min(left);
        left = left.saturating_sub(len_bytes);
        if len_bytes > 0 {
            runs.push(Status {
                len_bytes,
                is_hole: flags & STATE_HOLE != 0,
                is_zero: flags & STATE_ZERO != 0,
            });
        }
    }
    if runs.is_empty() { Err("block status without an extent") } else { Ok(runs) }
}

/// The fields of a structure, one after the other; `None` when it is too short.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl<'b> Fields<'b> {
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text that has its length before it, as 16 bits.
    pub(super) fn short_text(&mut self) -> Option<&'b [u8]> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(text)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_specification_has_it() {
        let bytes = request(Command::Write, command_flag::FUA, 7, 0x1_0000_0000, 512);
        let expected = "25609513 0001 0001 0000000000000007 0000000100000000 00000200";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.replace(' ', ""));
    }

    #[test]
    fn block_status_is_bounded_by_what_was_asked() {
        let payload = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_be_bytes()).collect()
        };
        let run = |len_bytes, is_hole, is_zero| Status { len_bytes, is_hole, is_zero };
        let status = |words: &[u32]| block_status(&payload(words), 9, &(0..100));
        assert_eq!(
            status(&[9, 60, 3, 60, 0]),
            Ok(vec![run(60, true, true), run(40, false, false)])
        );
        assert_eq!(status(&[9, 100, 1, 60, 0]), Ok(vec![run(100, true, false)]));
        assert_eq!(status(&[8, 60, 3]), Err("block status of a context that was not asked for"));
        assert_eq!(status(&[9, 0, 3]), Err("block status with an empty extent"));
        assert_eq!(status(&[9, 1]), Err("block status with half an extent"));
        assert_eq!(status(&[9]), Err("block status without an extent"));
    }
}
