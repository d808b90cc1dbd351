//! Sizes: as people type them, and as they are printed for people.

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeError {
    /// It does not look like one, or is negative and more than digits.
    Malformed,
    /// It is negative, or has more than 64 bits.
    OutOfRange,
}

/// The letters behind a number, and what they multiply it with as a power of two.
const SUFFIXES: [(u8, u32); 7] =
    [(b'B', 0), (b'K', 10), (b'M', 20), (b'G', 30), (b'T', 40), (b'P', 50), (b'E', 60)];

/// Reads a number of bytes: decimal with an optional fraction and suffix (`1.5G`, in powers of
/// 1024, either case), or hexadecimal without (`0x200`). Fractions are rounded to whole bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let size = parse_magnitude(text)?;
    if negative {
        // qemu-img sees the sign where there are digits alone; anything else is no number to it.
        let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if is_whole { SizeError::OutOfRange } else { SizeError::Malformed });
    }
    size.ok_or(SizeError::OutOfRange)
}

/// The size without its sign; `None` when it needs more than 64 bits.
fn parse_magnitude(text: &str) -> Result<Option<u64>, SizeError> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SizeError::Malformed);
        }
        return Ok(u64::from_str_radix(digits, 16).ok());
    }
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(SizeError::Malformed);
    }
    let shift = match rest.as_bytes() {
        [] => 0,
        [letter] => {
            let letter = letter.to_ascii_uppercase();
            let known = SUFFIXES.iter().find(|(suffix, _)| *suffix == letter);
            known.ok_or(SizeError::Malformed)?.1
        }
        _ => return Err(SizeError::Malformed),
    };
    let fraction_bytes = fraction_of(fraction, shift);
    if shift == 0 && fraction.bytes().any(|digit| digit != b'0') {
        return Err(SizeError::Malformed);
    }
    let whole = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
    Ok(whole
        .and_then(|whole| whole.checked_mul(1 << shift))
        .and_then(|bytes| bytes.checked_add(fraction_bytes)))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `0.digits` of 2^`shift`, rounded to the nearest.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction of at most 2^60, rounded before it is converted"
)]
fn fraction_of(digits: &str, shift: u32) -> u64 {
    let fraction: f64 = format!("0.{digits}0").parse().unwrap_or(0.0);
    (fraction * 2f64.powi(shift.cast_signed()) + 0.5) as u64
}

/// A number of bytes for people: three digits and a binary unit (`1.5 GiB`).
///
/// The unit is the one that keeps the number at or below three digits before the point: 1000 KiB
/// are `0.977 MiB`.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "three digits are shown, an f64 has fifteen"
)]
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}B", three_digits(value))
}

/// As C's `%.3g` prints a value in 0..1024.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.2e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent >= 3 {
        return format!("{}e+{exponent:02}", trim_fraction(mantissa));
    }
    let decimals = usize::try_from(2_i32.saturating_sub(exponent)).unwrap_or_default();
    trim_fraction(&format!("{value:.decimals$}")).to_owned()
}

fn trim_fraction(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_qemu_img_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("010", 10),
            ("+1", 1),
            (" 1", 1),
            ("1b", 1),
            ("1.0", 1),
            ("1.0B", 1),
            ("1k", 1 << 10),
            ("1K", 1 << 10),
            ("1.5G", 1_610_612_736),
            (".5G", 536_870_912),
            ("5.g", 5 << 30),
            ("1e", 1 << 60),
            ("0.1k", 102),
            ("0.1M", 104_858),
            ("3.7M", 3_879_731),
            ("1.9999999999k", 2048),
            ("0.0000000001E", 115_292_150),
            ("1.23456789012345678G", 1_325_607_178),
            ("0x10b", 267),
            ("0XFF", 255),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_from_what_is_too_large() {
        for text in [
            "", "k", ".", ".k", "12x", "1kb", "1KiB", "1 ", "1.5", "0.3", "1.5b", "1e3", "0x",
            "0x1G", "0x1.8", "1Z", "inf", "1_0", "1.1.1", "1,5G", "1.-5k", "- 1", "+-1", "-1k",
            "-1.0", "-1b", "-0x10", "-0k",
        ] {
            assert_eq!(parse_size(text), Err(SizeError::Malformed), "{text}");
        }
        for text in ["-1", " -5", "-0", "16E", "18446744073709551616", "99999999999999999999"] {
            assert_eq!(parse_size(text), Err(SizeError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (999, "999 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10_752, "10.5 KiB"),
            (1_024_000, "0.977 MiB"),
            (1_047_040, "0.999 MiB"),
            (1_048_064, "1 MiB"),
            (1_153_536, "1.1 MiB"),
            (1_101_312, "1.05 MiB"),
            (1_048_471_552, "1e+03 MiB"),
            (1_048_576_000, "0.977 GiB"),
            (107_320_495_616, "100 GiB"),
            (13_255_343_104, "12.3 GiB"),
            (1_325_534_281_728, "1.21 TiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
    }
}
