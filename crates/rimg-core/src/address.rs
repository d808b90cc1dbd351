//! Guest and host offsets: two kinds of `u64` that must never be mixed up.

use core::fmt;

macro_rules! offset {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The offset in bytes.
            #[must_use]
            pub const fn bytes(self) -> u64 {
                self.0
            }

            /// `self + len_bytes`, or `None` past the end of the 64-bit space.
            #[must_use]
            pub const fn checked_add(self, len_bytes: u64) -> Option<Self> {
                match self.0.checked_add(len_bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Whether the offset is a multiple of `align_bytes`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, align_bytes: u64) -> bool {
                self.0 & align_bytes.wrapping_sub(1) == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl From<u64> for $name {
            fn from(bytes: u64) -> Self {
                Self(bytes)
            }
        }
    };
}

offset! {
    /// A byte offset as the guest sees its disk.
    GuestOffset
}

offset! {
    /// A byte offset in a file that belongs to an image.
    HostOffset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_does_not_wrap() {
        assert_eq!(HostOffset(u64::MAX).checked_add(1), None);
        assert_eq!(HostOffset(4).checked_add(4), Some(HostOffset(8)));
    }

    #[test]
    fn alignment_is_of_the_low_bits() {
        assert!(GuestOffset(0x1_0000).is_aligned(0x1_0000));
        assert!(!GuestOffset(0x1_0200).is_aligned(0x1_0000));
    }
}
