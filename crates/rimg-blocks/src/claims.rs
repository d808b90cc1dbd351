//! Who is at work on which blocks, outside the lock.

use core::ops::Range;

/// Blocks that calls have claimed for as long as they work on them outside the lock.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Vec<Claim>,
    next_id: u64,
}

/// What a claim allows others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Data is overwritten in place: others may do the same.
    Shared,
    /// Blocks get, change or lose their places: nobody else may write to them.
    Exclusive,
}

#[derive(Debug)]
struct Claim {
    id: u64,
    blocks: Range<u64>,
    kind: Kind,
}

/// What gives a claim back.
#[derive(Debug)]
#[must_use]
pub(crate) struct ClaimId(u64);

impl Claims {
    /// Whether somebody holds what a claim of this kind cannot stand beside.
    pub(crate) fn stand_against(&self, blocks: &Range<u64>, kind: Kind) -> bool {
        self.held.iter().any(|held| {
            (held.kind == Kind::Exclusive || kind == Kind::Exclusive)
                && held.blocks.start < blocks.end
                && blocks.start < held.blocks.end
        })
    }

    /// Claims blocks that [nobody stands against](Self::stand_against).
    pub(crate) fn add(&mut self, blocks: Range<u64>, kind: Kind) -> ClaimId {
        debug_assert!(!self.stand_against(&blocks, kind), "claimed twice");
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.held.push(Claim { id, blocks, kind });
        ClaimId(id)
    }

    pub(crate) fn give_back(&mut self, claim: ClaimId) {
        self.held.retain(|held| held.id != claim.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_overwriting_in_place_is_shared() {
        let mut claims = Claims::default();
        let first = claims.add(2..4, Kind::Shared);
        assert!(!claims.stand_against(&(3..5), Kind::Shared));
        assert!(claims.stand_against(&(3..5), Kind::Exclusive));
        assert!(!claims.stand_against(&(4..5), Kind::Exclusive));
        claims.give_back(first);
        let second = claims.add(3..5, Kind::Exclusive);
        assert!(claims.stand_against(&(4..5), Kind::Shared));
        claims.give_back(second);
        assert!(!claims.stand_against(&(0..u64::MAX), Kind::Exclusive));
    }
}
