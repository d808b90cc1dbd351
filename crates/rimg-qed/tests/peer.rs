//! What rimg writes, QEMU reads, checks and goes on writing, and rimg reads that.

use rimg_core::FormatDriver;
use rimg_testkit::drill::{Drill, Qemu};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qed::DRIVER];

const QEMU: Qemu = Qemu { checks: true, zeroes: true };

type Options = &'static [(&'static str, &'static str)];

/// Options, and sizes that the disk gets one after the other.
const IMAGES: &[(Options, &[u64])] = &[
    (&[], &[5 << 20]),
    (&[("cluster_size", "4096"), ("table_size", "2")], &[5 << 20, 9 << 20, 3 << 20, 6 << 20]),
    (&[("cluster_size", "8192"), ("table_size", "8")], &[(1 << 20) + 512, 300 << 10, 1 << 20]),
];

#[test]
fn qemu_goes_on_with_what_rimg_wrote() {
    for (options, sizes) in IMAGES {
        Drill::new(DRIVERS, sizes[0]).with_all(options).qemu_goes_on(&sizes[1..], QEMU);
    }
}
