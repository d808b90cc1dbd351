//! Several threads at once.

mod common;

#[test]
fn threads_do_not_get_into_each_others_way() {
    for kind in common::kinds() {
        kind.concurrent(4, 6);
    }
}
