//! Key slots of a volume that exists.

use crate::header::{AT, Header};
use crate::image::LuksImage;
use crate::options::{self, NAMES, refuse_unknown};
use rimg_core::{Amend, AmendProgress, Error, RawOptions, Result};
use rimg_crypto::OsRandom;
use rimg_crypto::luks1::{KeySlotChange, Place};

impl Amend for LuksImage {
    fn amend(
        &self,
        options: &RawOptions,
        force: bool,
        _progress: &mut AmendProgress<'_>,
    ) -> Result<()> {
        refuse_unknown(options, options::AMEND)?;
        let file = self.header_file();
        // Read again: it may have been amended since the image was opened.
        let Header::V1(header) = Header::read(file, &self.limits)? else {
            return Err(Error::ReadOnly("LUKS version 2 is only read"));
        };
        let place = Place { header: &header, file, at: AT };
        let change = KeySlotChange::parse(&NAMES, options, place, &self.limits, force)?;
        let keys = self.keys.as_ref();
        let keys = keys.ok_or(Error::Misuse("the image was opened for inspection only"))?;
        let writer = file.writer().ok_or(Error::ReadOnly("its header was opened for reading"))?;
        change.apply(&header, &keys.master, writer, AT, &mut OsRandom)?;
        Ok(())
    }
}
