//! The header (section 2.2), parsed into what cannot be wrong, and written.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{
    ALIGN_SECTORS, DIGEST_BYTES, HEADER_BYTES, MAX_KEY_BYTES, SALT_BYTES, SECTOR_BYTES, SLOTS,
    STRIPES,
};
use crate::error::{CorruptKind, FORMAT};
use crate::{CipherError, CipherSpec, Hash};
use rimg_core::{Error, InfoValue, Result, num};

const MAGIC: &[u8] = b"LUKS\xba\xbe";
const VERSION: u16 = 1;
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;
const FIRST_SLOT: usize = 208;
const SLOT_BYTES: usize = 48;
const UUID_BYTES: usize = 40;

rimg_core::on_disk! {
    /// The numbers of the header.
    struct Numbers: BigEndian, 592 bytes {
        version: u16 = 6,
        payload_offset: u32 = 104,
        key_bytes: u32 = 108,
        mk_digest_iter: u32 = 164,
    }
}

rimg_core::on_disk! {
    /// The numbers of a key slot.
    struct SlotNumbers: BigEndian, 48 bytes {
        active: u32 = 0,
        iterations: u32 = 4,
        key_material_offset: u32 = 40,
        stripes: u32 = 44,
    }
}

/// Texts and byte strings of the header: offset and length.
mod field {
    pub(super) const CIPHER_NAME: (usize, usize) = (8, 32);
    pub(super) const CIPHER_MODE: (usize, usize) = (40, 32);
    pub(super) const HASH_SPEC: (usize, usize) = (72, 32);
    pub(super) const MK_DIGEST: (usize, usize) = (112, super::DIGEST_BYTES);
    pub(super) const MK_DIGEST_SALT: (usize, usize) = (132, super::SALT_BYTES);
    pub(super) const UUID: (usize, usize) = (168, super::UUID_BYTES);
    /// Of a key slot.
    pub(super) const SALT: (usize, usize) = (8, super::SALT_BYTES);
}

/// A LUKS1 header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub(super) cipher_name: String,
    pub(super) cipher_mode: String,
    pub(super) hash_spec: String,
    /// In sectors; 0 where the data lies elsewhere.
    pub(super) payload_offset: u32,
    pub(super) key_bytes: u32,
    pub(super) digest: [u8; DIGEST_BYTES],
    pub(super) digest_salt: [u8; SALT_BYTES],
    pub(super) digest_iterations: u32,
    pub(super) uuid: String,
    pub(super) slots: [KeySlot; SLOTS],
}

/// A place for the master key under one passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySlot {
    /// `None` when nobody uses it.
    pub(super) active: Option<ActiveSlot>,
    /// Where its key material lies, in sectors from the start of the header.
    pub(super) material_sector: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ActiveSlot {
    pub(super) iterations: u32,
    pub(super) salt: [u8; SALT_BYTES],
}

impl KeySlot {
    /// Whether it holds the master key.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Where its key material lies, in bytes from the start of the header.
    #[must_use]
    pub fn material_offset(&self) -> u64 {
        u64::from(self.material_sector).saturating_mul(SECTOR_BYTES)
    }
}

impl Header {
    /// Whether these are the first bytes of a LUKS header, of version 1 or later.
    #[must_use]
    pub fn is_magic(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads the header that starts at offset `at` of its file; `bytes` are the first of it,
    /// [`HEADER_BYTES`] or more.
    ///
    /// The cipher and the hash may be ones that this crate does not have: see
    /// [`cipher`](Self::cipher).
    ///
    /// # Errors
    /// [`Error::WrongFormat`] without the magic, [`Error::Unsupported`] for another version,
    /// [`Error::Corrupt`] for what cannot be, with offsets in the file.
    pub fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        if !Self::is_magic(bytes) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            let len = num::to_u64(bytes.len());
            return Err(CorruptKind::Truncated(len).at("LUKS header", "bytes", at));
        };
        let numbers = Numbers::parse(bytes);
        if numbers.version != VERSION {
            let feature = format!("LUKS version {}", numbers.version);
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        let text = |name, place: (usize, usize)| {
            let field_at = at.saturating_add(num::to_u64(place.0));
            text(bytes, place).ok_or_else(|| CorruptKind::NotText.at("LUKS header", name, field_at))
        };
        let number_at = |name| at.saturating_add(Numbers::offset_of(name));
        if numbers.key_bytes == 0 || numbers.key_bytes > MAX_KEY_BYTES {
            return Err(CorruptKind::KeyBytes(numbers.key_bytes.into()).at(
                "LUKS header",
                "key-bytes",
                number_at("key_bytes"),
            ));
        }
        if numbers.mk_digest_iter == 0 {
            return Err(CorruptKind::NoIterations.at(
                "LUKS header",
                "mk-digest-iter",
                number_at("mk_digest_iter"),
            ));
        }
        let mut slots = [KeySlot { active: None, material_sector: 0 }; SLOTS];
        let (all, _) = bytes.get(FIRST_SLOT..).unwrap_or_default().as_chunks::<SLOT_BYTES>();
        let slots_at = at.saturating_add(num::to_u64(FIRST_SLOT));
        for (index, (place, bytes)) in (0_u64..).zip(slots.iter_mut().zip(all)) {
            let slot_at = slots_at.saturating_add(index.saturating_mul(num::to_u64(SLOT_BYTES)));
            *place = parse_slot(bytes, slot_at)?;
        }
        let header = Self {
            cipher_name: text("cipher-name", field::CIPHER_NAME)?,
            cipher_mode: text("cipher-mode", field::CIPHER_MODE)?,
            hash_spec: text("hash-spec", field::HASH_SPEC)?,
            payload_offset: numbers.payload_offset,
            key_bytes: numbers.key_bytes,
            digest: array(bytes, field::MK_DIGEST),
            digest_salt: array(bytes, field::MK_DIGEST_SALT),
            digest_iterations: numbers.mk_digest_iter,
            uuid: text("uuid", field::UUID)?,
            slots,
        };
        header.check_places(slots_at)?;
        Ok(header)
    }

    /// Key material lies behind the header, before the data, and apart.
    fn check_places(&self, slots_at: u64) -> Result<()> {
        let sectors = self.material_sectors();
        let mut taken: Vec<(u32, u32)> = Vec::with_capacity(SLOTS);
        for (index, slot) in (0_u64..).zip(&self.slots) {
            let wrong = |kind: CorruptKind| {
                let slot_at =
                    slots_at.saturating_add(index.saturating_mul(num::to_u64(SLOT_BYTES)));
                let field_at =
                    slot_at.saturating_add(SlotNumbers::offset_of("key_material_offset"));
                kind.at("LUKS key slot", "key-material-offset", field_at)
            };
            let start = slot.material_sector;
            if u64::from(start).saturating_mul(SECTOR_BYTES) < num::to_u64(HEADER_BYTES) {
                return Err(wrong(CorruptKind::InHeader(start)));
            }
            let end = start.checked_add(sectors).ok_or(wrong(CorruptKind::InPayload(start)))?;
            if self.payload_offset != 0 && end > self.payload_offset {
                return Err(wrong(CorruptKind::InPayload(start)));
            }
            if taken.iter().any(|(other, other_end)| start < *other_end && *other < end) {
                return Err(wrong(CorruptKind::SlotsOverlap(start)));
            }
            taken.push((start, end));
        }
        Ok(())
    }

    /// The header as it lies on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let numbers = Numbers {
            version: VERSION,
            payload_offset: self.payload_offset,
            key_bytes: self.key_bytes,
            mk_digest_iter: self.digest_iterations,
        };
        let mut bytes = numbers.encode();
        put(&mut bytes, (0, MAGIC.len()), MAGIC);
        put(&mut bytes, field::CIPHER_NAME, self.cipher_name.as_bytes());
        put(&mut bytes, field::CIPHER_MODE, self.cipher_mode.as_bytes());
        put(&mut bytes, field::HASH_SPEC, self.hash_spec.as_bytes());
        put(&mut bytes, field::MK_DIGEST, &self.digest);
        put(&mut bytes, field::MK_DIGEST_SALT, &self.digest_salt);
        put(&mut bytes, field::UUID, self.uuid.as_bytes());
        let (places, _) =
            bytes.get_mut(FIRST_SLOT..).unwrap_or_default().as_chunks_mut::<SLOT_BYTES>();
        for (place, slot) in places.iter_mut().zip(&self.slots) {
            let numbers = SlotNumbers {
                active: if slot.is_active() { ACTIVE } else { INACTIVE },
                iterations: slot.active.map_or(0, |active| active.iterations),
                key_material_offset: slot.material_sector,
                stripes: STRIPES,
            };
            *place = numbers.encode();
            put(place, field::SALT, &slot.active.map_or([0; SALT_BYTES], |active| active.salt));
        }
        bytes
    }

    /// The cipher of data and key material.
    ///
    /// # Errors
    /// [`CipherError`] when this crate does not have it.
    pub fn cipher(&self) -> Result<CipherSpec, CipherError> {
        let key_bytes = usize::try_from(self.key_bytes).unwrap_or(usize::MAX);
        CipherSpec::from_luks(&self.cipher_name, &self.cipher_mode, key_bytes)
    }

    /// The hash of keys and splitter.
    ///
    /// # Errors
    /// [`CipherError`] when this crate does not have it.
    pub fn hash(&self) -> Result<Hash, CipherError> {
        let unknown = || CipherError::Unknown(format!("with hash {}", self.hash_spec));
        Hash::from_name(&self.hash_spec).ok_or_else(unknown)
    }

    /// Where the data starts, in bytes from the start of the header; 0 where it lies elsewhere.
    #[must_use]
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.payload_offset).saturating_mul(SECTOR_BYTES)
    }

    /// From now on the data lies in another file, at its start.
    pub const fn detach(&mut self) {
        self.payload_offset = 0;
    }

    /// The key slots.
    #[must_use]
    pub const fn slots(&self) -> &[KeySlot; SLOTS] {
        &self.slots
    }

    /// What tells the volume from others.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// How many sectors the key material of a slot takes.
    pub(super) fn material_sectors(&self) -> u32 {
        // At most 64 bytes each.
        self.key_bytes.saturating_mul(STRIPES).div_ceil(512)
    }

    /// What `info` says of it, under the names of QEMU's JSON. qcow2 puts "format" into the place
    /// that QEMU gives it: behind what stands before "cipher-mode".
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, InfoValue)> {
        let text = |text: &str| InfoValue::Text(text.to_owned());
        let (mode, iv) = self.cipher_mode.split_once('-').unwrap_or((&self.cipher_mode, ""));
        let (iv, iv_hash) = match iv.split_once(':') {
            Some((iv, hash)) => (iv, Some(hash)),
            None => (iv, None),
        };
        let key_bits = self.key_bytes.saturating_mul(8);
        let key_bits = if mode == "xts" { key_bits / 2 } else { key_bits };
        let mut all = vec![
            ("ivgen-alg", text(iv)),
            ("detached-header", InfoValue::Bool(self.payload_offset == 0)),
            ("hash-alg", text(&self.hash_spec)),
            ("cipher-alg", InfoValue::Text(format!("{}-{key_bits}", self.cipher_name))),
            ("uuid", text(&self.uuid)),
        ];
        if iv == "essiv"
            && let Some(hash) = iv_hash
        {
            all.push(("ivgen-hash-alg", text(hash)));
        }
        all.push(("cipher-mode", text(mode)));
        all.push(("slots", InfoValue::List(self.slots.iter().map(describe_slot).collect())));
        all.push(("payload-offset", InfoValue::Number(self.payload_offset())));
        all.push(("master-key-iters", InfoValue::Number(self.digest_iterations.into())));
        all
    }
}

fn describe_slot(slot: &KeySlot) -> InfoValue {
    let mut all = vec![("active", InfoValue::Bool(slot.is_active()))];
    let place = ("key-offset", InfoValue::Number(slot.material_offset()));
    match &slot.active {
        Some(active) => all.extend([
            ("iters", InfoValue::Number(active.iterations.into())),
            place,
            ("stripes", InfoValue::Number(STRIPES.into())),
        ]),
        None => all.push(place),
    }
    InfoValue::Map(all)
}

fn parse_slot(bytes: &[u8; SLOT_BYTES], at: u64) -> Result<KeySlot> {
    let numbers = SlotNumbers::parse(bytes);
    let wrong = |kind: CorruptKind, name, field| {
        kind.at("LUKS key slot", name, at.saturating_add(SlotNumbers::offset_of(field)))
    };
    if numbers.stripes != STRIPES {
        return Err(wrong(CorruptKind::Stripes(numbers.stripes), "stripes", "stripes"));
    }
    let active = match numbers.active {
        INACTIVE => None,
        ACTIVE if numbers.iterations == 0 => {
            return Err(wrong(CorruptKind::NoIterations, "iterations", "iterations"));
        }
        ACTIVE => {
            let salt = array(bytes, field::SALT);
            Some(ActiveSlot { iterations: numbers.iterations, salt })
        }
        other => return Err(wrong(CorruptKind::SlotState(other), "active", "active")),
    };
    Ok(KeySlot { active, material_sector: numbers.key_material_offset })
}

/// A text that ends with a 0, which may be all that it is.
fn text(bytes: &[u8], (at, len): (usize, usize)) -> Option<String> {
    let field = bytes.get(at..)?.get(..len)?;
    let end = field.iter().position(|byte| *byte == 0)?;
    String::from_utf8(field.get(..end)?.to_vec()).ok()
}

fn array<const N: usize>(bytes: &[u8], (at, _): (usize, usize)) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn put(bytes: &mut [u8], (at, len): (usize, usize), value: &[u8]) {
    let field = bytes.get_mut(at..).unwrap_or_default().iter_mut().take(len);
    for (to, from) in field.zip(value) {
        *to = *from;
    }
}

/// The smallest multiple of [`ALIGN_SECTORS`] that is at least `sectors`.
pub(super) fn aligned(sectors: u32) -> u32 {
    sectors.checked_next_multiple_of(ALIGN_SECTORS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;
    use crate::luks1::create::tests::volume;

    #[test]
    fn what_was_written_is_read() {
        let header = volume().header;
        assert_eq!(Header::parse(&header.encode(), 0).unwrap(), header);
    }

    /// What parsing says of a header with `bytes` at offset `at` of it.
    fn patched(at: usize, bytes: &[u8]) -> Error {
        let mut header = volume().header.encode();
        put(&mut header, (at, bytes.len()), bytes);
        Header::parse(&header, 0x4_0000).unwrap_err()
    }

    #[test]
    fn every_wrong_field_is_named() {
        let be = |n: u32| n.to_be_bytes();
        let slot = |index: usize, field: usize| FIRST_SLOT + index * SLOT_BYTES + field;
        let cases: [(usize, Vec<u8>, CorruptKind, &str); 14] = [
            (8, vec![b'a'; 32], CorruptKind::NotText, "cipher-name"),
            (40, vec![b'a'; 32], CorruptKind::NotText, "cipher-mode"),
            (72, vec![0xff, 0], CorruptKind::NotText, "hash-spec"),
            (108, be(0).into(), CorruptKind::KeyBytes(0), "key-bytes"),
            (108, be(65).into(), CorruptKind::KeyBytes(65), "key-bytes"),
            (164, be(0).into(), CorruptKind::NoIterations, "mk-digest-iter"),
            (168, vec![b'a'; 40], CorruptKind::NotText, "uuid"),
            (slot(0, 0), be(1).into(), CorruptKind::SlotState(1), "active"),
            (slot(0, 4), be(0).into(), CorruptKind::NoIterations, "iterations"),
            (slot(7, 44), be(3999).into(), CorruptKind::Stripes(3999), "stripes"),
            (slot(0, 40), be(1).into(), CorruptKind::InHeader(1), "key-material-offset"),
            (slot(1, 40), be(8).into(), CorruptKind::SlotsOverlap(8), "key-material-offset"),
            (slot(7, 40), be(4000).into(), CorruptKind::InPayload(4000), "key-material-offset"),
            (
                slot(7, 40),
                be(u32::MAX).into(),
                CorruptKind::InPayload(u32::MAX),
                "key-material-offset",
            ),
        ];
        for (at, bytes, kind, field) in cases {
            let error = patched(at, &bytes);
            assert_eq!(kind_of(&error), Some(&kind), "{field}: {error}");
            let Error::Corrupt { at: location, .. } = &error else { panic!("{error}") };
            assert_eq!(location.field, field);
            assert_eq!(location.offset.0, 0x4_0000 + num::to_u64(at), "{field}");
        }
    }

    #[test]
    fn other_files_and_versions_are_told_apart() {
        assert!(matches!(patched(0, b"luks"), Error::WrongFormat { format: "luks" }));
        assert!(
            matches!(patched(7, &[2]), Error::Unsupported { feature, .. } if feature == "LUKS version 2")
        );
        let bytes = volume().header.encode();
        for len in 0..bytes.len() {
            let error = Header::parse(&bytes[..len], 0).unwrap_err();
            if len < MAGIC.len() {
                assert!(matches!(error, Error::WrongFormat { .. }));
            } else {
                assert_eq!(kind_of(&error), Some(&CorruptKind::Truncated(num::to_u64(len))));
            }
        }
    }

    #[test]
    fn foreign_ciphers_can_be_looked_at() {
        let mut bytes = volume().header.encode();
        put(&mut bytes, field::CIPHER_NAME, b"camellia\0");
        put(&mut bytes, field::HASH_SPEC, b"whirlpool\0");
        let header = Header::parse(&bytes, 0).unwrap();
        assert!(
            header.describe().contains(&("cipher-alg", InfoValue::Text("camellia-256".into())))
        );
        assert!(matches!(header.cipher(), Err(CipherError::Unknown(_))));
        assert!(matches!(header.hash(), Err(CipherError::Unknown(_))));
    }
}
