//! Bringing creation options to their plain form, by the format's own table.

use rimg_core::{Error, FormatInfo, OptionKind, OptionSpec, RawOptions, Result};

/// Refuses names that the format does not know, and brings sizes to plain bytes and truth values
/// to `on` and `off`.
pub(crate) fn normalise(format: &FormatInfo, options: &RawOptions) -> Result<RawOptions> {
    let mut plain = options.clone();
    for (name, value) in options.iter() {
        let spec = format
            .create_option(name)
            .ok_or_else(|| invalid("options", format!("Invalid parameter '{name}'")))?;
        plain.set(name, normalise_value(spec, value)?);
    }
    Ok(plain)
}

fn normalise_value(spec: &OptionSpec, value: &str) -> Result<String> {
    let name = spec.name;
    match spec.kind {
        OptionKind::Text => Ok(value.to_owned()),
        OptionKind::Bool => match value {
            "on" | "yes" | "true" | "y" => Ok("on".to_owned()),
            "off" | "no" | "false" | "n" => Ok("off".to_owned()),
            _ => Err(invalid(name, format!("Parameter '{name}' expects 'on' or 'off'"))),
        },
        OptionKind::Number => match value.parse::<u64>() {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err(invalid(name, format!("Parameter '{name}' expects a number"))),
        },
        OptionKind::Size => match parse_size(value) {
            Some(bytes) => Ok(bytes.to_string()),
            None => Err(invalid(
                name,
                format!(
                    "Parameter '{name}' expects a non-negative number below 2^64\n\
                     Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                     and exabytes, respectively."
                ),
            )),
        },
    }
}

/// A number of bytes as qemu-img takes it: decimal, perhaps with a fraction, or hexadecimal, with
/// an optional suffix `b`, `k`, `M`, `G`, `T`, `P` or `E` (powers of 1024, in either case). A
/// fraction of a byte is cut off.
///
/// `None` for what is no such number, and for 2^64 bytes and more.
/// ```
/// use rimg::parse_size;
///
/// assert_eq!(parse_size("64k"), Some(65_536));
/// assert_eq!(parse_size("1.5G"), Some(1_610_612_736));
/// assert_eq!(parse_size("0x200"), Some(512));
/// assert_eq!(parse_size("16E"), None);
/// assert_eq!(parse_size("-1"), None);
/// ```
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // `b` and `e` are digits here, so there is no suffix.
        return hex_digits(hex);
    }
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, suffix)) if suffix.is_ascii_alphabetic() => (text.get(..at)?, shift_of(suffix)?),
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?).checked_shl(shift)?;
    u64::try_from(whole.checked_add(fraction_bytes(fraction, shift))?).ok()
}

fn hex_digits(hex: &str) -> Option<u64> {
    let valid = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(hex, 16).ok().filter(|_| valid)
}

fn shift_of(suffix: char) -> Option<u32> {
    Some(match suffix.to_ascii_lowercase() {
        'b' => 0,
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        'p' => 50,
        'e' => 60,
        _ => return None,
    })
}

/// The bytes of a decimal fraction of `1 << shift`, rounded down.
fn fraction_bytes(fraction: &str, shift: u32) -> u128 {
    // Eighteen digits tell bytes of an exabyte apart, and stay within 128 bits.
    let digits: String = fraction.chars().take(18).collect();
    let scale = digits.chars().fold(1_u128, |scale, _| scale.saturating_mul(10));
    let value = digits.parse::<u128>().unwrap_or(0);
    value.checked_shl(shift).unwrap_or(0).checked_div(scale).unwrap_or(0)
}

pub(crate) fn invalid(option: &'static str, reason: String) -> Error {
    Error::InvalidOption { option, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FORMATS;

    #[test]
    fn sizes_with_every_suffix() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("1K", 1 << 10),
            ("1m", 1 << 20),
            ("3G", 3 << 30),
            ("2t", 2 << 40),
            ("1P", 1 << 50),
            ("15e", 15 << 60),
            ("0.5k", 512),
            ("1.000000000000000001k", 1024),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "k", ".5k", "1kk", "1 k", "+1", "-1", "1x", "16E", "0x", "0x+1", "1e5"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_checked_by_the_table() {
        let raw = crate::driver(FORMATS, "raw").unwrap().format();
        let given = RawOptions::new().with("extent_size_hint", "64k").with("nocow", "on");
        let plain = normalise(raw, &given).unwrap();
        assert_eq!(plain.value("extent_size_hint"), Some("65536"));
        assert_eq!(plain.value("nocow"), Some("on"));
        let error = normalise(raw, &RawOptions::new().with("bla", "1")).unwrap_err();
        assert_eq!(error.to_string(), "Invalid parameter 'bla'");
        let error = normalise(raw, &RawOptions::new().with("nocow", "1")).unwrap_err();
        assert_eq!(error.to_string(), "Parameter 'nocow' expects 'on' or 'off'");
    }
}
