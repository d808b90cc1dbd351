//! Key slots of an image that exists: filled, emptied. The key of the data stays what it is.

use super::{Encryption, Method, read_luks};
use crate::header::Header;
use crate::image::Qcow2Image;
use rimg_core::{Error, RawOptions, Result};
use rimg_crypto::OsRandom;
use rimg_crypto::luks1::{KeySlotChange, OptionNames, Place};

impl Qcow2Image {
    /// What the `encrypt.*` options of `amend` ask for, if any.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of `qemu-img amend`.
    pub(crate) fn key_slot_change(
        &self,
        raw: &RawOptions,
        header: &Header,
        force: bool,
    ) -> Result<Option<KeySlotChange>> {
        if !raw.iter().any(|(name, _)| name.starts_with(super::PREFIX)) {
            return Ok(None);
        }
        match self.encryption.as_deref() {
            None => refuse("Can't amend encryption options - encryption not present"),
            Some(Encryption { method: Method::Aes, .. }) => {
                refuse("Only LUKS encryption options can be amended")
            }
            Some(Encryption { method: Method::Luks(_), .. }) => {
                let file = self.file.as_ref();
                let (luks, at) = read_luks(file, header)?;
                let place = Place { header: &luks, file, at };
                KeySlotChange::parse(&OptionNames::ENCRYPT, raw, place, &self.limits, force)
                    .map(Some)
            }
        }
    }

    /// Carries it out.
    pub(crate) fn change_key_slots(&self, header: &Header, change: &KeySlotChange) -> Result<()> {
        let (luks, at) = read_luks(self.file.as_ref(), header)?;
        let no_key = Error::Misuse("the image was opened for inspection only");
        let encryption = self.encryption.as_deref();
        let key = encryption.and_then(|e| e.master_key.as_ref()).ok_or(no_key)?;
        change.apply(&luks, key, self.file_writer()?, at, &mut OsRandom)?;
        Ok(())
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option: "encrypt", reason: reason.into() })
}
