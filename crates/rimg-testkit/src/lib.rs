#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests fail by panicking")]

pub mod bounds;
pub mod capability;
pub mod digest;
mod dir;
pub mod drill;
pub mod fuzz;
pub mod golden;
pub mod guest;
pub mod legacy;
pub mod libyal;
mod model;
pub mod nbd;
pub mod peer;
pub mod qcow2;
mod recording;
mod rng;
pub mod small_disk;
pub mod storages;
pub mod vhdx;
pub mod vmdk;

pub use dir::{MemoryDir, PlainImage};
pub use model::ModelDisk;
pub use recording::{CrashState, CrashStates, Fate, Record, RecordingStorage};
pub use rimg_storage::MemoryStorage;
pub use rng::Rng;
