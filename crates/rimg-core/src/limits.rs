//! What an untrusted image may cost.

use crate::{Error, Result, num};

/// Upper bounds for what opening and reading an image may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of tables and names that one operation on an image may bring into memory: opening
    /// it, opening one of its snapshots, a check. Caches are of a fixed size and not counted.
    pub metadata_bytes: u64,
    /// How many images a backing chain may have.
    pub chain_depth: u32,
    /// How many internal snapshots an image may have.
    pub snapshots: u32,
    /// How often a key slot of an encrypted image may have a hash repeated for one passphrase.
    /// A billion takes a core some minutes.
    pub key_iterations: u32,
    /// Bytes of memory that a key slot of an encrypted image may ask for to try one passphrase.
    pub key_memory_bytes: u64,
}

impl Default for Limits {
    /// What the largest image that QEMU accepts needs, and no more.
    fn default() -> Self {
        Self {
            metadata_bytes: 128 << 20,
            chain_depth: 200,
            snapshots: 65_536,
            key_iterations: 1_000_000_000,
            // What cryptsetup asks for at most unless told otherwise.
            key_memory_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// A budget of [`metadata_bytes`](Self::metadata_bytes) to draw from during one operation.
    #[must_use]
    pub const fn metadata_budget(&self) -> MetadataBudget {
        MetadataBudget { limit: self.metadata_bytes, used: 0 }
    }
}

/// What is left of the bytes that an image may use for metadata.
#[derive(Debug, Clone, Copy)]
pub struct MetadataBudget {
    limit: u64,
    used: u64,
}

impl MetadataBudget {
    /// Takes `bytes` before they are allocated.
    ///
    /// # Errors
    /// [`Error::Limit`] when they are not there.
    pub fn reserve(&mut self, what: &'static str, bytes: u64) -> Result<()> {
        match self.used.checked_add(bytes) {
            Some(used) if used <= self.limit => {
                self.used = used;
                Ok(())
            }
            _ => Err(Error::Limit {
                what,
                needed: bytes,
                limit: self.limit.saturating_sub(self.used),
            }),
        }
    }

    /// Reserves and allocates a zeroed buffer.
    ///
    /// # Errors
    /// [`Error::Limit`] when the budget or the memory is not there.
    pub fn buffer(&mut self, what: &'static str, len_bytes: u64) -> Result<Vec<u8>> {
        self.reserve(what, len_bytes)?;
        let len = num::to_usize(len_bytes)?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len).map_err(|_| Error::Limit {
            what,
            needed: len_bytes,
            limit: 0,
        })?;
        buffer.resize(len, 0);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_refused_before_memory_is_touched() {
        let mut budget = Limits { metadata_bytes: 100, ..Limits::default() }.metadata_budget();
        assert_eq!(budget.buffer("table", 60).map(|b| b.len()).ok(), Some(60));
        assert!(matches!(
            budget.buffer("table", u64::MAX),
            Err(Error::Limit { what: "table", needed: u64::MAX, limit: 40 })
        ));
        assert!(budget.reserve("table", 41).is_err());
        assert!(budget.reserve("table", 40).is_ok());
    }
}
