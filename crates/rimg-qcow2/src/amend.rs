//! Changing the options of an image that exists.
//!
//! Each step leaves an image that is whole, and works on the image as the step before left it: what
//! depends on version or refcount width is fixed while an image is open.

mod downgrade;
mod expand;
mod options;
mod refcounts;

pub(crate) use options::SPECS;

use crate::driver;
use crate::header::{Extension, Header};
use crate::image::{Access, Qcow2Image};
use crate::spec;
use options::AmendOptions;
use rimg_core::{Amend, AmendProgress, Preallocation, RawOptions, Resize as _, Result};
use std::sync::{Arc, PoisonError};

impl Amend for Qcow2Image {
    fn amend(
        &self,
        options: &RawOptions,
        force: bool,
        progress: &mut AmendProgress<'_>,
    ) -> Result<()> {
        let _claim = self.claim_disk()?;
        self.finish_all()?;
        let mut state = self.lock()?;
        let wanted = AmendOptions::parse(options, &state.header)?;
        let slots = self.key_slot_change(options, &state.header, force)?;
        if let Some(change) = &slots {
            self.change_key_slots(&state.header, change)?;
        }
        if wanted.is_nothing(&state.header) {
            return Ok(());
        }
        // From here on the disk may know better.
        state.is_outdated = true;
        let mut header = state.header.clone();
        let mut steps = Steps::new(&wanted, &header, progress);
        if wanted.version > header.version {
            steps.at(0, 2);
            header = self.step(header, |image| image.complete_snapshots())?;
            steps.at(1, 2);
            header = self.step(header, |image| image.upgrade())?;
            steps.at(2, 2);
            steps.next();
        }
        if wanted.refcount != header.geometry.refcount {
            let report = &mut |done, total| steps.at(done, total);
            header = self.step(header, |image| image.change_refcounts(wanted.refcount, report))?;
            steps.next();
        }
        if wanted.changes_header(&header) {
            header = self.step(header, |image| {
                image.rewrite_header(&mut *image.lock()?, |header| wanted.apply_to(header))
            })?;
        }
        if wanted.size_bytes != header.size_bytes {
            header =
                self.step(header, |image| image.resize(wanted.size_bytes, Preallocation::Off))?;
        }
        if wanted.version < header.version {
            let report = &mut |done, total| steps.at(done, total);
            self.step(header, |image| image.downgrade(report))?;
        }
        Ok(())
    }
}

/// The progress of steps whose work is known only once they begin: those to come are taken to be
/// as much as the one under way, as QEMU does.
struct Steps<'a, 'b> {
    progress: &'a mut AmendProgress<'b>,
    /// How many steps are not done.
    left: u64,
    /// The work of the steps that are done.
    done: u64,
    /// The work of the step under way.
    current: u64,
}

impl<'a, 'b> Steps<'a, 'b> {
    fn new(wanted: &AmendOptions, header: &Header, progress: &'a mut AmendProgress<'b>) -> Self {
        let changes_version = wanted.version != header.version;
        let changes_refcounts = wanted.refcount != header.geometry.refcount;
        let left = u64::from(changes_version).saturating_add(changes_refcounts.into());
        Self { progress, left, done: 0, current: 0 }
    }

    fn at(&mut self, done: u64, total: u64) {
        self.current = total;
        let all = self.done.saturating_add(total.saturating_mul(self.left));
        (self.progress)(self.done.saturating_add(done), all);
    }

    const fn next(&mut self) {
        self.done = self.done.saturating_add(self.current);
        self.left = self.left.saturating_sub(1);
    }
}

impl Qcow2Image {
    /// Does something to the image that the header describes, makes it durable, and returns the
    /// header that it has then.
    fn step(&self, header: Header, change: impl FnOnce(&Self) -> Result<()>) -> Result<Header> {
        let data_file = self.data_file.as_ref().map(Arc::clone);
        let file = Arc::clone(&self.file);
        let encryption = self.encryption.clone();
        let (access, limits) = (Access::Write, self.limits);
        let mut image = driver::assemble(file, data_file, header, encryption, access, limits)?;
        image.backing = self.backing.as_ref().map(Arc::clone);
        image.backing_left_out = self.backing_left_out;
        change(&image)?;
        if image.lock().is_ok() {
            image.finish_all()?;
        }
        let state = image.state.into_inner();
        Ok(state.unwrap_or_else(PoisonError::into_inner).header)
    }

    fn upgrade(&self) -> Result<()> {
        self.rewrite_header(&mut *self.lock()?, |header| {
            header.version = 3;
            header.header_bytes = spec::HEADER_WITH_COMPRESSION_BYTES;
            header.geometry.zero_flag = true;
            let has_names =
                header.extensions.iter().any(|known| matches!(known, Extension::FeatureNames(_)));
            if !has_names
                && header.geometry.cluster_bytes() > spec::FEATURE_NAMES_ABOVE_CLUSTER_BYTES
            {
                header.extensions.push(Extension::feature_names());
            }
        })
    }
}
