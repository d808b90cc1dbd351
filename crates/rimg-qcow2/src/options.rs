//! Creation options.

use rimg_core::OptionSpec;

pub(crate) const SPECS: &[OptionSpec] = &[];
