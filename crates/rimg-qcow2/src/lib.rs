//! QEMU copy-on-write version 2 and 3 disk images
#![forbid(unsafe_code)]
