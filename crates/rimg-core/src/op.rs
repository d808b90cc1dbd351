//! What was being done when storage failed, where callers tell one from the other: some values of
//! `op` in [`Error::Io`](crate::Error::Io). All others are for people alone.

/// Opening a file.
pub const OPEN: &str = "open";
/// Creating a file.
pub const CREATE: &str = "create";
/// Making a file longer.
pub const EXTEND_FILE: &str = "extend file";
/// Asking the file system for space, for [`Preallocation`](crate::Preallocation).
pub const RESERVE_SPACE: &str = "reserve space";
/// Filling space with zeroes, for [`Preallocation::Full`](crate::Preallocation::Full).
pub const WRITE_RESERVED_ZEROES: &str = "write zeroes to reserve space";
/// Reading the header of LUKS, of a file of its own or within another format.
pub const READ_LUKS_HEADER: &str = "read LUKS header";
/// Reading the header of qcow2.
pub const READ_QCOW2_HEADER: &str = "read qcow2 header";
/// Reading the refcount table of qcow2.
pub const READ_REFCOUNT_TABLE: &str = "read refcount table";
/// Writing the refcount table of qcow2.
pub const WRITE_REFCOUNT_TABLE: &str = "write refcount table";
/// Writing a refcount block of qcow2.
pub const WRITE_REFCOUNT_BLOCK: &str = "write refcount block";
/// Making room for more in the L1 table of qcow2.
pub const GROW_L1_TABLE: &str = "grow L1 table";
/// Filling a cluster of qcow2 with zeroes.
pub const ZERO_CLUSTER: &str = "zero cluster";
/// The first step of deleting an internal snapshot: nothing has changed.
pub const REMOVE_SNAPSHOT: &str = "remove snapshot from table";
/// The second step of deleting an internal snapshot: it is gone, what it had may be leaked.
pub const FREE_SNAPSHOT: &str = "free clusters of snapshot";
/// The last step of deleting an internal snapshot.
pub const UPDATE_COPIED_FLAGS: &str = "update COPIED flags";
