//! CRC-32C, the Castagnoli polynomial: what headers, region tables and log entries are summed
//! with.

/// The polynomial, with its bits in reverse order.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Where every structure with a checksum has it, in bytes.
const FIELD_AT: usize = 4;

/// For each of eight bytes in a row, what it makes of the sum: eight bytes are taken in one step.
static TABLES: [[u32; 256]; 8] = tables();

/// The checksum of a structure, whose own field at byte 4 counts as zero.
pub(crate) fn crc32c_with_field_zeroed(bytes: &[u8]) -> u32 {
    let (start, rest) = bytes.split_at_checked(FIELD_AT).unwrap_or((bytes, &[]));
    let mut sum = Sum::new();
    sum.add(start);
    sum.add(rest.first_chunk::<4>().map_or(&[][..], |_| &[0; 4]));
    sum.add(rest.get(4..).unwrap_or_default());
    sum.finish()
}

/// Puts its checksum into a structure.
pub(crate) fn put_checksum(bytes: &mut [u8]) {
    let sum = crc32c_with_field_zeroed(bytes);
    if let Some(field) = bytes.get_mut(FIELD_AT..).and_then(<[u8]>::first_chunk_mut) {
        *field = sum.to_le_bytes();
    }
}

struct Sum(u32);

impl Sum {
    fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let word = u64::from_le_bytes(*eight) ^ u64::from(self.0);
            self.0 = word
                .to_le_bytes()
                .iter()
                .zip(TABLES.iter().rev())
                .fold(0, |sum, (byte, table)| sum ^ lookup(table, *byte));
        }
        for byte in rest {
            let [low, ..] = self.0.to_le_bytes();
            let [table, ..] = &TABLES;
            self.0 = (self.0 >> 8) ^ lookup(table, low ^ byte);
        }
    }

    fn finish(self) -> u32 {
        !self.0
    }
}

#[expect(clippy::indexing_slicing, reason = "a byte is always inside of a table of 256")]
fn lookup(table: &[u32; 256], byte: u8) -> u32 {
    table[usize::from(byte)]
}

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "evaluated when compiled, where a mistake would be an error"
)]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0_u32;
    while byte < 256 {
        let mut sum = byte;
        let mut bit = 0_u32;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte as usize] = sum;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0_u32;
        while byte < 256 {
            let before = tables[n - 1][byte as usize];
            tables[n][byte as usize] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc32c(bytes: &[u8]) -> u32 {
        let mut sum = Sum::new();
        sum.add(bytes);
        sum.finish()
    }

    #[test]
    fn sums_are_those_of_the_internet_standard() {
        // RFC 3720, section B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
    }

    #[test]
    fn the_field_counts_as_zero() {
        let mut bytes = *b"sign1234 and more than eight bytes";
        let sum = crc32c_with_field_zeroed(&bytes);
        assert_eq!(sum, crc32c(b"sign\0\0\0\0 and more than eight bytes"));
        put_checksum(&mut bytes);
        assert_eq!(bytes[4..8], sum.to_le_bytes());
        assert_eq!(crc32c_with_field_zeroed(&bytes), sum);
    }
}
