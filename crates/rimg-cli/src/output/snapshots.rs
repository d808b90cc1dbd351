//! The list of internal snapshots.

use crate::size::human_size;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rimg_core::{InfoValue, SnapshotInfo};
use std::fmt::Write as _;
use std::{env, fs};

const NANOSECONDS: u64 = 1_000_000_000;

/// The table for people, with its heading.
pub(crate) fn table(snapshots: &[SnapshotInfo]) -> String {
    let mut text = String::from("Snapshot list:\n");
    line(&mut text, ["ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"]);
    let zone = local_zone();
    for snapshot in snapshots {
        let size = human_size(snapshot.vm_state_bytes);
        let date = date(snapshot.date_seconds, &zone);
        let clock = clock(snapshot.vm_clock_nanoseconds);
        let icount = snapshot.icount.map_or_else(|| "--".to_owned(), |count| count.to_string());
        line(&mut text, [&snapshot.id, &snapshot.name, &size, &date, &clock, &icount]);
    }
    text
}

fn line(text: &mut String, [id, tag, size, date, clock, icount]: [&str; 6]) {
    let _ = writeln!(text, "{id:<7} {tag:<16} {size:>8} {date:>19} {clock:>15} {icount:>10}");
}

fn date(seconds: u32, zone: &TimeZone) -> String {
    let date = match Timestamp::from_second(i64::from(seconds)) {
        Ok(stamp) => stamp.to_zoned(zone.clone()),
        Err(_) => return String::new(),
    };
    let (year, month, day) = (date.year(), date.month(), date.day());
    let (hour, minute, second) = (date.hour(), date.minute(), date.second());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The system's time zone is in a file of its own, unless the user names another: no need to find
/// its name among all that there are.
fn local_zone() -> TimeZone {
    let named = env::var_os("TZ").is_some();
    let rules = if named { None } else { fs::read("/etc/localtime").ok() };
    let zone = rules.and_then(|rules| TimeZone::tzif("Local", &rules).ok());
    zone.unwrap_or_else(TimeZone::system)
}

fn clock(nanoseconds: u64) -> String {
    let seconds = nanoseconds / NANOSECONDS;
    let milliseconds = nanoseconds % NANOSECONDS / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:04}:{minutes:02}:{seconds:02}.{milliseconds:03}")
}

/// One snapshot for programs.
pub(crate) fn value(snapshot: &SnapshotInfo) -> InfoValue {
    let mut members = Vec::new();
    members.extend(snapshot.icount.map(|count| ("icount", InfoValue::Number(count))));
    members.extend([
        ("vm-clock-nsec", InfoValue::Number(snapshot.vm_clock_nanoseconds % NANOSECONDS)),
        ("name", InfoValue::Text(snapshot.name.clone())),
        ("date-sec", InfoValue::Number(snapshot.date_seconds.into())),
        ("date-nsec", InfoValue::Number(snapshot.date_nanoseconds.into())),
        ("vm-clock-sec", InfoValue::Number(snapshot.vm_clock_nanoseconds / NANOSECONDS)),
        ("id", InfoValue::Text(snapshot.id.clone())),
        ("vm-state-size", InfoValue::Number(snapshot.vm_state_bytes)),
    ]);
    InfoValue::Map(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_until_a_name_is_too_long() {
        let snapshot = SnapshotInfo {
            id: "1".to_owned(),
            name: "a long snapshot name that is long".to_owned(),
            vm_state_bytes: 5 << 30,
            vm_clock_nanoseconds: 12_345 * NANOSECONDS + 678_012_345,
            ..SnapshotInfo::default()
        };
        let text = table(&[snapshot]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT"
        );
        assert!(lines[2].starts_with("1       a long snapshot name that is long    5 GiB "));
        assert!(lines[2].ends_with("  0003:25:45.678         --"));
    }
}
