//! A target that is written from its start to its end, and cannot be read: a hash, a pipe.

use core::fmt;
use core::ops::Range;
use rimg_core::{BlockImage, Error, Extent, ImageInfo, ImageWrite, Result, Storage};
use std::sync::{Arc, Mutex};

use crate::stop::lock;

/// What becomes of the guest's bytes, which come in ascending order and only once.
pub(crate) trait Sink: Send {
    /// These bytes are at `at`; what was passed over are zeroes.
    fn data(&mut self, bytes: &[u8], at: u64) -> Result<()>;
}

/// A sink that looks like an image to the engine.
pub(crate) struct Forward<S> {
    size_bytes: u64,
    sink: Mutex<S>,
}

impl<S: Sink> Forward<S> {
    /// A disk of so many bytes.
    pub(crate) fn new(sink: S, size_bytes: u64) -> Self {
        Self { size_bytes, sink: Mutex::new(sink) }
    }

    /// What is left when all bytes have come.
    pub(crate) fn into_sink(self) -> S {
        self.sink.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

const ONE_WAY: Error = Error::Misuse("the target is only written");

impl<S: Sink> BlockImage for Forward<S> {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, _buf: &mut [u8], _at: u64) -> Result<()> {
        Err(ONE_WAY)
    }

    fn extent_at(&self, _range: Range<u64>) -> Result<Extent> {
        Err(ONE_WAY)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo { virtual_size_bytes: self.size_bytes, ..ImageInfo::default() })
    }

    fn file(&self, _index: u16) -> Option<&Arc<dyn Storage>> {
        None
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl<S: Sink> ImageWrite for Forward<S> {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        lock(&self.sink).data(buf, at)
    }

    /// Zeroes may come before data that lies in front of them: they are what is passed over.
    fn write_zeroes_at(&self, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn discard_at(&self, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn places_in_order(&self) -> bool {
        true
    }

    fn is_zero_initialised(&self) -> bool {
        true
    }
}

impl<S> fmt::Debug for Forward<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}
