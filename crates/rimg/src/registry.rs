//! Which formats there are.

use rimg_core::FormatDriver;

/// A list of formats to choose from, in the order in which help shows them.
pub type Formats = &'static [&'static dyn FormatDriver];

/// All formats that were compiled in; one line each.
pub static FORMATS: Formats = &[
    #[cfg(feature = "legacy")]
    &rimg_legacy::BOCHS,
    #[cfg(feature = "legacy")]
    &rimg_legacy::CLOOP,
    #[cfg(feature = "legacy")]
    &rimg_legacy::DMG,
    #[cfg(feature = "luks")]
    &rimg_luks::DRIVER,
    #[cfg(feature = "parallels")]
    &rimg_parallels::DRIVER,
    #[cfg(feature = "qcow")]
    &rimg_qcow::DRIVER,
    #[cfg(feature = "qcow2")]
    &rimg_qcow2::DRIVER,
    #[cfg(feature = "qed")]
    &rimg_qed::DRIVER,
    &rimg_raw::DRIVER,
    #[cfg(feature = "vdi")]
    &rimg_vdi::DRIVER,
    #[cfg(feature = "vhdx")]
    &rimg_vhdx::DRIVER,
    #[cfg(feature = "vmdk")]
    &rimg_vmdk::DRIVER,
    #[cfg(feature = "vhd")]
    &rimg_vhd::DRIVER,
];

/// The driver of the format with this name, as in `-f` and `-O`.
#[must_use]
pub fn driver(formats: Formats, name: &str) -> Option<&'static dyn FormatDriver> {
    formats.iter().copied().find(|driver| driver.format().name == name)
}

/// QEMU's names for plain files and devices, which images give as the format of the one below.
const PLAIN: [&str; 3] = ["file", "host_device", "host_cdrom"];

/// The driver that an image means by the name of the format below it.
#[must_use]
pub fn backing_driver(formats: Formats, name: &str) -> Option<&'static dyn FormatDriver> {
    driver(formats, if PLAIN.contains(&name) { "raw" } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for wanted in FORMATS {
            let name = wanted.format().name;
            let same = FORMATS.iter().filter(|driver| driver.format().name == name);
            assert_eq!(same.count(), 1, "{name}");
            assert!(driver(FORMATS, name).is_some_and(|found| found.format() == wanted.format()));
        }
        assert!(driver(FORMATS, "nope").is_none());
        assert!(driver(FORMATS, "raw").is_some());
    }

    #[test]
    fn plain_files_are_raw() {
        for name in PLAIN {
            assert!(driver(FORMATS, name).is_none());
            assert_eq!(backing_driver(FORMATS, name).unwrap().format().name, "raw");
        }
        assert_eq!(backing_driver(FORMATS, "qed").unwrap().format().name, "qed");
        assert!(backing_driver(FORMATS, "nbd").is_none());
    }
}
