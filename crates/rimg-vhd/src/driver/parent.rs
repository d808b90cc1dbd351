//! The image below a differencing one: found by the names that it has, known by its UUID.

use super::read_footer;
use crate::error::{CorruptKind, FORMAT};
use crate::header::{DynamicHeader, Locator};
use crate::options::RunTimeOptions;
use rimg_core::{BlockImage, Dependency, DependencyRole, Error, OpenOptions, Result, Storage, num};
use std::io::ErrorKind;
use std::sync::Arc;

/// What became of the parent.
#[derive(Debug, Default)]
pub(super) struct Parent {
    pub(super) image: Option<Arc<dyn BlockImage>>,
    /// The name it was found by.
    pub(super) name: Option<String>,
}

/// Opens the image below. Of its names the first counts that there is a file of.
pub(super) fn open(
    file: &dyn Storage,
    header: &DynamicHeader,
    how: &OpenOptions<'_>,
    options: RunTimeOptions,
) -> Result<Parent> {
    let role = DependencyRole::Backing;
    let mut not_found = None;
    for name in names(file, header)? {
        let wanted = Dependency { role, name: &name, format: Some(FORMAT), writable: false };
        let image = match how.gate.open_image(&wanted) {
            Ok(image) => image,
            Err(error) if is_missing(&error) => {
                not_found = not_found.or(Some(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(image) = &image {
            let file = image.file(0).ok_or(Error::WrongFormat { format: FORMAT })?;
            check(header, file.as_ref(), options).map_err(|source| Error::Dependency {
                role,
                name: name.clone(),
                source: Box::new(source),
            })?;
        }
        return Ok(Parent { image, name: Some(name) });
    }
    match not_found {
        // Looking at an image does not need its parent.
        _ if how.inspect_only => Ok(Parent::default()),
        Some(error) => Err(error),
        None => Err(CorruptKind::NoParentName.at("dynamic disk header", "parent_name", 64)),
    }
}

fn is_missing(error: &Error) -> bool {
    error.as_io().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The parent's names in the way of this system: those relative to the image first, then the file
/// name alone, then where it once was.
fn names(file: &dyn Storage, header: &DynamicHeader) -> Result<Vec<String>> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let (mut relative, mut absolute) = (Vec::new(), Vec::new());
    for locator in &header.locators {
        let end = locator.offset.checked_add(locator.len_bytes.into());
        if end.is_none_or(|end| end > len) {
            return Err(CorruptKind::Truncated.at("parent locator", "data", locator.offset));
        }
        let mut bytes = vec![0; num::to_usize(locator.len_bytes.into())?];
        file.read_exact_at(&mut bytes, locator.offset)
            .map_err(Error::io("read parent locator", locator.offset))?;
        let name = slashes(&Locator::name(&bytes));
        if locator.is_relative { relative.push(name) } else { absolute.push(name) }
    }
    let plain = slashes(&header.parent_name);
    let file_name = plain.rsplit('/').next().unwrap_or(&plain).to_owned();
    let mut names: Vec<String> = Vec::new();
    for name in relative.into_iter().chain([file_name]).chain(absolute) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Windows separates folders by backslashes; a file name with one in it is found nowhere.
fn slashes(name: &str) -> String {
    let name = name.replace('\\', "/");
    name.strip_prefix("./").unwrap_or(&name).to_owned()
}

/// The image below has to be the one that this was made over, as it was then.
fn check(header: &DynamicHeader, file: &dyn Storage, options: RunTimeOptions) -> Result<()> {
    let (parent, _) = read_footer(file)?;
    let structure = "dynamic disk header";
    let (wanted, found) = (header.parent_uuid, parent.uuid());
    if wanted != found {
        return Err(CorruptKind::ParentUuid { wanted, found }.at(structure, "parent_uuid", 40));
    }
    let (wanted, found) = (header.parent_timestamp, parent.timestamp());
    if wanted != found && !options.any_parent_time {
        let kind = CorruptKind::ParentTime { wanted, found };
        return Err(kind.at(structure, "parent_timestamp", 56));
    }
    Ok(())
}
