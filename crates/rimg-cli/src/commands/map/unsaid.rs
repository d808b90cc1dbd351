//! What QEMU does not know of an image, for scripts that ask qemu-img.

use crate::images::Opened;
use crate::message::Stop;
use rimg::MapEntry;

/// Formats of which QEMU reads the data but does not tell where it lies: all of it is data,
/// somewhere.
const FORMATS: &[&str] = &["bochs", "cloop", "dmg", "vhdx"];

/// The entries as qemu-img shows them.
pub(super) fn as_qemu_knows(
    opened: &Opened,
    entries: impl Iterator<Item = Result<MapEntry, Stop>>,
) -> impl Iterator<Item = Result<MapEntry, Stop>> {
    let mut entries = entries.map(|entry| Ok(unsaid(opened, entry?))).peekable();
    std::iter::from_fn(move || {
        let mut entry = match entries.next()? {
            Ok(entry) => entry,
            failed => return Some(failed),
        };
        let depth = entry.depth;
        let goes_on =
            |next: &Result<MapEntry, Stop>| next.as_ref().is_ok_and(|next| next.depth == depth);
        while is_unsaid(opened, &entry)
            && let Some(Ok(next)) = entries.next_if(goes_on)
        {
            entry.len_bytes = entry.len_bytes.saturating_add(next.len_bytes);
        }
        Some(Ok(entry))
    })
}

fn is_unsaid(opened: &Opened, entry: &MapEntry) -> bool {
    FORMATS.contains(&opened.format_at(entry.depth))
}

fn unsaid(opened: &Opened, entry: MapEntry) -> MapEntry {
    if !is_unsaid(opened, &entry) {
        return entry;
    }
    MapEntry { present: true, zero: false, data: true, compressed: false, place: None, ..entry }
}
