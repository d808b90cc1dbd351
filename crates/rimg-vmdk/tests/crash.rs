//! What a crash leaves of an image.

mod common;

use common::kinds;

#[test]
fn a_crash_loses_only_what_was_not_synced() {
    for kind in kinds() {
        kind.crash(20, 20);
    }
}
