//! How a file is opened.

/// How a file is opened; the default is an existing file, read-only, locked against writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOptions {
    /// Whether it will be written, too.
    pub writable: bool,
    /// What to do when it is not there, or there already.
    pub creation: Creation,
    /// How the operating system's cache is used.
    pub cache: CacheMode,
    /// What other processes may do meanwhile.
    pub locking: Locking,
}

impl FileOptions {
    /// An existing file, to be read only.
    #[must_use]
    pub const fn read() -> Self {
        Self {
            writable: false,
            creation: Creation::Existing,
            cache: CacheMode::Writeback,
            locking: Locking::Exclusive,
        }
    }

    /// An existing file, to be read and written.
    #[must_use]
    pub const fn write() -> Self {
        Self { writable: true, ..Self::read() }
    }

    /// A file that is made, or emptied when it is there and nobody uses it.
    #[must_use]
    pub const fn create() -> Self {
        Self { creation: Creation::CreateOrEmpty, ..Self::write() }
    }

    /// As `self`, with another cache mode.
    #[must_use]
    pub const fn cache(self, cache: CacheMode) -> Self {
        Self { cache, ..self }
    }

    /// As `self`, with other locks.
    #[must_use]
    pub const fn locking(self, locking: Locking) -> Self {
        Self { locking, ..self }
    }
}

/// What to do when a file is not there, or there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Creation {
    /// It has to be there.
    #[default]
    Existing,
    /// It is made when it is not there, and emptied when it is: after the locks were had, so that
    /// an image in use stays whole. A block device keeps its contents.
    CreateOrEmpty,
    /// It must not be there.
    CreateNew,
}

/// How the operating system's cache is used, by the names of qemu-img's `-t` and `-T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// `none`: past the page cache (`O_DIRECT`); durable after a flush.
    None,
    /// `writethrough`: through the page cache; every write is durable when it returns.
    Writethrough,
    /// `writeback`: through the page cache; durable after a flush.
    #[default]
    Writeback,
    /// `directsync`: past the page cache; every write is durable when it returns.
    Directsync,
    /// `unsafe`: through the page cache; a flush does nothing, so that a crash of the machine may
    /// lose anything.
    Unsafe,
}

impl CacheMode {
    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" | "off" => Self::None,
            "writethrough" => Self::Writethrough,
            "writeback" => Self::Writeback,
            "directsync" => Self::Directsync,
            "unsafe" => Self::Unsafe,
            _ => return None,
        })
    }

    /// The mode's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Writethrough => "writethrough",
            Self::Writeback => "writeback",
            Self::Directsync => "directsync",
            Self::Unsafe => "unsafe",
        }
    }

    /// Whether the page cache is bypassed.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Whether every write is durable when it returns.
    #[must_use]
    pub const fn is_write_through(self) -> bool {
        matches!(self, Self::Writethrough | Self::Directsync)
    }
}

/// What other processes may do with a file meanwhile, as far as they ask: QEMU and rimg do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locking {
    /// No locks are taken or looked at.
    Off,
    /// Others may read, none may write; opening fails when somebody writes, or when the file is
    /// opened for writing and somebody forbids that.
    #[default]
    Exclusive,
    /// Others may do what they like (`-U`); opening fails only when somebody forbids what is
    /// wanted here.
    Shared,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_modes_are_known_by_their_names() {
        for mode in [
            CacheMode::None,
            CacheMode::Writethrough,
            CacheMode::Writeback,
            CacheMode::Directsync,
            CacheMode::Unsafe,
        ] {
            assert_eq!(CacheMode::from_name(mode.name()), Some(mode));
        }
        assert_eq!(CacheMode::from_name("bogus"), None);
    }
}
