//! Bitmaps that somebody damaged on purpose.
