//! Key slots of a volume that exists: filled, emptied. The key of the data stays what it is.
//!
//! Whatever is lost when the machine stops, a passphrase that opened the volume before the change,
//! or the one that opens it afterwards, opens it: key material is durable before the header says
//! that it is there, is destroyed only when the header has forgotten it for good, and is never
//! written where the header says that some is. A slot that is filled anew while it is in use is
//! first filled elsewhere.
#![warn(clippy::indexing_slicing)]

use super::{Header, Iterations, KeySlot, NewVolume, OptionNames, SLOTS, SlotArea};
use crate::RandomSource;
use rimg_core::{Error, Limits, RawOptions, Result, Secret, Storage, StorageWrite, num};

/// What shall become of key slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySlotChange {
    /// This slot is to be opened by another passphrase.
    Fill {
        /// Which one.
        slot: usize,
        /// The passphrase.
        passphrase: Secret,
        /// How long trying it shall take, in milliseconds.
        iter_time_ms: u64,
    },
    /// These slots are to be opened by none.
    Empty {
        /// Which ones.
        slots: Vec<usize>,
    },
}

/// A header, and where it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The header as it is.
    pub header: &'a Header,
    /// The file that it is in.
    pub file: &'a dyn Storage,
    /// Where in that file it starts, in bytes.
    pub at: u64,
}

impl KeySlotChange {
    /// What the options of `amend` ask for. `force` allows what may leave no key slot.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of `qemu-img amend`; what trying the old passphrase
    /// says.
    pub fn parse(
        names: &OptionNames,
        raw: &RawOptions,
        place: Place<'_>,
        limits: &Limits,
        force: bool,
    ) -> Result<Self> {
        let asked = Asked { names, raw, place, limits, force };
        match raw.value(names.state) {
            Some("active") => asked.fill(),
            Some("inactive") => asked.empty(),
            Some(other) => {
                asked.refuse(format!("Parameter 'state' does not accept value '{other}'"))
            }
            None => asked.refuse("Parameter 'state' is missing"),
        }
    }

    /// Carries it out, in `file` at `at`, and returns the header as it is then; all is durable.
    /// The header that is there now has to be `header`.
    ///
    /// # Errors
    /// What `random` and the storage say.
    pub fn apply(
        &self,
        header: &Header,
        master_key: &Secret,
        file: &dyn StorageWrite,
        at: u64,
        random: &mut dyn RandomSource,
    ) -> Result<Header> {
        let mut steps = Steps { header: header.clone(), file, at, random };
        match self {
            Self::Fill { slot, passphrase, iter_time_ms } => {
                let volume = NewVolume { cipher: header.cipher()?, hash: header.hash()? };
                let iterations = Iterations::measured(&volume, *iter_time_ms)?.key_slot;
                let fill = |steps: &mut Steps<'_>, slot| {
                    steps.fill(slot, passphrase, master_key, iterations)
                };
                let in_use = header.slots().get(*slot).is_some_and(KeySlot::is_active);
                match header.free_slot().filter(|_| in_use) {
                    // The new passphrase opens another slot until the wanted one is whole again.
                    Some(meanwhile) => {
                        fill(&mut steps, meanwhile)?;
                        steps.empty(&[*slot])?;
                        fill(&mut steps, *slot)?;
                        steps.empty(&[meanwhile])?;
                    }
                    // Seven other slots stay as they are.
                    None if in_use => {
                        steps.empty(&[*slot])?;
                        fill(&mut steps, *slot)?;
                    }
                    None => fill(&mut steps, *slot)?,
                }
            }
            Self::Empty { slots } => steps.empty(slots)?,
        }
        Ok(steps.header)
    }
}

/// A header that changes step by step, each durable before the next.
struct Steps<'a> {
    header: Header,
    file: &'a dyn StorageWrite,
    at: u64,
    random: &'a mut dyn RandomSource,
}

impl Steps<'_> {
    /// Fills a slot that the header on disk says nobody uses.
    fn fill(&mut self, slot: usize, passphrase: &Secret, key: &Secret, count: u32) -> Result<()> {
        let area = self.header.fill_slot(slot, passphrase, key, count, self.random)?;
        self.write(&area.bytes, area.offset)?;
        self.write(&self.header.encode(), 0)
    }

    fn empty(&mut self, slots: &[usize]) -> Result<()> {
        let areas: Result<Vec<SlotArea>> =
            slots.iter().map(|slot| self.header.erase_slot(*slot, self.random)).collect();
        let areas = areas?;
        self.write(&self.header.encode(), 0)?;
        areas.iter().try_for_each(|area| self.write(&area.bytes, area.offset))
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let offset = self.at.saturating_add(offset);
        self.file.write_all_at(bytes, offset).map_err(Error::io("write LUKS header", offset))?;
        self.file.sync().map_err(Error::io("flush", 0))
    }
}

/// The key slots as they are, and what is said of them.
struct Asked<'a> {
    names: &'a OptionNames,
    raw: &'a RawOptions,
    place: Place<'a>,
    limits: &'a Limits,
    force: bool,
}

impl Asked<'_> {
    fn fill(&self) -> Result<KeySlotChange> {
        if self.raw.value(self.names.new_secret).is_none() {
            return self.refuse("'new-secret' is required to activate a keyslot");
        }
        if self.raw.value(self.names.old_secret).is_some() {
            return self.refuse("'old-secret' must not be given when activating keyslots");
        }
        let slot = match self.chosen()? {
            Some(slot) if self.is_active(slot) && !self.force => {
                return self.refuse(format!(
                    "Refusing to overwrite active keyslot {slot} - please erase it first"
                ));
            }
            Some(slot) => slot,
            None => match self.place.header.free_slot() {
                Some(slot) => slot,
                None => return self.refuse("Can't add a keyslot - all keyslots are in use"),
            },
        };
        let passphrase = self.names.new_passphrase(self.raw, self.names.new_secret)?.clone();
        let iter_time_ms = self.names.iter_time_ms(self.raw)?;
        Ok(KeySlotChange::Fill { slot, passphrase, iter_time_ms })
    }

    fn empty(&self) -> Result<KeySlotChange> {
        let unwanted =
            [(self.names.new_secret, "new-secret"), (self.names.iter_time(), "iter-time")];
        for (name, short) in unwanted {
            if self.raw.value(name).is_some() {
                return self.refuse(format!("'{short}' must not be given when erasing keyslots"));
            }
        }
        let old = match self.raw.value(self.names.old_secret) {
            Some(_) => Some(self.names.secret(self.raw, self.names.old_secret)?),
            None => None,
        };
        let active = self.place.header.slots().iter().filter(|slot| slot.is_active()).count();
        if let Some(slot) = self.chosen()? {
            if let Some(old) = old
                && !self.opens(slot, old)?
            {
                return self.refuse(format!(
                    "Given keyslot {slot} doesn't contain the given old password for erase \
                     operation"
                ));
            }
            if !self.is_active(slot) && !self.force {
                return self.refuse(format!("Given keyslot {slot} is already erased (inactive) "));
            }
            if self.is_active(slot) && active == 1 && !self.force {
                return self.refuse(format!(
                    "Attempt to erase the only active keyslot {slot} which will erase all the \
                     data in the image irreversibly - refusing operation"
                ));
            }
            return Ok(KeySlotChange::Empty { slots: vec![slot] });
        }
        let Some(old) = old else {
            return self.refuse(
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
            return self.refuse("No keyslots match given (old) password for erase operation");
        }
        if slots.len() == active && !self.force {
            return self.refuse(
                "All the active keyslots match the (old) password that was given and erasing \
                 them will erase all the data in the image irreversibly - refusing operation",
            );
        }
        Ok(KeySlotChange::Empty { slots })
    }

    /// The slot that was named.
    fn chosen(&self) -> Result<Option<usize>> {
        let name = self.names.keyslot;
        let Some(text) = self.raw.value(name) else { return Ok(None) };
        let Ok(number) = text.parse::<u64>() else {
            return self.refuse(format!("Parameter '{name}' expects a number"));
        };
        // QEMU's number has 32 bits.
        let number = number & u64::from(u32::MAX);
        match usize::try_from(number) {
            Ok(slot) if slot < SLOTS => Ok(Some(slot)),
            _ => {
                let last = num::to_u64(SLOTS).saturating_sub(1);
                self.refuse(format!(
                    "Invalid keyslot {number} specified, must be between 0 and {last}"
                ))
            }
        }
    }

    fn is_active(&self, slot: usize) -> bool {
        self.place.header.slots().get(slot).is_some_and(KeySlot::is_active)
    }

    fn opens(&self, slot: usize, passphrase: &Secret) -> Result<bool> {
        let Place { header, file, at } = self.place;
        Ok(header.try_slot(slot, file, at, passphrase, self.limits)?.is_some())
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(Error::InvalidOption { option: self.names.state, reason: reason.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::create::tests::volume;
    use super::super::{HEADER_BYTES, Volume};
    use super::*;
    use crate::test::Counting;
    use rimg_testkit::{MemoryStorage, RecordingStorage};

    /// The header and all key material of a new volume that "abc" opens, as a file.
    fn file(made: &Volume) -> Vec<u8> {
        let mut bytes = vec![0; num::to_usize(made.header.payload_offset()).unwrap()];
        bytes[..HEADER_BYTES].copy_from_slice(&made.header.encode());
        let at = num::to_usize(made.area.offset).unwrap();
        bytes[at..at + made.area.bytes.len()].copy_from_slice(&made.area.bytes);
        bytes
    }

    fn opens(file: &dyn Storage, word: &str) -> Option<usize> {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let header = Header::parse(&bytes, 0).unwrap();
        let opened = header.unlock(file, 0, &Secret::from(word), &Limits::default()).unwrap();
        opened.map(|opened| opened.slot)
    }

    /// Does one change after the other, and returns the file with its log.
    fn change(made: &Volume, changes: &[KeySlotChange]) -> RecordingStorage {
        let file = RecordingStorage::starting_with(MemoryStorage::from(file(made)));
        let mut header = made.header.clone();
        let mut random = Counting::default();
        for change in changes {
            header = change
                .apply(&header, &made.master_key, file.writer().unwrap(), 0, &mut random)
                .unwrap();
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(Header::parse(&bytes, 0).unwrap(), header);
        file
    }

    fn fill(slot: usize, word: &str) -> KeySlotChange {
        KeySlotChange::Fill { slot, passphrase: Secret::from(word), iter_time_ms: 0 }
    }

    /// Key material used to be written over what the header still said was there.
    #[test]
    fn filling_the_only_slot_anew_always_leaves_a_passphrase() {
        let file = change(&volume(), &[fill(0, "new")]);
        assert_eq!((opens(&file, "abc"), opens(&file, "new")), (None, Some(0)));
        let mut states = 0;
        for state in file.crash_states(2, 1) {
            let storage = state.storage.as_ref();
            assert!(
                opens(storage, "abc").or(opens(storage, "new")).is_some(),
                "after {} records, {:?}",
                state.prefix,
                state.fates
            );
            states += 1;
        }
        assert!(states > 20, "{states}");
    }

    #[test]
    fn slots_are_filled_and_emptied_one_by_one() {
        let fills: Vec<_> = (1..SLOTS).map(|slot| fill(slot, &format!("{slot}"))).collect();
        let file = change(&volume(), &fills);
        for slot in 1..SLOTS {
            assert_eq!(opens(&file, &format!("{slot}")), Some(slot));
        }
        // There is no room elsewhere, and seven slots that open the volume meanwhile.
        let mut changes = fills;
        changes.extend([fill(3, "new"), KeySlotChange::Empty { slots: vec![0, 7] }]);
        let file = change(&volume(), &changes);
        assert_eq!(opens(&file, "new"), Some(3));
        for gone in ["abc", "3", "7"] {
            assert_eq!(opens(&file, gone), None, "{gone}");
        }
    }
}
