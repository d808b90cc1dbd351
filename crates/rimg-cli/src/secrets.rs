//! `--object secret,id=…`: passphrases by name, plain, in files, in base64, or wrapped with
//! another secret.

use crate::json::{ReadError, read_options};
use crate::message::{Stop, describe_io};
use crate::options::split_list;
use rimg::{RawOptions, Secret};
use rimg_crypto::decrypt_aes_cbc;
use std::ffi::OsStr;
use std::fs;

/// The bytes of a block of AES, and of an initialisation vector.
const BLOCK_BYTES: usize = 16;
/// Wrapping is done with AES-256.
const KEY_BYTES: usize = 32;

/// Objects that qemu-img has and that nothing here can refer to: what would is refused itself.
const WITHOUT_EFFECT: &[&str] = &[
    "authz-list",
    "authz-list-file",
    "authz-simple",
    "thread-context",
    "throttle-group",
    "tls-creds-anon",
    "tls-creds-psk",
    "tls-creds-x509",
];

/// Adds the object that an `--object` flag defines to `secrets`.
///
/// # Errors
/// The message.
pub(crate) fn add_object(secrets: &mut RawOptions, definition: &OsStr) -> Result<(), Stop> {
    // Whatever took the place of odd bytes would be part of a passphrase.
    let definition = definition.to_str().ok_or_else(|| {
        Stop::failed("Objects have to be valid UTF-8: give odd bytes as a file or in base64")
    })?;
    add(secrets, definition).map_err(Stop::failed)
}

fn add(secrets: &mut RawOptions, definition: &str) -> Result<(), String> {
    let object = Object::parse(definition)?;
    let kind = object.value("qom-type").ok_or("Parameter 'qom-type' is missing")?;
    if kind != "secret" && !WITHOUT_EFFECT.contains(&kind) {
        return Err(format!("Parameter 'qom-type' does not accept value '{kind}'"));
    }
    let id = object.value("id").ok_or("Parameter 'id' is missing")?;
    if kind != "secret" {
        return Ok(());
    }
    let known = ["qom-type", "id", "data", "file", "format", "keyid", "iv"];
    if let Some((unknown, _)) = object.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(format!("Parameter '{unknown}' is unexpected"));
    }
    let is_base64 = match object.value("format") {
        None | Some("raw") => false,
        Some("base64") => true,
        Some(other) => return Err(format!("Parameter 'format' does not accept value '{other}'")),
    };
    if !is_identifier(id) {
        return Err("Parameter 'id' expects an identifier\n\
                    Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
            .to_owned());
    }
    let given = object.bytes()?;
    let secret = match object.value("keyid") {
        Some(key) => object.unwrap(secrets, key, &given, is_base64)?,
        None if is_base64 => decode_base64(given.expose())?,
        None => given,
    };
    if secrets.secret(id).is_some() {
        return Err(format!(
            "attempt to add duplicate property '{id}' to object (type 'container')"
        ));
    }
    secrets.add_secret(id, secret);
    Ok(())
}

/// Names and values of a definition.
struct Object(Vec<(String, Secret)>);

impl Object {
    /// Reads `TYPE,name=value,…` or a JSON object.
    fn parse(definition: &str) -> Result<Self, String> {
        if definition.starts_with('{') {
            let entries = read_options(definition)
                .map_err(|ReadError(reason)| format!("JSON parse error, {reason}"))?;
            return Ok(Self(entries.into_iter().map(forgotten).collect()));
        }
        let mut entries = Vec::new();
        for (index, (name, value)) in split_list(definition).into_iter().enumerate() {
            entries.push(match value {
                Some(value) => forgotten((name, value)),
                None if index == 0 => forgotten(("qom-type".to_owned(), name)),
                None => return Err(format!("Expected '=' after parameter '{name}'")),
            });
        }
        Ok(Self(entries))
    }

    /// The last value counts.
    fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.and_then(|(_, value)| str::from_utf8(value.expose()).ok())
    }

    /// What the definition holds, or the file that it names.
    fn bytes(&self) -> Result<Secret, String> {
        match (self.value("data"), self.value("file")) {
            (Some(_), Some(_)) => Err("'file' and 'data' are mutually exclusive".to_owned()),
            (None, None) => Err("Either 'file' or 'data' must be provided".to_owned()),
            (Some(data), None) => Ok(Secret::from(data)),
            (None, Some(path)) => match fs::read(path) {
                Ok(bytes) => Ok(Secret::new(bytes)),
                Err(error) => {
                    let why = describe_io(&error);
                    Err(format!("Unable to read {path}: Failed to open file “{path}”: {why}"))
                }
            },
        }
    }

    /// Decrypts what was wrapped with the secret `key`.
    fn unwrap(
        &self,
        secrets: &RawOptions,
        key: &str,
        given: &Secret,
        is_base64: bool,
    ) -> Result<Secret, String> {
        let key = secrets.secret(key).ok_or_else(|| format!("No secret with id '{key}'"))?;
        if key.len_bytes() != KEY_BYTES {
            return Err(format!("Key should be {KEY_BYTES} bytes in length"));
        }
        let vector = self.value("iv").ok_or("IV is required to decrypt secret")?;
        let vector = decode_base64(vector.as_bytes())?;
        let vector: &[u8; BLOCK_BYTES] = vector.expose().try_into().map_err(|_| {
            let len = vector.len_bytes();
            format!("IV should be {BLOCK_BYTES} bytes in length not {len}")
        })?;
        let decoded = if is_base64 { Some(decode_base64(given.expose())?) } else { None };
        let wrapped = decoded.as_ref().unwrap_or(given).expose();
        if !wrapped.len().is_multiple_of(BLOCK_BYTES) {
            let len = wrapped.len();
            return Err(format!("Length {len} must be a multiple of block size {BLOCK_BYTES}"));
        }
        let plain =
            decrypt_aes_cbc(key.expose(), vector, wrapped).map_err(|error| error.to_string())?;
        let padding = plain.expose().last().copied().unwrap_or_default();
        let len = plain.len_bytes().checked_sub(padding.into());
        match len.and_then(|len| plain.expose().get(..len)) {
            Some(bytes) if usize::from(padding) <= BLOCK_BYTES => Ok(Secret::from(bytes)),
            _ => Err(format!(
                "Incorrect number of padding bytes ({padding}) found on decrypted data"
            )),
        }
    }
}

/// Any value may be the secret: it is overwritten when it is dropped.
fn forgotten((name, value): (String, String)) -> (String, Secret) {
    (name, Secret::new(value.into_bytes()))
}

fn is_identifier(id: &str) -> bool {
    let starts_well = id.starts_with(|letter: char| letter.is_ascii_alphabetic());
    starts_well && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

/// Decodes base64 as qemu-img does: line ends are skipped, an incomplete group at the end is
/// dropped.
fn decode_base64(text: &[u8]) -> Result<Secret, String> {
    let mut sextets = Vec::with_capacity(text.len());
    for letter in text {
        sextets.push(match letter {
            b'A'..=b'Z' => letter.wrapping_sub(b'A'),
            b'a'..=b'z' => letter.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => letter.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            b'=' => PADDING,
            b'\r' | b'\n' => continue,
            _ => return Err("Base64 data contains invalid characters".to_owned()),
        });
    }
    let sextets = Secret::new(sextets);
    let mut bytes = Vec::with_capacity(text.len());
    for group in sextets.expose().as_chunks::<4>().0 {
        let padding = group.iter().rev().take_while(|sextet| **sextet == PADDING).count();
        let bits = group.iter().fold(0_u32, |bits, sextet| (bits << 6) | u32::from(sextet & 63));
        let [_, three @ ..] = bits.to_be_bytes();
        bytes.extend(three.iter().take(three.len().saturating_sub(padding)));
    }
    Ok(Secret::new(bytes))
}

/// Stands for `=`; its lower six bits are 0.
const PADDING: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(definitions: &[&str]) -> Result<Vec<u8>, String> {
        let mut secrets = RawOptions::new();
        for definition in definitions {
            add(&mut secrets, definition)?;
        }
        Ok(secrets.secret("x").unwrap().expose().to_vec())
    }

    #[test]
    fn secrets_in_every_form() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "line\n").unwrap();
        let in_file = format!("secret,id=x,file={}", file.path().display());
        // openssl enc -aes-256-cbc -K 00…1f -iv 00…0f -a
        let key = "secret,id=k,format=base64,data=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let wrapped = "secret,id=x,keyid=k,iv=AAECAwQFBgcICQoLDA0ODw==,format=base64,\
                       data=f9Etr7fpWZ0LhJrYwuPCHw==";
        for (definitions, expected) in [
            (&["secret,id=x,data=a,,b"][..], &b"a,b"[..]),
            (&["secret,id=x,data="], b""),
            (&["qom-type=secret,data=a,id=x"], b"a"),
            (&["secret,id=x,format=base64,data=YWJj\nZA=="], b"abcd"),
            (&["secret,id=x,format=base64,data=YWJjZA"], b"abc"),
            (&[&in_file], b"line\n"),
            (&[r#"{"qom-type":"secret","id":"x","data":"a"}"#], b"a"),
            (&["throttle-group,id=t", "secret,id=x,data=b"], b"b"),
            (&[key, wrapped], b"hello"),
        ] {
            assert_eq!(secret(definitions).as_deref(), Ok(expected), "{definitions:?}");
        }
    }
}
