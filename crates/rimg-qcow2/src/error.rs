//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "qcow2";

/// Lets an error of storage name what was being done as a whole.
pub(crate) fn doing(op: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Io { at, source, .. } => Error::Io { op, at, source },
        other => other,
    }
}

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header")]
    HeaderTruncated,
    #[error("cluster size 2^{0} is not between 512 bytes and 2 MiB")]
    ClusterBits(u32),
    #[error("header length {0} is not possible")]
    HeaderLength(u32),
    #[error("refcount entries of 2^{0} bits; the largest have 64")]
    RefcountOrder(u32),
    #[error("compression type {0} is unknown")]
    CompressionType(u8),
    #[error("compression type {kind} disagrees with the incompatible feature bit")]
    CompressionTypeBit { kind: u8 },
    #[error("extended L2 entries need clusters of 16 KiB or more")]
    ExtendedL2ClusterBits,
    #[error("encryption method {0} is unknown")]
    CryptMethod(u32),
    #[error("the image is encrypted with LUKS but does not say where its LUKS header is")]
    NoEncryptionHeader,
    #[error("offset {0:#x} is not a multiple of the cluster size")]
    Misaligned(u64),
    #[error("offset {0:#x} with length {1:#x} is beyond what a file can be")]
    OutOfRange(u64, u64),
    #[error("a disk of {0} bytes needs more entries of an L1 table than can be counted")]
    DiskTooLarge(u64),
    #[error("table of {entries} entries is too small: {needed} are needed")]
    L1TooSmall { entries: u64, needed: u64 },
    #[error("table of {0} bytes is too large")]
    TableTooLarge(u64),
    #[error("the image has no refcount table")]
    NoRefcountTable,
    #[error("name of {0} bytes is too long or outside the first cluster")]
    BackingName(u32),
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("extension {kind:#x} of {len} bytes does not fit")]
    Extension { kind: u32, len: u64 },
    #[error("{0} snapshots are too many")]
    TooManySnapshots(u32),
    #[error("Too much extra metadata in snapshot table entry {0}")]
    SnapshotExtra(u32),
    #[error("Snapshot table is too big: {0} snapshots overhang")]
    SnapshotTableTooBig(u32),
    #[error("the file ends within the table")]
    TableTruncated,
    #[error("the zero flag is set in {0:#018x}, but version 2 has no such flag")]
    ZeroFlagInVersion2(u64),
    #[error("offset {0:#x} lies behind the end of the file")]
    BehindEnd(u64),
    #[error("a subcluster is marked allocated as well as zero in {0:#018x}")]
    SubclusterBitmap(u64),
    #[error("a compressed cluster in an image with an external data file")]
    CompressedInDataFile,
    #[error("offset {host:#x} in the external data file is not the guest's offset, {guest:#x}")]
    DataFileOffset { host: u64, guest: u64 },
    #[error("entry of {0} bytes is too long")]
    EntryTooLong(u64),
    #[error("refcount of the cluster at {0:#x} is 0 though it is in use")]
    RefcountZero(u64),
    #[error("the cluster at {0:#x} is in use, though no refcount block counts it")]
    NotCounted(u64),
    #[error("the cluster at {0:#x} is in use, though it lies behind all that can be counted")]
    NotCountable(u64),
    #[error("the refcount block at {0:#x} is used by several entries")]
    SharedRefcountBlock(u64),
    #[error("refcounts have to be built anew, which repairing leaks does not do")]
    RefcountsMustBeRebuilt,
    #[error("{0} things are wrong that cannot be repaired")]
    NotRepaired(u64),
    #[error("the L2 table at {0:#x} is used by several entries of one L1 table")]
    SharedL2Table(u64),
    #[error("metadata at {0:#x} would be overwritten")]
    Overlap(u64),
    #[error("reserved bits are set in {0:#x}")]
    ReservedBits(u64),
    #[error("the cluster at {0:#x} is used by several structures")]
    SharedCluster(u64),
    #[error("bitmap type {0} is unknown")]
    BitmapType(u8),
    #[error("granularity 2^{0} is not between 512 bytes and 2 GiB")]
    BitmapGranularity(u8),
    #[error("name of {0} bytes is empty or too long")]
    BitmapName(u16),
    #[error("two bitmaps have the same name")]
    BitmapNameTwice,
    #[error("table of {entries} entries does not fit the disk: {needed} are needed")]
    BitmapTableSize { entries: u64, needed: u64 },
}

impl CorruptKind {
    /// The full error: what is wrong, with which field, at which offset of the file.
    pub(crate) fn at(self, structure: &'static str, field: &'static str, offset: u64) -> Error {
        Error::Corrupt {
            format: FORMAT,
            at: Location { structure, field, offset: HostOffset(offset) },
            source: Box::new(self),
        }
    }
}

/// The kind of corruption that an error is about, when it comes from a qcow2 image.
pub(crate) fn kind_of(error: &Error) -> Option<&CorruptKind> {
    match error {
        Error::Corrupt { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
