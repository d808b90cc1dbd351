//! What the tests share.

use rimg_core::FormatDriver;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vdi::DRIVER];
