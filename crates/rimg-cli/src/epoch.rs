//! `SOURCE_DATE_EPOCH`: the time that files get whose bytes shall not depend on when they are made.

/// Seconds since 1970, where the variable is set.
///
/// # Errors
/// The message, when it is no time that images can hold.
pub(crate) fn source_date_epoch() -> Result<Option<u32>, String> {
    let Some(epoch) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let epoch = epoch.to_string_lossy();
    epoch
        .parse()
        .map(Some)
        .map_err(|_| format!("SOURCE_DATE_EPOCH is no time of the years 1970 to 2106: {epoch}"))
}
