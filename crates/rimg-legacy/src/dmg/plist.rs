//! The property list: as much of XML as it takes to find the tables, which are texts in base64 at
//! resource-fork, blkx, Data.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// Nothing in a property list is nested so deeply.
const MAX_DEPTH: usize = 32;

/// The decoded tables, in the order of the list.
///
/// # Errors
/// What is wrong with the list.
pub(super) fn tables(list: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let list = str::from_utf8(list).map_err(|_| "not UTF-8")?;
    // For each dictionary and array that is open, the key that it has in the one around it.
    let mut open: Vec<&str> = Vec::new();
    let mut key = "";
    let mut tables = Vec::new();
    let mut rest = list;
    while let Some((_, tag)) = rest.split_once('<') {
        if let Some(comment) = tag.strip_prefix("!--") {
            rest = comment.split_once("-->").ok_or("a comment does not end")?.1;
            continue;
        }
        let (tag, after) = tag.split_once('>').ok_or("a tag does not end")?;
        rest = after;
        match tag.split_whitespace().next().unwrap_or_default() {
            "dict" | "array" => {
                if open.len() >= MAX_DEPTH {
                    return Err("nested too deeply");
                }
                open.push(core::mem::take(&mut key));
            }
            "/dict" | "/array" => {
                open.pop().ok_or("something ends that did not begin")?;
            }
            "key" => {
                let (text, after) = after.split_once("</key>").ok_or("a key does not end")?;
                (key, rest) = (text.trim(), after);
            }
            "data" => {
                let (text, after) = after.split_once("</data>").ok_or("data does not end")?;
                rest = after;
                if key == "Data" && matches!(open.as_slice(), [_, "resource-fork", "blkx", _]) {
                    tables.push(decode_base64(text).ok_or("data is not base64")?);
                }
            }
            _ => {}
        }
    }
    Ok(tables)
}

/// Decodes base64 (RFC 4648, section 4) with white space in between.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes().filter(|letter| !letter.is_ascii_whitespace()) {
        let sextet = match letter {
            b'A'..=b'Z' => letter.wrapping_sub(b'A'),
            b'a'..=b'z' => letter.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => letter.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            b'=' => continue,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(sextet);
        count = count.wrapping_add(6);
        if count >= 8 {
            count = count.wrapping_sub(8);
            let [.., byte] = (bits >> count).to_be_bytes();
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_are_taken() {
        let list = b"<?xml version=\"1.0\"?><!DOCTYPE plist><plist version=\"1.0\"><dict>
            <!-- <key>resource-fork</key> --><key>other</key><data>AAAA</data>
            <key>resource-fork</key><dict>
                <key>blkx</key><array>
                    <dict><key>Attributes</key><string>0x0050</string><key>Data</key>
                        <data>\n\tbWlz\n\taA==\n</data><key>ID</key><string>0</string></dict>
                    <dict><key>Data</key><data>YWJj</data></dict>
                </array>
                <key>plst</key><array><dict><key>Data</key><data>ZGVm</data></dict></array>
            </dict></dict></plist>";
        assert_eq!(tables(list).unwrap(), [b"mish".to_vec(), b"abc".to_vec()]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let deep = "<dict>".repeat(100);
        for (list, what) in [
            ("<dict", "a tag does not end"),
            ("<!-- <dict>", "a comment does not end"),
            ("</dict>", "something ends that did not begin"),
            ("<dict><key>a", "a key does not end"),
            ("<dict><data>a", "data does not end"),
            (&deep, "nested too deeply"),
            (
                "<dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Data</key>\
                 <data>*</data>",
                "data is not base64",
            ),
        ] {
            assert_eq!(tables(list.as_bytes()), Err(what), "{list}");
        }
        assert_eq!(tables(&[0xff]), Err("not UTF-8"));
        assert_eq!(tables(b""), Ok(Vec::new()));
    }
}
