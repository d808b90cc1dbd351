//! The JSON area (section 3): what this crate needs of it, as types that cannot be wrong.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::unsupported;
use crate::error::CorruptKind;
use crate::{CipherSpec, Hash};
use base64ct::{Base64, Encoding as _};
use rimg_core::{Error, Result, num};
use serde_json::{Map, Value};

const STRIPES: u64 = 4000;
const MAX_KEY_BYTES: u64 = 64;
const SECTOR_BYTES: u64 = 512;

/// Keys, and the data that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Those that give the data's key.
    pub(super) slots: Vec<KeySlot>,
    pub(super) digest: Digest,
    pub(super) segment: Segment,
}

/// The encrypted data (section 3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts, in bytes from the start of the volume.
    pub offset: u64,
    /// How long it is, in bytes; `None` when it goes on to the end of the device.
    pub len_bytes: Option<u64>,
    /// The number of its first sector, in units of 512 bytes.
    pub first_sector: u64,
    /// The size of a sector in bytes: 512 to 4096.
    pub sector_bytes: u64,
    /// The cipher.
    pub cipher: CipherSpec,
}

/// A key slot of type `luks2` (section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeySlot {
    pub(super) key_bytes: usize,
    pub(super) kdf: Kdf,
    pub(super) af_hash: Hash,
    pub(super) area_offset: u64,
    /// Whole sectors that hold all stripes of the key.
    pub(super) area_bytes: u64,
    pub(super) area_cipher: CipherSpec,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kdf {
    Pbkdf2 { hash: Hash, iterations: u32, salt: Vec<u8> },
    Argon2 { is_id: bool, passes: u32, memory_kib: u32, lanes: u32, salt: Vec<u8> },
}

/// What tells whether a key is the right one (section 3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) hash: Hash,
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) digest: Vec<u8>,
}

impl Metadata {
    /// Reads the JSON object that starts at offset `at` of the file.
    pub(super) fn parse(json: &[u8], at: u64) -> Result<Self> {
        let wrong = |what: String| CorruptKind::Json(what).at("LUKS metadata", "JSON", at);
        let root: Value = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
        let root = Object { value: &root, name: String::new(), at };
        if let Some(features) = root.optional("config").and_then(|c| c.optional("requirements"))
            && let Some(mandatory) = features.optional("mandatory")
            && let Some(first) = mandatory.texts()?.first()
        {
            return unsupported(format!("LUKS2 requirement {first}"));
        }
        let segments = root.member("segments")?;
        let mut crypt = Vec::new();
        for (id, segment) in segments.members()? {
            match segment.member("type")?.text()? {
                "crypt" => crypt.push((id, segment)),
                other => return unsupported(format!("LUKS2 segment of type {other}")),
            }
        }
        let [(segment_id, segment)] = crypt.as_slice() else {
            return unsupported(format!("{} LUKS2 segments", crypt.len()));
        };
        let mut of_segment = None;
        for (_, digest) in root.member("digests")?.members()? {
            if digest.member("segments")?.texts()?.contains(segment_id) {
                of_segment = Some(digest);
            }
        }
        let digest = of_segment.ok_or_else(|| wrong("no digest for the segment".to_owned()))?;
        let slot_ids = digest.member("keyslots")?.texts()?;
        let digest = Digest::parse(&digest)?;
        let key_bytes = Self::key_bytes(&root, &slot_ids)?;
        let mut slots = Vec::new();
        for (id, slot) in root.member("keyslots")?.members()? {
            let is_ignored = match slot.optional("priority") {
                Some(priority) => priority.number()? == 0,
                None => false,
            };
            if slot_ids.contains(&id) && !is_ignored {
                slots.push(KeySlot::parse(&slot)?);
            }
        }
        let segment = Segment::parse(segment, key_bytes)?;
        Ok(Self { slots, digest, segment })
    }

    /// The length of the data's key, as the slots that hold it have it.
    fn key_bytes(root: &Object<'_>, slot_ids: &[&str]) -> Result<usize> {
        for (id, slot) in root.member("keyslots")?.members()? {
            if slot_ids.contains(&id) {
                return slot.member("key_size")?.key_bytes();
            }
        }
        unsupported("LUKS2 without key slots")
    }
}

impl Segment {
    fn parse(object: &Object<'_>, key_bytes: usize) -> Result<Self> {
        if object.optional("integrity").is_some() {
            return unsupported("LUKS2 with integrity");
        }
        let size = object.member("size")?;
        let sector_bytes = object.member("sector_size")?;
        let sector = sector_bytes.number()?;
        if !(SECTOR_BYTES..=4096).contains(&sector) || !sector.is_power_of_two() {
            return Err(sector_bytes.wrong());
        }
        let offset = object.member("offset")?;
        let segment = Self {
            offset: offset.number()?,
            len_bytes: if size.value.as_str() == Some("dynamic") {
                None
            } else {
                Some(size.number()?)
            },
            first_sector: object.member("iv_tweak")?.number()?,
            sector_bytes: sector,
            cipher: object.member("encryption")?.cipher(key_bytes)?,
        };
        let end = segment.offset.checked_add(segment.len_bytes.unwrap_or(0));
        match end {
            Some(end) if i64::try_from(end).is_ok() => Ok(segment),
            _ => Err(offset.wrong()),
        }
    }
}

impl KeySlot {
    fn parse(object: &Object<'_>) -> Result<Self> {
        match object.member("type")?.text()? {
            "luks2" => {}
            other => return unsupported(format!("LUKS2 key slot of type {other}")),
        }
        let key_bytes = object.member("key_size")?.key_bytes()?;
        let af = object.member("af")?;
        let stripes = af.member("stripes")?;
        if stripes.number()? != STRIPES {
            return Err(stripes.wrong());
        }
        let area = object.member("area")?;
        let offset = area.member("offset")?;
        let size = area.member("size")?;
        let split = num::to_u64(key_bytes).saturating_mul(STRIPES);
        let area_bytes = split.next_multiple_of(SECTOR_BYTES);
        if size.number()? < area_bytes {
            return Err(size.wrong());
        }
        if offset.number()?.checked_add(area_bytes).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(offset.wrong());
        }
        let area_key = area.member("key_size")?.key_bytes()?;
        Ok(Self {
            key_bytes,
            kdf: Kdf::parse(&object.member("kdf")?)?,
            af_hash: af.member("hash")?.hash()?,
            area_offset: offset.number()?,
            area_bytes,
            area_cipher: area.member("encryption")?.cipher(area_key)?,
        })
    }
}

impl Kdf {
    fn parse(object: &Object<'_>) -> Result<Self> {
        let salt = object.member("salt")?.base64()?;
        let kind = object.member("type")?;
        let is_id = match kind.text()? {
            "pbkdf2" => {
                return Ok(Self::Pbkdf2 {
                    hash: object.member("hash")?.hash()?,
                    iterations: object.member("iterations")?.count()?,
                    salt,
                });
            }
            "argon2i" => false,
            "argon2id" => true,
            other => return unsupported(format!("LUKS2 key derivation {other}")),
        };
        Ok(Self::Argon2 {
            is_id,
            passes: object.member("time")?.count()?,
            memory_kib: object.member("memory")?.count()?,
            lanes: object.member("cpus")?.count()?,
            salt,
        })
    }
}

impl Digest {
    fn parse(object: &Object<'_>) -> Result<Self> {
        match object.member("type")?.text()? {
            "pbkdf2" => {}
            other => return unsupported(format!("LUKS2 digest of type {other}")),
        }
        let digest = object.member("digest")?;
        let bytes = digest.base64()?;
        // A shorter one would let wrong keys pass.
        if bytes.len() < 16 || bytes.len() > 64 {
            return Err(digest.wrong());
        }
        Ok(Self {
            hash: object.member("hash")?.hash()?,
            iterations: object.member("iterations")?.count()?,
            salt: object.member("salt")?.base64()?,
            digest: bytes,
        })
    }
}

/// A JSON value that knows what it is called.
struct Object<'v> {
    value: &'v Value,
    name: String,
    at: u64,
}

impl<'v> Object<'v> {
    fn wrong(&self) -> Error {
        let what = format!("'{}' is missing or cannot be", self.name);
        CorruptKind::Json(what).at("LUKS metadata", "JSON", self.at)
    }

    fn inner(&self, value: &'v Value, name: &str) -> Self {
        let name =
            if self.name.is_empty() { name.to_owned() } else { format!("{}.{name}", self.name) };
        Object { value, name, at: self.at }
    }

    fn optional(&self, name: &str) -> Option<Self> {
        self.value.get(name).map(|value| self.inner(value, name))
    }

    fn member(&self, name: &str) -> Result<Self> {
        self.optional(name).ok_or_else(|| self.inner(self.value, name).wrong())
    }

    fn members(&self) -> Result<Vec<(&'v str, Self)>> {
        let members: &Map<String, Value> = self.value.as_object().ok_or_else(|| self.wrong())?;
        Ok(members.iter().map(|(id, value)| (id.as_str(), self.inner(value, id))).collect())
    }

    fn text(&self) -> Result<&'v str> {
        self.value.as_str().ok_or_else(|| self.wrong())
    }

    fn texts(&self) -> Result<Vec<&'v str>> {
        let values = self.value.as_array().ok_or_else(|| self.wrong())?;
        values.iter().map(|value| value.as_str().ok_or_else(|| self.wrong())).collect()
    }

    /// A number; those of 64 bits stand in quotes (section 3.1).
    fn number(&self) -> Result<u64> {
        let text = || self.value.as_str().and_then(|text| text.parse().ok());
        self.value.as_u64().or_else(text).ok_or_else(|| self.wrong())
    }

    /// A number of 32 bits, not 0.
    fn count(&self) -> Result<u32> {
        match u32::try_from(self.number()?) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.wrong()),
        }
    }

    fn key_bytes(&self) -> Result<usize> {
        match self.number()? {
            bytes @ 1..=MAX_KEY_BYTES => num::to_usize(bytes),
            _ => Err(self.wrong()),
        }
    }

    fn hash(&self) -> Result<Hash> {
        let name = self.text()?;
        Hash::from_name(name).map_or_else(|| unsupported(format!("hash {name}")), Ok)
    }

    fn cipher(&self, key_bytes: usize) -> Result<CipherSpec> {
        let (name, mode) = self.text()?.split_once('-').ok_or_else(|| self.wrong())?;
        Ok(CipherSpec::from_luks(name, mode, key_bytes)?)
    }

    fn base64(&self) -> Result<Vec<u8>> {
        Base64::decode_vec(self.text()?).map_err(|_| self.wrong())
    }
}
