//! Key slots of an image that exists: filled, emptied. The key of the data stays what it is.
//!
//! A slot's key material is durable before the header says that it is there, and destroyed only
//! when the header has forgotten it for good.
#![warn(clippy::indexing_slicing)]

use super::{Encryption, Method, read_luks, secret};
use crate::header::Header;
use crate::image::Qcow2Image;
use rimg_core::{Error, Limits, RawOptions, Result, Secret, Storage, num};
use rimg_crypto::OsRandom;
use rimg_crypto::luks1::{self, Iterations, NewVolume, SLOTS, SlotArea};

const STATE: &str = "encrypt.state";
const KEYSLOT: &str = "encrypt.keyslot";
const NEW_SECRET: &str = "encrypt.new-secret";
const OLD_SECRET: &str = "encrypt.old-secret";
const ITER_TIME: &str = "encrypt.iter-time";

/// What shall become of key slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySlotChange {
    Fill { slot: usize, passphrase: Secret, iter_time_ms: u64 },
    Empty { slots: Vec<usize> },
}

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
                let (luks, at) = read_luks(self.file.as_ref(), header)?;
                let file = self.file.as_ref();
                let slots = Slots { luks: &luks, file, at, limits: &self.limits, raw, force };
                slots.change().map(Some)
            }
        }
    }

    /// Carries it out.
    pub(crate) fn change_key_slots(&self, header: &Header, change: &KeySlotChange) -> Result<()> {
        let (mut luks, at) = read_luks(self.file.as_ref(), header)?;
        let file = self.file_writer()?;
        let write = |bytes: &[u8], offset: u64| {
            let offset = at.saturating_add(offset);
            file.write_all_at(bytes, offset).map_err(Error::io("write LUKS header", offset))?;
            file.sync().map_err(Error::io("flush", 0))
        };
        match change {
            KeySlotChange::Fill { slot, passphrase, iter_time_ms } => {
                let no_key = Error::Misuse("the image was opened for inspection only");
                let encryption = self.encryption.as_deref();
                let key = encryption.and_then(|e| e.master_key.as_ref()).ok_or(no_key)?;
                let volume = NewVolume { cipher: luks.cipher()?, hash: luks.hash()? };
                let iterations = Iterations::measured(&volume, *iter_time_ms)?.key_slot;
                let random = &mut OsRandom;
                let SlotArea { offset, bytes } =
                    luks.fill_slot(*slot, passphrase, key, iterations, random)?;
                write(&bytes, offset)?;
                write(&luks.encode(), 0)
            }
            KeySlotChange::Empty { slots } => {
                let areas: Result<Vec<SlotArea>> =
                    slots.iter().map(|slot| luks.erase_slot(*slot, &mut OsRandom)).collect();
                let areas = areas?;
                write(&luks.encode(), 0)?;
                areas.iter().try_for_each(|area| write(&area.bytes, area.offset))
            }
        }
    }
}

/// The key slots as they are, and what is said of them.
struct Slots<'a> {
    luks: &'a luks1::Header,
    file: &'a dyn Storage,
    at: u64,
    limits: &'a Limits,
    raw: &'a RawOptions,
    force: bool,
}

impl Slots<'_> {
    fn change(&self) -> Result<KeySlotChange> {
        match self.raw.value(STATE) {
            Some("active") => self.fill(),
            Some("inactive") => self.empty(),
            Some(other) => refuse(format!("Parameter 'state' does not accept value '{other}'")),
            None => refuse("Parameter 'state' is missing"),
        }
    }

    fn fill(&self) -> Result<KeySlotChange> {
        if self.raw.value(NEW_SECRET).is_none() {
            return refuse("'new-secret' is required to activate a keyslot");
        }
        if self.raw.value(OLD_SECRET).is_some() {
            return refuse("'old-secret' must not be given when activating keyslots");
        }
        let slot = match self.chosen()? {
            Some(slot) if self.is_active(slot) && !self.force => {
                return refuse(format!(
                    "Refusing to overwrite active keyslot {slot} - please erase it first"
                ));
            }
            Some(slot) => slot,
            None => match self.luks.free_slot() {
                Some(slot) => slot,
                None => return refuse("Can't add a keyslot - all keyslots are in use"),
            },
        };
        let passphrase = secret(self.raw, NEW_SECRET)?.clone();
        let iter_time_ms = super::iter_time_ms(self.raw)?;
        Ok(KeySlotChange::Fill { slot, passphrase, iter_time_ms })
    }

    fn empty(&self) -> Result<KeySlotChange> {
        for (name, short) in [(NEW_SECRET, "new-secret"), (ITER_TIME, "iter-time")] {
            if self.raw.value(name).is_some() {
                return refuse(format!("'{short}' must not be given when erasing keyslots"));
            }
        }
        let old = match self.raw.value(OLD_SECRET) {
            Some(_) => Some(secret(self.raw, OLD_SECRET)?),
            None => None,
        };
        let active = self.luks.slots().iter().filter(|slot| slot.is_active()).count();
        if let Some(slot) = self.chosen()? {
            if let Some(old) = old
                && !self.opens(slot, old)?
            {
                return refuse(format!(
                    "Given keyslot {slot} doesn't contain the given old password for erase \
                     operation"
                ));
            }
            if !self.is_active(slot) && !self.force {
                return refuse(format!("Given keyslot {slot} is already erased (inactive) "));
            }
            if self.is_active(slot) && active == 1 && !self.force {
                return refuse(format!(
                    "Attempt to erase the only active keyslot {slot} which will erase all the \
                     data in the image irreversibly - refusing operation"
                ));
            }
            return Ok(KeySlotChange::Empty { slots: vec![slot] });
        }
        let Some(old) = old else {
            return refuse(
                "To erase keyslot(s), either explicit keyslot index or the password currently \
                 contained in them must be given",
            );
        };
        let mut slots = Vec::new();
        for slot in 0..SLOTS {
            if self.opens(slot, old)? {
                slots.push(slot);
            }
        }
        if slots.is_empty() {
            return refuse("No keyslots match given (old) password for erase operation");
        }
        if slots.len() == active && !self.force {
            return refuse(
                "All the active keyslots match the (old) password that was given and erasing \
                 them will erase all the data in the image irreversibly - refusing operation",
            );
        }
        Ok(KeySlotChange::Empty { slots })
    }

    /// The slot that was named.
    fn chosen(&self) -> Result<Option<usize>> {
        let Some(text) = self.raw.value(KEYSLOT) else { return Ok(None) };
        let Ok(number) = text.parse::<u64>() else {
            return refuse("Parameter 'encrypt.keyslot' expects a number");
        };
        // QEMU's number has 32 bits.
        let number = number & u64::from(u32::MAX);
        match usize::try_from(number) {
            Ok(slot) if slot < SLOTS => Ok(Some(slot)),
            _ => {
                let last = num::to_u64(SLOTS).saturating_sub(1);
                refuse(format!("Invalid keyslot {number} specified, must be between 0 and {last}"))
            }
        }
    }

    fn is_active(&self, slot: usize) -> bool {
        self.luks.slots().get(slot).is_some_and(luks1::KeySlot::is_active)
    }

    fn opens(&self, slot: usize, passphrase: &Secret) -> Result<bool> {
        let key = self.luks.try_slot(slot, self.file, self.at, passphrase, self.limits)?;
        Ok(key.is_some())
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option: "encrypt", reason: reason.into() })
}
