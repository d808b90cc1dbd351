//! At every point between two syncs, losing any of the writes leaves an image that opens, replays
//! its log, and holds all that was synced.

mod common;

#[test]
fn a_crash_loses_only_what_was_not_synced() {
    for kind in common::kinds() {
        kind.crash(3, 8);
    }
}
