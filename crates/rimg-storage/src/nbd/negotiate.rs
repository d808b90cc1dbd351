//! The handshake: what to talk about, and what the server can do.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::nbd::address::Stream;
use crate::nbd::error::NbdError;
use crate::nbd::wire::{
    Fields, IHAVEOPT, INIT_PASSWD, OLDSTYLE, Opt, OptionReply, flag, handshake, info, option, rep,
    text,
};
use core::time::Duration;
use std::io::{self, Read, Write};
use std::time::Instant;

/// How long all of it may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// How long a reply to an option may be, in bytes: texts have 4096 at most.
const MAX_REPLY_BYTES: u32 = 32 << 10;
/// How many pieces of information may answer one option.
const MAX_REPLIES: u32 = 1024;
/// The longest name of an export, in bytes.
const MAX_NAME_BYTES: usize = 4096;
/// The context whose block status tells zeroes.
const BASE_ALLOCATION: &str = "base:allocation";

/// The largest request unless the server says otherwise, in bytes.
const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// The largest block that a server may insist on, in bytes.
const MAX_MIN_BLOCK_BYTES: u32 = 64 << 10;

/// What is known of an export once the handshake is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Export {
    /// The length of the disk in bytes.
    pub(super) len_bytes: u64,
    /// Transmission flags.
    pub(super) flags: u16,
    /// What requests have to be aligned to, in bytes: a power of two.
    pub(super) min_block_bytes: u32,
    /// How long reads and writes may be at most, in bytes: a multiple of `min_block_bytes`.
    pub(super) max_payload_bytes: u32,
    /// Whether replies may be structured.
    pub(super) structured: bool,
    /// The number of the context that tells of holes and zeroes, where the server has it.
    pub(super) allocation: Option<u32>,
}

/// Negotiates for the export called `name`. A metadata context other than `base:allocation` has to
/// be there.
pub(super) fn negotiate(
    stream: &Stream,
    name: &str,
    context: Option<&str>,
) -> Result<Export, NbdError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(NbdError::protocol("export name too long to send to server"));
    }
    let deadline = Instant::now().checked_add(HANDSHAKE_TIME);
    let mut handshake = Handshake { stream, deadline, no_zeroes: false };
    handshake.greet()?;
    let structured = handshake.structured_reply()?;
    let wanted = context.unwrap_or(BASE_ALLOCATION);
    let allocation = if structured { handshake.meta_context(name, wanted)? } else { None };
    if context.is_some() && allocation.is_none() {
        let reason = "Could not open image: Invalid argument".to_owned();
        return Err(NbdError::Refused { reason, server: None });
    }
    handshake.go(name, structured, allocation)
}

struct Handshake<'s> {
    stream: &'s Stream,
    deadline: Option<Instant>,
    /// Whether the server leaves out the zeroes that the old way to choose an export ends with.
    no_zeroes: bool,
}

impl Handshake<'_> {
    /// Sees who is there.
    fn greet(&mut self) -> Result<(), NbdError> {
        let magic: [u8; 8] = self.read()?;
        if magic != INIT_PASSWD {
            return Err(NbdError::protocol("Bad initial magic received"));
        }
        match self.read::<8>()? {
            IHAVEOPT => {}
            OLDSTYLE => {
                return Err(NbdError::protocol("The server speaks the oldstyle protocol only"));
            }
            _ => return Err(NbdError::protocol("Bad server magic received")),
        }
        let flags = u16::from_be_bytes(self.read()?);
        if flags & handshake::FIXED_NEWSTYLE == 0 {
            return Err(NbdError::protocol(
                "The server does not speak the fixed newstyle protocol",
            ));
        }
        self.no_zeroes = flags & handshake::NO_ZEROES != 0;
        let wanted = flags & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        self.write(&u32::from(wanted).to_be_bytes())
    }

    fn structured_reply(&mut self) -> Result<bool, NbdError> {
        self.write(&option(Opt::StructuredReply, &[]))?;
        let (kind, data) = self.reply(Opt::StructuredReply)?;
        match kind {
            rep::ACK => Ok(true),
            rep::ERR_UNSUP | rep::ERR_INVALID | rep::ERR_POLICY => Ok(false),
            error => Err(self.refused(Opt::StructuredReply, error, &data)),
        }
    }

    /// Asks for the context `wanted`, and gets its number.
    fn meta_context(&mut self, name: &str, wanted: &str) -> Result<Option<u32>, NbdError> {
        let data = [&text(name)[..], &1_u32.to_be_bytes(), &text(wanted)].concat();
        self.write(&option(Opt::SetMetaContext, &data))?;
        let mut context = None;
        for _ in 0..MAX_REPLIES {
            let (kind, data) = self.reply(Opt::SetMetaContext)?;
            match kind {
                rep::ACK => return Ok(context),
                rep::META_CONTEXT => {
                    let mut fields = Fields(&data);
                    let number = fields.u32();
                    if fields.0 != wanted.as_bytes() {
                        return Err(NbdError::protocol("The server offers another meta context"));
                    }
                    context = number;
                }
                rep::ERR_UNSUP | rep::ERR_INVALID | rep::ERR_POLICY => return Ok(None),
                error => return Err(self.refused(Opt::SetMetaContext, error, &data)),
            }
        }
        Err(NbdError::protocol("The server does not stop listing meta contexts"))
    }

    /// Chooses the export, and ends the handshake.
    fn go(
        &mut self,
        name: &str,
        structured: bool,
        allocation: Option<u32>,
    ) -> Result<Export, NbdError> {
        let data =
            [&text(name)[..], &1_u16.to_be_bytes(), &info::BLOCK_SIZE.to_be_bytes()].concat();
        self.write(&option(Opt::Go, &data))?;
        let (mut size, mut blocks) = (None, Blocks::default());
        for _ in 0..MAX_REPLIES {
            let (kind, data) = self.reply(Opt::Go)?;
            match kind {
                rep::INFO => {
                    let mut fields = Fields(&data);
                    let short = || NbdError::protocol("The server's information is cut off");
                    match fields.u16().ok_or_else(short)? {
                        info::EXPORT => {
                            let len = fields.u64().ok_or_else(short)?;
                            size = Some((len, fields.u16().ok_or_else(short)?));
                        }
                        info::BLOCK_SIZE => blocks = Blocks::parse(fields)?,
                        _ => {}
                    }
                }
                rep::ACK => {
                    let size = size.ok_or_else(|| {
                        NbdError::protocol("broken server omitted NBD_INFO_EXPORT")
                    })?;
                    return export(size, blocks, structured, allocation);
                }
                rep::ERR_UNSUP => return self.export_name(name, structured, allocation),
                error => return Err(self.refused(Opt::Go, error, &data)),
            }
        }
        Err(NbdError::protocol("The server does not stop telling of the export"))
    }

    /// The old way to choose an export: a server that has none of the name hangs up.
    fn export_name(
        &mut self,
        name: &str,
        structured: bool,
        allocation: Option<u32>,
    ) -> Result<Export, NbdError> {
        self.write(&option(Opt::ExportName, name.as_bytes()))?;
        let answer: [u8; 10] = self.read()?;
        if !self.no_zeroes {
            self.read::<124>()?;
        }
        let mut fields = Fields(&answer);
        let size = fields.u64().zip(fields.u16());
        let size = size.ok_or_else(|| NbdError::protocol("The server's information is cut off"))?;
        export(size, Blocks::default(), structured, allocation)
    }

    /// The next reply to `wanted`: its kind and its data.
    fn reply(&mut self, wanted: Opt) -> Result<(u32, Vec<u8>), NbdError> {
        let header = self.read()?;
        let reply = OptionReply::parse(&header)
            .ok_or_else(|| NbdError::protocol("Unexpected option reply magic"))?;
        if reply.option != wanted.number() {
            return Err(NbdError::protocol(format!(
                "Unexpected option type {} (expected {})",
                reply.option,
                wanted.number()
            )));
        }
        if reply.len_bytes > MAX_REPLY_BYTES {
            return Err(NbdError::protocol(format!(
                "server replied to option {} with a reply that is too long",
                wanted.name()
            )));
        }
        let mut data = vec![0; usize::try_from(reply.len_bytes).unwrap_or_default()];
        self.fill(&mut data)?;
        Ok((reply.kind, data))
    }

    /// What it means that an option was answered so, having told the server that this is the end.
    fn refused(&mut self, option_: Opt, kind: u32, data: &[u8]) -> NbdError {
        // The server may be gone already.
        let _ = self.write(&option(Opt::Abort, &[]));
        if kind & rep::ERROR_BIT == 0 {
            return NbdError::protocol(format!(
                "Unexpected reply type {kind} to option {}",
                option_.name()
            ));
        }
        let reason = match kind {
            rep::ERR_POLICY => format!("Denied by server for option {}", option_.name()),
            rep::ERR_INVALID => format!("Invalid parameters for option {}", option_.name()),
            rep::ERR_PLATFORM => format!("Server lacks support for option {}", option_.name()),
            rep::ERR_TLS_REQD => "Server requires TLS, which is not supported".to_owned(),
            rep::ERR_UNKNOWN => "Requested export not available".to_owned(),
            rep::ERR_SHUTDOWN => format!("Server shutting down before option {}", option_.name()),
            rep::ERR_BLOCK_SIZE_REQD => {
                format!("Server requires INFO_BLOCK_SIZE for option {}", option_.name())
            }
            _ => format!("Unknown error code when asking for option {}", option_.name()),
        };
        // A stranger's words: nothing that moves the cursor.
        let words = String::from_utf8_lossy(data);
        let words: String = words.chars().filter(|letter| !letter.is_control()).collect();
        NbdError::Refused { reason, server: (!words.is_empty()).then_some(words) }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads, and stops at the deadline however slowly bytes drip in.
    fn fill(&mut self, mut buf: &mut [u8]) -> Result<(), NbdError> {
        while !buf.is_empty() {
            self.allow_time()?;
            let mut stream = self.stream;
            match stream.read(buf) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(len) => buf = buf.get_mut(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), NbdError> {
        self.allow_time()?;
        let mut stream = self.stream;
        Ok(stream.write_all(bytes)?)
    }

    fn allow_time(&self) -> io::Result<()> {
        let left =
            self.deadline.and_then(|deadline| deadline.checked_duration_since(Instant::now()));
        match left {
            Some(left) if !left.is_zero() => self.stream.set_timeout(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// What requests have to look like.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    min_bytes: u32,
    max_bytes: u32,
}

impl Default for Blocks {
    /// What every server takes.
    fn default() -> Self {
        Self { min_bytes: 1, max_bytes: MAX_PAYLOAD_BYTES }
    }
}

impl Blocks {
    fn parse(mut fields: Fields<'_>) -> Result<Self, NbdError> {
        let (Some(min_bytes), Some(preferred), Some(max_bytes)) =
            (fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(NbdError::protocol("The server's information is cut off"));
        };
        if !min_bytes.is_power_of_two() || min_bytes > MAX_MIN_BLOCK_BYTES {
            return Err(NbdError::protocol(format!(
                "server minimum block size {min_bytes} is not a power of two of at most {MAX_MIN_BLOCK_BYTES}"
            )));
        }
        if !preferred.is_power_of_two() || preferred < min_bytes || max_bytes < min_bytes {
            return Err(NbdError::protocol(format!(
                "server block sizes {min_bytes}, {preferred} and {max_bytes} contradict each other"
            )));
        }
        let max_bytes = max_bytes.min(MAX_PAYLOAD_BYTES);
        let over = max_bytes.checked_rem(min_bytes).unwrap_or(0);
        Ok(Self { min_bytes, max_bytes: max_bytes.saturating_sub(over) })
    }
}

fn export(
    (len_bytes, flags): (u64, u16),
    blocks: Blocks,
    structured: bool,
    allocation: Option<u32>,
) -> Result<Export, NbdError> {
    if flags & flag::HAS_FLAGS == 0 {
        return Err(NbdError::protocol("The server's transmission flags are missing"));
    }
    if i64::try_from(len_bytes).is_err() {
        return Err(NbdError::protocol(format!("export length {len_bytes} is too large")));
    }
    Ok(Export {
        len_bytes,
        flags,
        min_block_bytes: blocks.min_bytes,
        max_payload_bytes: blocks.max_bytes,
        structured,
        allocation,
    })
}
