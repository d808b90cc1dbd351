//! Reading and writing images that map blocks of one size to places in a file.
//!
//! Most formats are a table that says, for each block (grain, cluster) of the guest's disk, where
//! in the file it lies. They differ in how the table is laid out and in what else has to be
//! written when it changes; they do not differ in how a guest's write becomes a block: find a
//! place, fill what the write leaves open from below, let nobody else fill the same block
//! meanwhile, let the table point there, make data durable before the table that refers to it.
//! That part is [`Blocks`]. A format brings a [`BlockMap`]: bookkeeping without I/O of guest data,
//! without locks, and without syncs.
//!
//! # What [`Blocks`] promises
//! - Reads and writes find out under a lock where the bytes are, and move them outside it.
//! - Writes to disjoint ranges run at the same time, also where they share a block.
//! - Nothing in the file refers to what is not durable: a flush syncs the data, then writes what
//!   the map hands out stage by stage, with a sync after each. Losing any subset of the writes
//!   between two syncs leaves places that nobody refers to, at worst.
//! - A place that was given back is used again only when the table that let go of it is durable,
//!   and when everybody who might still be reading there is done.
//! - Metadata that waits to be written is bounded: when the map says that it holds
//!   [`DIRTY_BYTES`], it is flushed.
//!
//! # What a map must keep to
//! - [`BlockMap::place`] hands out each place once, until it comes back through
//!   [`BlockMap::unplace`] or [`BlockMap::reuse`].
//! - What [`BlockMap::take_dirty`] hands out is complete by itself: once all its stages are
//!   written, the file describes what the map describes.
//! - An error leaves the map as it was.
#![forbid(unsafe_code)]

mod claims;
mod encoded;
mod engine;
mod flush;
mod map;
mod read;
mod readers;
mod resize;
mod tables;
mod write;
mod zero;

pub use engine::{Below, Blocks, Setup};
pub use flush::DIRTY_BYTES;
pub use map::{BlockMap, Change, Freed, Place, SectorCipher, Stage, Zeroed};
pub use tables::{EntryOrder, Table, TableCache};
