//! UUIDs (RFC 9562): read from text, and derived from what an image is rather than from chance.

use core::fmt;

/// A UUID, its bytes in the order in which its text shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The UUID that stands for none (section 5.9).
    pub const NIL: Self = Self([0; 16]);

    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, with or without braces around it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let groups: Vec<&str> = inner.unwrap_or(text).split('-').collect();
        if !groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits = groups.concat();
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(&digits, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// A UUID of version 8 (section 5.8) that follows from `parts` alone: the same image made
    /// twice is the same twice. It says nothing about who else derives the same.
    #[must_use]
    pub fn derived<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        // FNV-1a of 128 bits, with a byte between the parts that UTF-8 never has.
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for part in parts {
            for byte in part.bytes().chain([0xff]) {
                hash = (hash ^ u128::from(byte))
                    .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
            }
        }
        let mut bytes = hash.to_be_bytes();
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
        *version = *version & 0x0f | 0x80;
        *variant = *variant & 0x3f | 0x80;
        Self(bytes)
    }

    /// From the order in which Windows and VirtualBox store it: the first three groups with their
    /// lowest byte first.
    #[must_use]
    pub const fn from_mixed_endian(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }

    /// In the order of [`from_mixed_endian`](Self::from_mixed_endian).
    #[must_use]
    pub const fn to_mixed_endian(self) -> [u8; 16] {
        // Reversing groups twice leaves them as they were.
        Self::from_mixed_endian(self.0).0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_go_both_ways() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid.0[..6], [0x00, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse(&format!("{{{text}}}")), Some(uuid));
        assert_eq!(uuid.to_mixed_endian()[..8], [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]);
        assert_eq!(Uuid::from_mixed_endian(uuid.to_mixed_endian()), uuid);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "00112233445566778899aabbccddeeff",
            "{00112233-4455-6677-8899-aabbccddeeff",
            "0011223-34455-6677-8899-aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
            "é112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn derived_ones_depend_on_every_part_and_carry_their_version() {
        let one = Uuid::derived(["vdi", "1"]);
        assert_eq!(one, Uuid::derived(["vdi", "1"]));
        assert_ne!(one, Uuid::derived(["vdi1"]));
        assert_ne!(one, Uuid::derived(["vdi", "2"]));
        assert_eq!((one.0[6] >> 4, one.0[8] >> 6), (8, 2));
    }
}
