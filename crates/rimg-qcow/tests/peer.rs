//! What rimg writes, QEMU reads, checks and goes on writing, and rimg reads that.

use rimg_core::FormatDriver;
use rimg_testkit::drill::{Drill, Qemu};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];

const QEMU: Qemu = Qemu { checks: false, zeroes: true };

type Options = &'static [(&'static str, &'static str)];

/// Options, and sizes that the disk gets one after the other.
const IMAGES: &[(Options, &[u64])] = &[
    (&[], &[5 << 20]),
    (&[], &[1 << 20, 9 << 20, 3 << 20, 6 << 20]),
    (&[], &[(1 << 20) + 512, 200 << 10, 5 << 20]),
];

#[test]
fn qemu_goes_on_with_what_rimg_wrote() {
    for (options, sizes) in IMAGES {
        Drill::new(DRIVERS, sizes[0]).with_all(options).qemu_goes_on(&sizes[1..], QEMU);
    }
}
