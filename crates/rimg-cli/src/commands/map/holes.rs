//! Entries for holes in space that an image's tables give to the guest: `map` says that the data
//! is zero there.

use rimg::{
    BlockImage, Error, FileHoles, FileOffset, HostOffset, InFile, MapEntry, Result, Storage,
    StorageRun,
};
use std::collections::VecDeque;

/// Cuts entries at the borders of holes, in the layers where that is worth it.
#[derive(Debug)]
pub(super) struct Holes<'a> {
    /// Of each layer of the chain; 0 is the top.
    layers: Vec<FileHoles<'a>>,
    /// What a raw image lies in, where a server may say that zeroes take up space.
    server: Option<&'a dyn Storage>,
    /// Pieces of the last entry.
    pieces: VecDeque<MapEntry>,
}

impl<'a> Holes<'a> {
    pub(super) fn new(top: &'a dyn BlockImage, server: Option<&'a dyn Storage>) -> Self {
        let below = std::iter::successors(top.backing(), |image| image.backing());
        let images = std::iter::once(top).chain(below.map(|image| &**image));
        let layers = images.map(FileHoles::of).collect();
        Self { layers, server, pieces: VecDeque::new() }
    }

    /// The next piece of what was cut last.
    pub(super) fn next_piece(&mut self) -> Option<MapEntry> {
        self.pieces.pop_front()
    }

    /// Takes an entry apart.
    pub(super) fn cut(&mut self, entry: MapEntry) -> Result<()> {
        if let (Some(server), Some(place), true) = (self.server, entry.place, entry.zero)
            && entry.depth == 0
        {
            return self.cut_zeroes(server, place, entry);
        }
        let layer = self.layers.get_mut(entry.depth);
        let has_place =
            entry.place.is_some() && layer.as_ref().is_some_and(|layer| layer.has_all_places());
        let entry = MapEntry { data: entry.data || has_place, ..entry };
        let (layer, place) = match (layer, entry.place) {
            // What lies in another file is data to QEMU, whatever that file has there.
            (Some(layer), Some(place))
                if entry.data && place.file == 0 && layer.looks_into(place.file) =>
            {
                (layer, place)
            }
            _ => {
                self.pieces.push_back(entry);
                return Ok(());
            }
        };
        let mut done = 0;
        while done < entry.len_bytes {
            let left = entry.len_bytes.saturating_sub(done);
            let host = HostOffset(place.host.0.saturating_add(done));
            let place = FileOffset { file: place.file, host };
            let (len_bytes, what) = layer.run_at(place, left)?;
            let zero = what != InFile::Data;
            let piece = MapEntry {
                start: entry.start.saturating_add(done),
                len_bytes,
                zero,
                place: Some(place),
                ..entry
            };
            match self.pieces.back_mut() {
                Some(last) if last.zero == zero => {
                    last.len_bytes = last.len_bytes.saturating_add(len_bytes);
                }
                _ => self.pieces.push_back(piece),
            }
            done = done.saturating_add(len_bytes);
        }
        Ok(())
    }

    /// Takes zeroes apart into those that take up space, which are shown as data, and others.
    fn cut_zeroes(
        &mut self,
        server: &dyn Storage,
        place: FileOffset,
        entry: MapEntry,
    ) -> Result<()> {
        let mut done = 0;
        while done < entry.len_bytes {
            let host = place.host.0.saturating_add(done);
            let failed = |error| Error::Io { op: "look for holes", at: host, source: error };
            let run = match server.len_bytes().map_err(failed)?.saturating_sub(host) {
                // The rest of the last sector.
                0 => StorageRun::hole(entry.len_bytes),
                _ => server.run_at(host).map_err(failed)?,
            };
            let len_bytes = run.len_bytes.clamp(1, entry.len_bytes.saturating_sub(done));
            let place = FileOffset { host: HostOffset(host), ..place };
            let start = entry.start.saturating_add(done);
            let (data, place) = (run.is_allocated, Some(place));
            match self.pieces.back_mut() {
                Some(last) if last.data == data => {
                    last.len_bytes = last.len_bytes.saturating_add(len_bytes);
                }
                _ => self.pieces.push_back(MapEntry { start, len_bytes, data, place, ..entry }),
            }
            done = done.saturating_add(len_bytes);
        }
        Ok(())
    }
}
