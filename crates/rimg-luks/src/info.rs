//! What the image says of itself.

use crate::FORMAT;
use crate::header::Header;
use crate::image::LuksImage;
use rimg_core::{BlockImage as _, ImageInfo, InfoValue};

impl LuksImage {
    pub(crate) fn describe(&self) -> ImageInfo {
        let specific = match &self.header {
            Header::V1(header) => header.describe(),
            Header::V2(header) => {
                let segment = header.segment();
                let text = |text: &str| InfoValue::Text(text.to_owned());
                vec![
                    ("version", InfoValue::Number(2)),
                    ("uuid", text(header.uuid())),
                    ("label", text(header.label())),
                    ("cipher-alg", text(segment.cipher.algorithm.name())),
                    ("cipher-mode", text(segment.cipher.mode.name())),
                    ("ivgen-alg", text(segment.cipher.iv.name())),
                    ("sector-size", InfoValue::Number(segment.sector_bytes)),
                    ("payload-offset", InfoValue::Number(segment.offset)),
                ]
            }
        };
        ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.size_bytes(),
            encrypted: true,
            specific,
            ..ImageInfo::default()
        }
    }
}
