//! The kinds of images that every drill is done with.
#![allow(dead_code, reason = "some tests use all of it, so that nothing could be expected")]

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vhdx::DRIVER];

/// Blocks of 1 MiB, and a last one that is not whole.
pub(crate) fn kinds() -> Vec<Drill> {
    let small = || Drill::new(DRIVERS, (3 << 20) + 512 * 7).with("block_size", "1048576");
    vec![
        small(),
        small().with("block_state_zero", "off"),
        small().with("subformat", "fixed"),
        small().with("subformat", "fixed").with("block_state_zero", "on"),
        small().with("logical_sector_size", "4096").in_steps_of(4096),
        Drill::new(DRIVERS, 5 << 20),
        small().over_own_format(2 << 20),
        Drill::new(DRIVERS, 3 << 20).over_own_format(5 << 20),
    ]
}
