//! The units that are under way, and the order in which they leave.

use crate::stop::{Stop, lock};
use crate::unit::Unit;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// How units get to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// In the order of their numbers, one at a time.
    Planned,
    /// As they come, one at a time: a file lets only one thread write, and the others would burn
    /// their time in the kernel.
    OneByOne,
    /// As they come, all at the same time.
    Any,
}

/// A fixed number of units, handed out to be worked on and taken back when they are done.
///
/// Where order matters, a unit that is done waits for the ones before it. Whoever brings the one
/// that all wait for places it and those behind it; meanwhile the other threads go on working,
/// and only wait when all units are in use. Since a unit is at hand before its number is drawn,
/// the missing one is always being worked on.
pub(crate) struct Window<'a> {
    order: Order,
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
    /// How many threads wait for a unit: waking nobody costs a system call.
    waiting: usize,
}

impl<'a> Window<'a> {
    /// A window of `capacity` units, 1 at least.
    pub(crate) fn new(order: Order, capacity: usize) -> Self {
        Self { order, capacity: capacity.max(1), state: Mutex::default(), freed: Condvar::new() }
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
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Takes back a unit that nothing is to be done with any more.
    pub(crate) fn release(&self, unit: Unit<'a>) {
        self.free(&mut lock(&self.state), unit);
    }

    /// Calls `place` for the unit, now or later, maybe by another thread.
    pub(crate) fn complete(&self, unit: Unit<'a>, mut place: impl FnMut(&Unit<'a>)) {
        if self.order == Order::Any {
            place(&unit);
            self.release(unit);
            return;
        }
        let mut state = lock(&self.state);
        state.put(self.order, unit);
        if state.placing {
            return;
        }
        state.placing = true;
        while let Some(unit) = state.done.front_mut().and_then(Option::take) {
            drop(state);
            place(&unit);
            state = lock(&self.state);
            state.done.pop_front();
            state.next += 1;
            self.free(&mut state, unit);
        }
        state.placing = false;
    }

    fn free(&self, state: &mut State<'a>, unit: Unit<'a>) {
        state.free.push(unit);
        let free = state.free.len();
        let woken = match free.cmp(&self.wakes_at()) {
            Ordering::Less => 0,
            Ordering::Equal => free,
            Ordering::Greater => 1,
        };
        (0..woken.min(state.waiting)).for_each(|_| self.freed.notify_one());
    }

    /// Who waits is woken when so many units are free. Waking costs the thread that writes a system
    /// call, so that it is done for two at once; who frees just one comes back and takes it.
    const fn wakes_at(&self) -> usize {
        match self.order {
            Order::OneByOne if self.capacity > 2 => 2,
            _ => 1,
        }
    }

    /// Lets everyone who waits look whether the work is to end.
    pub(crate) fn wake(&self) {
        // With the lock held, nobody is between looking and falling asleep.
        let _state = lock(&self.state);
        self.freed.notify_all();
    }
}

impl<'a> State<'a> {
    /// Lines up a unit that is done.
    fn put(&mut self, order: Order, unit: Unit<'a>) {
        if order == Order::OneByOne {
            self.done.push_back(Some(unit));
            return;
        }
        let ahead = usize::try_from(unit.seq.saturating_sub(self.next)).unwrap_or(usize::MAX);
        // There are no more units than `capacity`, so this is short.
        while self.done.len() <= ahead {
            self.done.push_back(None);
        }
        if let Some(slot) = self.done.get_mut(ahead) {
            *slot = Some(unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::{Duration, Instant};

    /// The numbers of the units in the order in which they are placed, if they are completed so.
    fn placed(order: Order, completed: &[u64]) -> Vec<u64> {
        let window = Window::new(order, completed.len());
        let mut placed = Vec::new();
        for &seq in completed {
            window.complete(Unit { seq, ..Unit::default() }, |unit| placed.push(unit.seq));
        }
        placed
    }

    #[test]
    fn units_leave_in_order_where_it_matters() {
        assert_eq!(placed(Order::Planned, &[2, 0, 1, 4, 3]), [0, 1, 2, 3, 4]);
        // Number 1 never comes.
        assert_eq!(placed(Order::Planned, &[2, 0, 4, 3]), [0]);
        assert_eq!(placed(Order::OneByOne, &[2, 0, 1]), [2, 0, 1]);
        assert_eq!(placed(Order::Any, &[2, 0, 1]), [2, 0, 1]);
    }

    #[test]
    fn no_more_units_than_the_capacity_exist_and_a_stop_wakes_who_waits() {
        let cancel = AtomicBool::new(false);
        let stop = Stop::<()>::new(&cancel);
        let window = Window::new(Order::Planned, 2);
        let first = window.acquire(&stop);
        let second = window.acquire(&stop);
        assert!(first.is_some() && second.is_some());
        std::thread::scope(|scope| {
            let third = scope.spawn(|| window.acquire(&stop).is_some());
            stop.halt();
            window.wake();
            assert_eq!(third.join().ok(), Some(false));
        });
    }

    #[test]
    fn who_waits_is_woken_as_soon_as_there_are_enough_units() {
        let cancel = AtomicBool::new(false);
        // Order, units, and how many of them have to be free.
        for (order, capacity, enough) in [
            (Order::Planned, 2, 1),
            (Order::OneByOne, 2, 1),
            (Order::OneByOne, 3, 2),
            (Order::OneByOne, 9, 2),
        ] {
            let stop = Stop::<()>::new(&cancel);
            let window = Window::new(order, capacity);
            let mut units: Vec<_> = (0..capacity).filter_map(|_| window.acquire(&stop)).collect();
            assert_eq!(units.len(), capacity);
            let woken = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..enough {
                    scope.spawn(|| {
                        // Kept: the next one gets another.
                        let unit = window.acquire(&stop);
                        woken.fetch_add(usize::from(unit.is_some()), SeqCst);
                    });
                }
                wait_for(|| lock(&window.state).waiting == enough);
                for unit in units.drain(..enough) {
                    assert_eq!(woken.load(SeqCst), 0, "{order:?} {capacity}");
                    window.release(unit);
                }
                let all = wait_for(|| woken.load(SeqCst) == enough);
                stop.halt();
                window.wake();
                assert!(all, "{order:?} {capacity}: nobody was woken");
            });
        }
    }

    /// Whether it comes true within ten seconds.
    fn wait_for(is_true: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_true() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}
