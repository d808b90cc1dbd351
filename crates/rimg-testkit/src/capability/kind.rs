//! The kinds of images that a table has columns for.

use rimg_core::{FormatDriver, RawOptions};

/// A kind of image: how to make one, or one that was made.
#[derive(Debug, Clone)]
pub struct Kind {
    name: &'static str,
    pub(super) drivers: &'static [&'static dyn FormatDriver],
    pub(super) format: &'static str,
    /// `None` where no options ask for such an image.
    pub(super) create: Option<RawOptions>,
    pub(super) open: RawOptions,
    pub(super) amend: RawOptions,
    pub(super) unit_bytes: u64,
    pub(super) is_over_own_format: bool,
    pub(super) given: Option<Given>,
}

/// An image that is there.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// Its files by their names; the first is the image.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// What the guest sees.
    pub(super) disk: Vec<u8>,
}

impl Kind {
    /// Images that the first of `drivers` creates.
    #[must_use]
    pub fn created(name: &'static str, drivers: &'static [&'static dyn FormatDriver]) -> Self {
        Self {
            name,
            drivers,
            format: drivers[0].format().name,
            create: Some(RawOptions::new()),
            open: RawOptions::new(),
            amend: RawOptions::new(),
            unit_bytes: 64 << 10,
            is_over_own_format: false,
            given: None,
        }
    }

    /// An image of `format` that was made otherwise: its files, of which the first is the image, and
    /// the disk that they hold. It starts with data.
    #[must_use]
    pub fn given(
        name: &'static str,
        format: &'static str,
        drivers: &'static [&'static dyn FormatDriver],
        files: &[(&str, Vec<u8>)],
        disk: Vec<u8>,
    ) -> Self {
        let unit_bytes = rimg_core::num::to_u64(disk.len()) / 16 / 512 * 512;
        assert!(unit_bytes > 0, "{name} is too small");
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
        let given = Some(Given { files: files.collect(), disk });
        Self { format, create: None, unit_bytes, given, ..Self::created(name, drivers) }
    }

    /// With this creation option. For an image that is given: what would ask for one like it.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.create.get_or_insert_default().set(name, value);
        self
    }

    /// An image that is given, although one might expect creation without any options to make it.
    #[must_use]
    pub fn asked_for_without_options(mut self) -> Self {
        self.create.get_or_insert_default();
        self
    }

    /// With these options, and the secrets they name, at every opening; the secrets at creation,
    /// too.
    #[must_use]
    pub fn opened_with(mut self, options: RawOptions) -> Self {
        if let Some(create) = &mut self.create {
            create.add_secrets_of(&options);
        }
        self.open = options;
        self
    }

    /// What an existing image is brought to.
    #[must_use]
    pub fn amended_with(mut self, options: RawOptions) -> Self {
        self.amend = options;
        self
    }

    /// The format allocates, and discards, no less than so many bytes: 64 KiB unless said. The disk
    /// is 16 times as large.
    #[must_use]
    pub fn in_units_of(mut self, bytes: u64) -> Self {
        self.unit_bytes = bytes;
        self
    }

    /// Over another image of the same format.
    #[must_use]
    pub fn over_own_format(mut self) -> Self {
        self.is_over_own_format = true;
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn driver(&self) -> &'static dyn FormatDriver {
        let found = self.drivers.iter().find(|driver| driver.format().name == self.format);
        *found.unwrap_or_else(|| panic!("no format '{}'", self.format))
    }
}
