//! On-disk structures as tables of (field, type, offset).
//!
//! [`on_disk!`](crate::on_disk) makes a plain struct from such a table, with `parse`, `encode` and
//! the offset of every field by name, so that an error can say where the field lies. That fields
//! neither overlap nor stick out is checked when the program is compiled.
//!
//! ```
//! rimg_core::on_disk! {
//!     /// A header.
//!     pub struct Header: BigEndian, 16 bytes {
//!         /// Says what it is.
//!         magic: u32 = 0,
//!         /// How many entries follow.
//!         entries: u16 = 4,
//!         /// Where they start.
//!         table_offset: u64 = 8,
//!     }
//! }
//!
//! let header = Header::parse(&[0x51, 0x46, 0x49, 0xfb, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
//! assert_eq!((header.magic, header.entries, header.table_offset), (0x5146_49fb, 3, 512));
//! assert_eq!(Header::offset_of("table_offset"), 8);
//! assert_eq!(Header::parse(&header.encode()), header);
//! ```

#[doc(hidden)]
pub use byteorder;

/// Declares an on-disk structure; see the [module](crate::ondisk) for an example.
///
/// The byte order is `BigEndian` or `LittleEndian`; field types are `u8`, `u16`, `u32`, `u64`.
#[macro_export]
macro_rules! on_disk {
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident: $order:ident, $size:literal bytes {
            $( $(#[$field_doc:meta])* $field:ident: $ty:tt = $offset:literal ),+ $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        $vis struct $name {
            $( $(#[$field_doc])* $vis $field: $ty, )+
        }

        #[allow(dead_code, reason = "not every structure is both read and written")]
        impl $name {
            /// The size of the structure in bytes.
            $vis const SIZE_BYTES: usize = $size;

            const LAYOUT: &'static [(&'static str, usize, usize)] =
                &[ $( (stringify!($field), $offset, size_of::<$ty>()), )+ ];

            const LAYOUT_IS_SOUND: () = {
                let mut end = 0;
                let mut i = 0;
                while i < Self::LAYOUT.len() {
                    assert!(Self::LAYOUT[i].1 >= end, "fields overlap or are out of order");
                    end = Self::LAYOUT[i].1 + Self::LAYOUT[i].2;
                    i += 1;
                }
                assert!(end <= $size, "a field sticks out");
            };

            /// Reads every field.
            #[must_use]
            $vis fn parse(bytes: &[u8; $size]) -> Self {
                const { Self::LAYOUT_IS_SOUND };
                Self { $( $field: $crate::on_disk!(@get $order $ty, bytes, $offset), )+ }
            }

            /// Writes every field; bytes that belong to none are 0.
            #[must_use]
            $vis fn encode(&self) -> [u8; $size] {
                const { Self::LAYOUT_IS_SOUND };
                let mut bytes = [0; $size];
                $( $crate::on_disk!(@put $order $ty, bytes, $offset, self.$field); )+
                bytes
            }

            /// The offset of a field in bytes, for [`Location`]($crate::Location)s.
            ///
            /// # Panics
            /// For a name that is no field's; call it with literals.
            #[must_use]
            $vis const fn offset_of(field: &str) -> u64 {
                let mut i = 0;
                while i < Self::LAYOUT.len() {
                    if $crate::ondisk::same(Self::LAYOUT[i].0, field) {
                        return $crate::num::to_u64(Self::LAYOUT[i].1);
                    }
                    i += 1;
                }
                panic!("no such field")
            }
        }
    };
    (@get $order:ident u8, $bytes:ident, $offset:literal) => { $bytes[$offset] };
    (@get $order:ident u16, $bytes:ident, $offset:literal) => {
        <$crate::ondisk::byteorder::$order as $crate::ondisk::byteorder::ByteOrder>::read_u16(&$bytes[$offset..])
    };
    (@get $order:ident u32, $bytes:ident, $offset:literal) => {
        <$crate::ondisk::byteorder::$order as $crate::ondisk::byteorder::ByteOrder>::read_u32(&$bytes[$offset..])
    };
    (@get $order:ident u64, $bytes:ident, $offset:literal) => {
        <$crate::ondisk::byteorder::$order as $crate::ondisk::byteorder::ByteOrder>::read_u64(&$bytes[$offset..])
    };
    (@put $order:ident u8, $bytes:ident, $offset:literal, $value:expr) => { $bytes[$offset] = $value };
    (@put $order:ident u16, $bytes:ident, $offset:literal, $value:expr) => {
        <$crate::ondisk::byteorder::$order as $crate::ondisk::byteorder::ByteOrder>::write_u16(&mut $bytes[$offset..], $value)
    };
    (@put $order:ident u32, $bytes:ident, $offset:literal, $value:expr) => {
        <$crate::ondisk::byteorder::$order as $crate::ondisk::byteorder::ByteOrder>::write_u32(&mut $bytes[$offset..], $value)
    };
    (@put $order:ident u64, $bytes:ident, $offset:literal, $value:expr) => {
        <$crate::ondisk::byteorder::$order as $crate::ondisk::byteorder::ByteOrder>::write_u64(&mut $bytes[$offset..], $value)
    };
}

/// Whether two strings are the same, at compile time.
#[doc(hidden)]
#[must_use]
pub const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
