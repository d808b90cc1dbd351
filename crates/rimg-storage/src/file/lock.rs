//! The byte-range locks by which QEMU's programs keep out of each other's way.
//!
//! Each permission has two bytes of the file: 100 + its number is locked by those who use it,
//! 200 + its number by those who do not let others use it. All locks are shared (read) locks on
//! the open file description, so nobody ever waits: after taking its own, a program asks whether
//! anybody else holds the opposite byte of one of them.
//!
//! | opened | locked bytes |
//! |---|---|
//! | for reading | 100; 201, 203 |
//! | for reading, shared | 100 |
//! | for writing | 100, 101, 103; 201, 203 |
//! | for writing, shared | 100, 101, 103 |
//!
//! A raw image is shared where it is only looked at, as by QEMU. QEMU lets others write to one that
//! it writes to itself, too (it locks 100 and 101 only), as it leaves the decision to the guest's
//! devices. There is no guest here that could make it.

use super::Locking;
use core::fmt;
use core::ops::Range;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::io;

/// All bytes that stand for something.
const LOCK_BYTES: Range<i64> = 100..300;

/// Another process uses the file in a way that does not go together with what was asked.
///
/// Comes inside an [`io::Error`] of kind [`io::ErrorKind::ResourceBusy`]; [`LockConflict::of`]
/// finds it there. It reads as QEMU's own words do, which go on with
/// `Is another process using the image [FILE]?` in a second line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockConflict {
    /// What could not be had.
    pub permission: Permission,
    /// Somebody uses the permission, which was not to be shared, rather than forbids it.
    pub shared: bool,
}

impl LockConflict {
    /// The conflict that `error` is about.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for LockConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = if self.shared { "shared " } else { "" };
        write!(f, "Failed to get {shared}\"{}\" lock", self.permission)
    }
}

impl std::error::Error for LockConflict {}

/// What one may want to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read it and find it whole.
    ConsistentRead,
    /// Write to it.
    Write,
    /// Change its length.
    Resize,
}

impl Permission {
    const fn number(self) -> i64 {
        match self {
            Self::ConsistentRead => 0,
            Self::Write => 1,
            Self::Resize => 3,
        }
    }

    const fn used_byte(self) -> i64 {
        100 + self.number()
    }

    const fn unshared_byte(self) -> i64 {
        200 + self.number()
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::Resize => "resize",
        })
    }
}

/// Takes the locks for a file that is open for reading, and for writing if `writable`. They go
/// with [`unlock`], or when the file is closed everywhere. Does nothing where the file system has no such locks.
pub(super) fn lock(file: &File, writable: bool, locking: Locking) -> io::Result<()> {
    let used: &[Permission] = match (locking, writable) {
        (Locking::Off, _) => &[],
        (_, false) => &[Permission::ConsistentRead],
        (_, true) => &[Permission::ConsistentRead, Permission::Write, Permission::Resize],
    };
    let unshared: &[Permission] = match locking {
        Locking::Off | Locking::Shared => &[],
        Locking::Exclusive => &[Permission::Write, Permission::Resize],
    };
    let taken = take(file, used, unshared);
    if taken.is_err() {
        // What was taken before the conflict was seen must not keep others out.
        let _ = unlock(file);
    }
    taken
}

/// Gives all locks back.
pub(super) fn unlock(file: &File) -> io::Result<()> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(libc::F_UNLCK, LOCK_BYTES)?)) {
        Err(errno) if !has_no_locks(errno) => Err(errno.into()),
        _ => Ok(()),
    }
}

fn take(file: &File, used: &[Permission], unshared: &[Permission]) -> io::Result<()> {
    for &permission in used {
        if !set(file, permission.used_byte(), LockConflict { permission, shared: false })? {
            return Ok(());
        }
    }
    for &permission in unshared {
        if !set(file, permission.unshared_byte(), LockConflict { permission, shared: true })? {
            return Ok(());
        }
    }
    for &permission in used {
        if is_held(file, permission.unshared_byte())? {
            return Err(conflict(LockConflict { permission, shared: false }));
        }
    }
    for &permission in unshared {
        if is_held(file, permission.used_byte())? {
            return Err(conflict(LockConflict { permission, shared: true }));
        }
    }
    Ok(())
}

/// Takes a lock; `Ok(false)` where there are none.
fn set(file: &File, byte: i64, in_the_way: LockConflict) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(libc::F_RDLCK, byte..byte + 1)?)) {
        Ok(_) => Ok(true),
        // Somebody holds an exclusive lock: no program of QEMU's, but not to be ignored.
        Err(Errno::EAGAIN | Errno::EACCES) => Err(conflict(in_the_way)),
        Err(errno) if has_no_locks(errno) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether somebody else holds a lock on a byte.
fn is_held(file: &File, byte: i64) -> io::Result<bool> {
    let mut found = flock(libc::F_WRLCK, byte..byte + 1)?;
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)) {
        Ok(_) => Ok(i32::from(found.l_type) != libc::F_UNLCK),
        Err(errno) if has_no_locks(errno) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn has_no_locks(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP)
}

fn conflict(conflict: LockConflict) -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, conflict)
}

fn flock(kind: i32, bytes: Range<i64>) -> io::Result<libc::flock> {
    let short = |n: i32| i16::try_from(n).map_err(io::Error::other);
    Ok(libc::flock {
        l_type: short(kind)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: bytes.start,
        l_len: bytes.end - bytes.start,
        // Locks on open file descriptions have no owner but the description.
        l_pid: 0,
    })
}
