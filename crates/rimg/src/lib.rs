#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod chain;
mod create;
mod error;
mod extents;
mod given;
mod guarded_raw;
mod image_storage;
mod map;
mod open;
mod options;
mod policy;
mod probe;
mod registry;
mod target;

pub use create::{Creator, Plan};
pub use error::{Action, FileError};
pub use extents::{ChainExtent, ChainExtents};
pub use image_storage::ImageStorage;
pub use map::{MapEntries, MapEntry};
pub use open::{Layer, OpenedImage, Opener};
pub use options::parse_size;
pub use policy::{
    DenyAll, Grant, ListedFiles, LocalFiles, Policy, WithinDirectory, local_path, resolve_name,
};
pub use probe::{Probed, probe};
pub use registry::{FORMATS, Formats, backing_driver, driver};

pub use rimg_core::{
    Amend, AmendProgress, BitmapEdit, BitmapInfo, Bitmaps, BlockImage, BoxError, Check,
    CheckSummary, Codec, CompressedWrite, Dependency, DependencyRole, EncodedCluster, Error,
    Extent, ExtentKind, FileHoles, FileOffset, Finding, FindingKind, FormatDriver, FormatInfo,
    GuestOffset, HostOffset, ImageIdentity, ImageInfo, ImageWrite, InFile, InfoValue, Limits,
    Location, Match, Measure, Measured, NewSnapshot, OptionKind, OptionSpec, Overlay,
    Preallocation, RawOptions, Repair, Resize, Result, Secret, SnapshotEdit, SnapshotInfo,
    SnapshotSelector, Snapshots, Storage, StorageRun, StorageWrite, Uuid, Zeroing, op,
};
#[cfg(feature = "mmap")]
pub use rimg_storage::MmapStorage;
pub use rimg_storage::{
    Access, CacheMode, Creation, DEBUG_EVENTS, DebugAction, DebugRule, DebugStorage, FileOptions,
    FileStorage, Injection, LockConflict, Locking, MemoryStorage, NbdAddress, NbdError, NbdOptions,
    NbdServer, NbdStorage, NullStorage, Permission, QuorumStorage,
};
