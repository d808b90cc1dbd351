//! The units that are under way, and the order in which they leave.

use crate::stop::{Stop, lock};
use crate::unit::Unit;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// A fixed number of units, handed out to be worked on and taken back when they are done.
///
/// Where order matters, a unit that is done waits for the ones before it. Whoever brings the one
/// that all wait for places it and those behind it; meanwhile the other threads go on working,
/// and only wait when all units are in use. Since a unit is at hand before its number is drawn,
/// the missing one is always being worked on.
pub(crate) struct Window<'a> {
    ordered: bool,
    capacity: usize,
    state: Mutex<State<'a>>,
    freed: Condvar,
}

#[derive(Default)]
struct State<'a> {
    free: Vec<Unit<'a>>,
    made: usize,
    /// Done and waiting; the first is number `next`.
    done: VecDeque<Option<Unit<'a>>>,
    next: u64,
    placing: bool,
}

impl<'a> Window<'a> {
    /// A window of `capacity` units, 1 at least.
    pub(crate) fn new(ordered: bool, capacity: usize) -> Self {
        Self { ordered, capacity: capacity.max(1), state: Mutex::default(), freed: Condvar::new() }
    }

    /// A unit to work on, as soon as there is one; `None` when the work is to end.
    pub(crate) fn acquire<E>(&self, stop: &Stop<'_, E>) -> Option<Unit<'a>> {
        let mut state = lock(&self.state);
        loop {
            if stop.is_requested() {
                return None;
            }
            // The one used last is most likely still in the cache.
            if let Some(unit) = state.free.pop() {
                return Some(unit);
            }
            if state.made < self.capacity {
                state.made += 1;
                return Some(Unit::default());
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes back a unit that nothing was done with.
    pub(crate) fn release(&self, unit: Unit<'a>) {
        lock(&self.state).free.push(unit);
        self.freed.notify_one();
    }

    /// Calls `place` for the unit, now or when those before it are done: maybe by another thread.
    /// Calls never overlap where order matters.
    pub(crate) fn complete(&self, unit: Unit<'a>, mut place: impl FnMut(&Unit<'a>)) {
        if !self.ordered {
            place(&unit);
            self.release(unit);
            return;
        }
        let mut state = lock(&self.state);
        let ahead = usize::try_from(unit.seq.saturating_sub(state.next)).unwrap_or(usize::MAX);
        // At most `capacity` units exist, so this stays as short.
        while state.done.len() <= ahead {
            state.done.push_back(None);
        }
        if let Some(slot) = state.done.get_mut(ahead) {
            *slot = Some(unit);
        }
        if state.placing {
            return;
        }
        state.placing = true;
        while let Some(Some(unit)) = state.done.front_mut().map(Option::take) {
            drop(state);
            place(&unit);
            state = lock(&self.state);
            state.done.pop_front();
            state.next += 1;
            state.free.push(unit);
            self.freed.notify_one();
        }
        state.placing = false;
    }

    /// Lets everyone who waits look whether the work is to end.
    pub(crate) fn wake(&self) {
        // With the lock held, nobody is between looking and falling asleep.
        let _state = lock(&self.state);
        self.freed.notify_all();
    }
}
