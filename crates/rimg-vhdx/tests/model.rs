//! Random changes against plain bytes.

mod common;

#[test]
fn does_what_the_model_does() {
    for kind in common::kinds() {
        kind.model(6, 30);
    }
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    for kind in common::kinds() {
        kind.failing(10);
    }
}
