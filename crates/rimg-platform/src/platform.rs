//! The platforms, and what to make for them.

use core::fmt;

/// A cloud or a hypervisor that takes disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Platform {
    /// Microsoft Azure.
    Azure,
    /// Amazon EC2, through VM Import.
    Aws,
    /// Google Compute Engine.
    Gcp,
    /// VMware vSphere and ESXi.
    Vsphere,
    /// Microsoft Hyper-V.
    HyperV,
    /// Oracle `VirtualBox`.
    VirtualBox,
    /// `OpenStack`, through Glance.
    OpenStack,
}

/// What to make for a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// The format to convert to; `None` where the platform takes a package of its own, which
    /// [`write_archive`](crate::write_archive) makes.
    pub format: Option<&'static str>,
    /// The creation options of that format.
    pub options: &'static [(&'static str, &'static str)],
    /// What the size of the disk is a multiple of, in bytes.
    pub size_multiple_bytes: u64,
    /// Whether the file must not have holes.
    pub without_holes: bool,
    /// What its file's name ends in.
    pub extension: &'static str,
}

const SECTOR_BYTES: u64 = 512;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Platform {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Azure,
        Self::Aws,
        Self::Gcp,
        Self::Vsphere,
        Self::HyperV,
        Self::VirtualBox,
        Self::OpenStack,
    ];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Vsphere => "vsphere",
            Self::HyperV => "hyperv",
            Self::VirtualBox => "virtualbox",
            Self::OpenStack => "openstack",
        }
    }

    /// The platform with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|platform| platform.name() == name)
    }

    /// What to make for it.
    #[must_use]
    pub const fn recipe(self) -> Recipe {
        match self {
            // Without `force_size` the disk would be rounded to whole cylinders.
            Self::Azure => Recipe {
                size_multiple_bytes: MIB,
                ..Recipe::image("vpc", &[("subformat", "fixed"), ("force_size", "on")], "vhd")
            },
            Self::Aws | Self::Vsphere => Recipe::image("vmdk", STREAM, "vmdk"),
            Self::Gcp => Recipe {
                format: None,
                size_multiple_bytes: GIB,
                ..Recipe::image("raw", &[], "tar.gz")
            },
            Self::HyperV => Recipe {
                without_holes: true,
                ..Recipe::image("vhdx", &[("subformat", "dynamic")], "vhdx")
            },
            Self::VirtualBox => Recipe::image("vdi", &[("static", "off")], "vdi"),
            Self::OpenStack => Recipe::image("qcow2", &[("compat", "1.1")], "qcow2"),
        }
    }
}

const STREAM: &[(&str, &str)] = &[("subformat", "streamOptimized"), ("adapter_type", "lsilogic")];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Recipe {
    const fn image(
        format: &'static str,
        options: &'static [(&'static str, &'static str)],
        extension: &'static str,
    ) -> Self {
        Self {
            format: Some(format),
            options,
            size_multiple_bytes: SECTOR_BYTES,
            without_holes: false,
            extension,
        }
    }

    /// The size of a disk for the platform that holds `bytes`; `None` when there is none.
    #[must_use]
    pub const fn size_for(&self, bytes: u64) -> Option<u64> {
        // No disk is empty.
        let bytes = if bytes == 0 { 1 } else { bytes };
        bytes.checked_next_multiple_of(self.size_multiple_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_platform() {
        for platform in Platform::ALL {
            assert_eq!(Platform::from_name(platform.name()), Some(*platform));
        }
        assert_eq!(Platform::from_name("Azure"), None);
    }

    #[test]
    fn sizes_are_rounded_up_as_the_platform_wants() {
        let size = |platform: Platform, bytes| platform.recipe().size_for(bytes);
        assert_eq!(size(Platform::Azure, MIB + 1), Some(2 * MIB));
        assert_eq!(size(Platform::Azure, 0), Some(MIB));
        assert_eq!(size(Platform::Gcp, 3 * GIB), Some(3 * GIB));
        assert_eq!(size(Platform::Gcp, 3 * GIB + 512), Some(4 * GIB));
        assert_eq!(size(Platform::VirtualBox, 513), Some(1024));
        assert_eq!(size(Platform::Gcp, u64::MAX), None);
    }
}
