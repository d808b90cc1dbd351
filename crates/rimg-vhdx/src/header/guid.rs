//! The 128-bit identifiers that the format is full of.

use core::fmt;
use sha2::{Digest as _, Sha256};

/// A GUID, as the little-endian number that its 16 bytes in the file make.
///
/// Its text is mixed-endian: the first three groups are little-endian numbers, the last two are
/// bytes in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Guid(pub(crate) u128);

impl Guid {
    pub(crate) const ZERO: Self = Self(0);

    /// From the two halves as an on-disk structure has them.
    pub(crate) fn of_words(low: u64, high: u64) -> Self {
        Self(u128::from(high) << 64 | u128::from(low))
    }

    pub(crate) fn words(self) -> (u64, u64) {
        let half = |n: u128| u64::try_from(n & u128::from(u64::MAX)).unwrap_or_default();
        (half(self.0), half(self.0 >> 64))
    }

    /// One that follows from `parts`: the same image changed in the same way gets the same.
    /// Marked as version 8, which is what such GUIDs are (RFC 9562).
    pub(crate) fn derive(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new_with_prefix(b"rimg vhdx");
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let bytes = digest.first_chunk().copied().unwrap_or_default();
        let version = 0xf000 << 48;
        let variant = 0xc0_u128 << 64;
        Self(u128::from_le_bytes(bytes) & !version & !variant | 0x8000 << 48 | 0x80 << 64)
    }

    pub(crate) fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The text form as it stands in a parent locator: in UTF-16, and with braces where it is to be
    /// so long.
    pub(crate) fn utf16_of(self, len_bytes: usize) -> Option<Vec<u8>> {
        let texts = [self.to_string(), format!("{{{self}}}")];
        let utf16 =
            |text: String| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        texts.into_iter().map(utf16).find(|bytes| bytes.len() == len_bytes)
    }

    /// Reads the text form, with or without braces, in either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}')?,
            None => text,
        };
        let mut groups = inner.split('-');
        let mut group = |digits: usize| {
            let group = groups.next().filter(|group| group.len() == digits)?;
            let is_hex = group.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_hex { u64::from_str_radix(group, 16).ok() } else { None }
        };
        let (first, second, third) = (group(8)?, group(4)?, group(4)?);
        let (fourth, fifth) = (group(4)?, group(12)?);
        if groups.next().is_some() {
            return None;
        }
        let low = third << 48 | second << 32 | first;
        let high = (fourth << 48 | fifth).swap_bytes();
        Some(Self::of_words(low, high))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.words();
        let high = high.swap_bytes();
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            low & 0xffff_ffff,
            low >> 32 & 0xffff,
            low >> 48,
            high >> 48,
            high & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn text_is_mixed_endian() {
        let bat = "2dc27766-f623-4200-9d64-115e9bfd4a08";
        assert_eq!(spec::region::BAT.to_string(), bat);
        assert_eq!(Guid::parse(bat), Some(spec::region::BAT));
        let loud = format!("{{{}}}", bat.to_uppercase());
        assert_eq!(Guid::parse(&loud), Some(spec::region::BAT));
        // The bytes as qemu-img writes them.
        assert_eq!(spec::region::BAT.to_le_bytes()[..6], [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6]);
        assert_eq!(spec::region::BAT.to_le_bytes()[8..11], [0x9d, 0x64, 0x11]);
    }

    #[test]
    fn those_of_the_specification_are_what_it_says() {
        use spec::metadata as of;
        for (guid, text) in [
            (spec::region::BAT, "2dc27766-f623-4200-9d64-115e9bfd4a08"),
            (spec::region::METADATA, "8b7ca206-4790-4b9a-b8fe-575f050f886e"),
            (of::FILE_PARAMETERS, "caa16737-fa36-4d43-b3b6-33f0aa44e76b"),
            (of::VIRTUAL_DISK_SIZE, "2fa54224-cd1b-4876-b211-5dbed83bf4b8"),
            (of::VIRTUAL_DISK_ID, "beca12ab-b2e6-4523-93ef-c309e000c746"),
            (of::LOGICAL_SECTOR_SIZE, "8141bf1d-a96f-4709-ba47-f233a8faab5f"),
            (of::PHYSICAL_SECTOR_SIZE, "cda348c7-445d-4471-9cc9-e9885251c556"),
            (of::PARENT_LOCATOR, "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"),
            (of::VHDX_PARENT_LOCATOR, "b04aefb7-d19e-4a81-b789-25b8e9445913"),
        ] {
            assert_eq!(guid.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "{2dc27766-f623-4200-9d64-115e9bfd4a08",
            "2dc27766-f623-4200-9d64-115e9bfd4a08}",
            "2dc27766f62342009d64115e9bfd4a08",
            "2dc27766-f623-4200-9d64-115e9bfd4a08-",
            "+dc27766-f623-4200-9d64-115e9bfd4a08",
            "2dc27766-f623-4200-9d64-115e9bfd4a0g",
        ] {
            assert_eq!(Guid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn derived_ones_are_well_formed_and_differ() {
        let one = Guid::derive(&[b"ab", b"c"]);
        assert_eq!(one, Guid::derive(&[b"ab", b"c"]));
        assert_ne!(one, Guid::derive(&[b"a", b"bc"]));
        let text = one.to_string();
        assert_eq!(&text[14..15], "8", "{text}");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
    }
}
