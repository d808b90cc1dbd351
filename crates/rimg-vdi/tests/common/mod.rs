//! What the tests share.

use rimg_core::FormatDriver;

pub static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vdi::DRIVER];
