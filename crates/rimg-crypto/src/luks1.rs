//! LUKS version 1: a header with the cipher's name and eight key slots, any of which gives the
//! master key to who knows its passphrase. The specification is "LUKS1 On-Disk Format", 1.2.3.
//!
//! [`Header`] is the header and knows no file. [`Volume`] is what creating one makes:
//! the header, the master key, and what to write where. [`OptionNames`] reads the options of LUKS,
//! whatever a format calls them, and [`KeySlotChange`] is what `amend` does.

mod change;
mod create;
mod header;
mod options;
mod slot;

pub use change::{KeySlotChange, Place};
pub use create::{Iterations, NewVolume, Volume};
pub use header::{Header, KeySlot};
pub use options::{OptionNames, WantedVolume};
pub use slot::{Opened, SlotArea};

/// The header is this long (section 2.2).
pub const HEADER_BYTES: usize = 592;
/// How many key slots a header has.
pub const SLOTS: usize = 8;

/// Units of offsets in the header.
const SECTOR_BYTES: u64 = 512;
/// Key material is split into so many stripes (section 2.4); all programs use this number.
const STRIPES: u32 = 4000;
/// How many bytes of the master key's digest are kept.
const DIGEST_BYTES: usize = 20;
const SALT_BYTES: usize = 32;
/// Key material and data start at multiples of this.
const ALIGN_SECTORS: u32 = 8;
/// Nobody takes fewer iterations.
const LEAST_ITERATIONS: u32 = 1000;
/// The longest key: AES-256 in XTS.
const MAX_KEY_BYTES: u32 = 64;
