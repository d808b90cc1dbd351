//! Random changes against plain bytes.

mod common;

#[test]
fn does_what_the_model_does() {
    for kind in common::kinds() {
        kind.model(6, 30);
    }
}
