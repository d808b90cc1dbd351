//! What an image says of itself.

use crate::bitmap::Bitmap;
use crate::crypt::Encryption;
use crate::error::FORMAT;
use crate::header::Header;
use crate::image::Qcow2Image;
use crate::spec::{self, bitmap_flag};
use rimg_core::{BlockImage as _, ImageInfo, InfoValue, Result, Snapshots as _};

/// The flags of a bitmap under QEMU's names.
const BITMAP_FLAGS: [(u32, &str); 2] =
    [(bitmap_flag::IN_USE, "in-use"), (bitmap_flag::AUTO, "auto")];

impl Qcow2Image {
    pub(crate) fn describe(&self) -> Result<ImageInfo> {
        let header = self.lock()?.header.clone();
        let bitmaps = self.bitmap_entries()?;
        Ok(ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.size_bytes(),
            cluster_bytes: Some(self.geometry.cluster_bytes()),
            subcluster_bytes: self.geometry.extended_l2.then(|| self.geometry.subcluster_bytes()),
            encrypted: header.crypt_method != spec::crypt::NONE,
            dirty: header.has(spec::incompatible::DIRTY),
            backing_file: header.backing_name.clone(),
            backing_format: header.backing_format().map(str::to_owned),
            data_file: data_file_name(&header).map(str::to_owned),
            snapshots: self.list()?,
            specific: specific(&header, &bitmaps, self.encryption.as_deref()),
            ..ImageInfo::default()
        })
    }
}

fn data_file_name(header: &Header) -> Option<&str> {
    header.data_file_name().filter(|_| header.has(spec::incompatible::DATA_FILE))
}

/// Under the names and in the order of QEMU's JSON.
fn specific(
    header: &Header,
    bitmaps: &[Bitmap],
    encryption: Option<&Encryption>,
) -> Vec<(&'static str, InfoValue)> {
    let text = |text: &str| InfoValue::Text(text.to_owned());
    let is_version_3 = header.version >= 3;
    let compression = match header.compression_type {
        spec::compression::ZSTD => "zstd",
        _ => "zlib",
    };
    let mut specific = vec![
        ("compat", text(if is_version_3 { "1.1" } else { "0.10" })),
        ("compression-type", text(compression)),
    ];
    let lazy = header.compatible & spec::compatible::LAZY_REFCOUNTS != 0;
    if is_version_3 {
        specific.push(("lazy-refcounts", InfoValue::Bool(lazy)));
    }
    if !bitmaps.is_empty() {
        specific.push(("bitmaps", InfoValue::List(bitmaps.iter().map(describe_bitmap).collect())));
    }
    let refcount_bits = header.geometry.refcount.bits();
    specific.push(("refcount-bits", InfoValue::Number(refcount_bits.into())));
    if let Some(encryption) = encryption {
        specific.push(("encrypt", encryption.describe()));
    }
    if header.has(spec::incompatible::DATA_FILE) {
        let is_raw = header.autoclear & spec::autoclear::DATA_FILE_RAW != 0;
        if let Some(name) = data_file_name(header) {
            specific.push(("data-file", text(name)));
        }
        specific.push(("data-file-raw", InfoValue::Bool(is_raw)));
    }
    if is_version_3 {
        specific.push(("corrupt", InfoValue::Bool(header.has(spec::incompatible::CORRUPT))));
        specific.push(("extended-l2", InfoValue::Bool(header.geometry.extended_l2)));
    }
    specific
}

fn describe_bitmap(bitmap: &Bitmap) -> InfoValue {
    let flags = BITMAP_FLAGS
        .iter()
        .filter(|(bit, _)| bitmap.raw.flags & bit != 0)
        .map(|(_, name)| InfoValue::Text((*name).to_owned()))
        .collect();
    InfoValue::Map(vec![
        ("flags", InfoValue::List(flags)),
        ("name", InfoValue::Text(bitmap.name.clone())),
        ("granularity", InfoValue::Number(1 << bitmap.raw.granularity_bits.min(63))),
    ])
}
