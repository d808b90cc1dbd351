//! Rules of a platform, and how an image or an archive keeps them, in words and for programs.

use crate::images::{self, How, ImageName};
use crate::json;
use crate::message::{Stop, chain, describe, describe_io};
use crate::output::Form;
use rimg_core::InfoValue;
use rimg_platform::{Platform, Verdict, inspect, inspect_archive};
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;

/// The platform with this name.
pub(super) fn platform(name: &str) -> Result<Platform, Stop> {
    Platform::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Platform::ALL.iter().map(|platform| platform.name()).collect();
        Stop::Advice(format!("--for expects one of {}, not '{name}'", names.join(", ")))
    })
}

/// Holds the file `name` against the rules of a platform.
pub(super) fn look_at(
    platform: Platform,
    name: &ImageName,
    how: &How,
) -> Result<Vec<Verdict>, Stop> {
    let failed = |reason: String| Stop::failed(format!("{}: {reason}", name.shown()));
    if platform.recipe().format.is_none() {
        let path = name.path().ok_or_else(|| failed("it is no local file".to_owned()))?;
        let file = File::open(path).map_err(|error| failed(describe_io(&error)))?;
        return inspect_archive(&mut BufReader::new(file)).map_err(|error| failed(chain(&error)));
    }
    let opened = images::open(name, how)?;
    inspect(platform, opened.disk()).map_err(|error| failed(describe(&error)))
}

/// A line for each rule, or an array.
pub(super) fn report(verdicts: &[Verdict], form: Form) -> String {
    match form {
        Form::Human => verdicts.iter().fold(String::new(), |mut text, verdict| {
            let _ = match &verdict.broken {
                None => writeln!(text, "ok      {}", verdict.rule),
                Some(instead) => writeln!(text, "BROKEN  {}: {instead}", verdict.rule),
            };
            text
        }),
        Form::Json => json::pretty(&InfoValue::List(verdicts.iter().map(value).collect())),
    }
}

fn value(verdict: &Verdict) -> InfoValue {
    let mut members = vec![
        ("rule", InfoValue::Text(verdict.rule.to_owned())),
        ("ok", InfoValue::Bool(verdict.broken.is_none())),
    ];
    members.extend(verdict.broken.clone().map(|instead| ("found", InfoValue::Text(instead))));
    InfoValue::Map(members)
}

/// How many rules are broken.
pub(super) fn broken(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| verdict.broken.is_some()).count()
}
