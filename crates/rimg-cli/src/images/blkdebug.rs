//! `blkdebug`: errors where the user wants them, by rules in options and in a file.

use crate::images::node::{Common, Node, NodeOptions, option_size};
use crate::images::protocol;
use crate::message::describe_io;
use crate::options::{parse_bool, parse_number};
use rimg::{Access, DEBUG_EVENTS, DebugAction, DebugRule, Injection};
use std::fs;

/// A node that fails by rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DebugNode {
    /// The file that has rules; empty for none.
    pub(crate) config: String,
    /// What was said of it besides.
    pub(crate) said: NodeOptions,
    /// Those in the options.
    rules: Vec<DebugRule>,
    /// What lies below.
    pub(crate) image: Node,
}

/// `EIO`, which accesses fail with unless another error is wanted.
const EIO: i32 = 5;

/// Bounds of requests, which rimg's keep anyway.
const LIMITS: [&str; 6] =
    ["align", "max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"];

impl DebugNode {
    /// Reads what follows `blkdebug:`.
    pub(crate) fn of_name(name: &str) -> Result<Self, String> {
        let Some((config, image)) = name.split_once(':') else {
            return Err("blkdebug requires both config file and image path".to_owned());
        };
        let image = protocol::node(image)?;
        let (config, said) = (config.to_owned(), NodeOptions::default());
        Ok(Self { config, said, rules: Vec::new(), image })
    }

    /// Reads what stands in a list of options or an object.
    pub(crate) fn of_options(
        mut options: NodeOptions,
        common: &mut Common,
    ) -> Result<Self, String> {
        let image = Node::of_child(&mut options, "image", common)?;
        let config = options.take("config").unwrap_or_default();
        let said = options.clone();
        let mut rules = Vec::new();
        for kind in [Kind::InjectError, Kind::SetState] {
            let mut all = options.take_child(kind.name());
            for index in 0_usize.. {
                let rule = all.take_child(&index.to_string());
                if rule.is_empty() {
                    break;
                }
                let rule: Vec<_> =
                    rule.iter().map(|(name, value)| (name, value.option())).collect();
                if let Some((name, _)) = rule.iter().find(|(name, _)| !kind.has(name)) {
                    let section = kind.name();
                    return Err(format!("[{section}] section doesn't support the option '{name}'"));
                }
                rules.push(kind.rule(&rule)?);
            }
            if let Some((name, _)) = all.iter().next() {
                return Err(format!("Unused option '{name}' for [{}]", kind.name()));
            }
        }
        check_limits(&mut options)?;
        options.refuse_rest("blkdebug")?;
        Ok(Self { config, said, rules, image })
    }

    /// All rules, those in the file first.
    pub(crate) fn rules(&self) -> Result<Vec<DebugRule>, String> {
        let mut rules = Vec::new();
        if !self.config.is_empty() {
            let text = fs::read(&self.config).map_err(|error| {
                format!("Could not read blkdebug config file: {}", describe_io(&error))
            })?;
            rules = read_config(&String::from_utf8_lossy(&text))?;
        }
        rules.extend_from_slice(&self.rules);
        Ok(rules)
    }
}

fn check_limits(options: &mut NodeOptions) -> Result<(), String> {
    let mut align = 1;
    for name in LIMITS {
        let Some(value) = options.take(name) else { continue };
        let bytes = option_size(name, &value)?;
        let fits = match name {
            "align" => bytes == 0 || bytes.is_power_of_two(),
            _ => bytes.is_multiple_of(align),
        };
        if !fits || bytes > u64::from(u32::MAX >> 1) {
            return Err(format!("Cannot meet constraints with {name} {value}"));
        }
        if name == "align" {
            align = bytes.max(1);
        }
    }
    Ok(())
}

/// A kind of rules.
#[derive(Debug, Clone, Copy)]
enum Kind {
    InjectError,
    SetState,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::InjectError => "inject-error",
            Self::SetState => "set-state",
        }
    }

    fn has(self, option: &str) -> bool {
        match self {
            Self::InjectError => {
                ["event", "state", "errno", "sector", "once", "immediately", "iotype"]
                    .contains(&option)
            }
            Self::SetState => ["event", "state", "new_state"].contains(&option),
        }
    }

    /// The rule that names and values make.
    fn rule(self, options: &[(&str, &str)]) -> Result<DebugRule, String> {
        let value = |wanted: &str| {
            let found = options.iter().rev().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| *value)
        };
        let number = |name: &str| match value(name).map(parse_number) {
            None => Ok(None),
            Some(Some(Some(number))) => Ok(Some(number)),
            Some(_) => Err(format!("Parameter '{name}' expects a number")),
        };
        let truth = |name: &str| match value(name).map(parse_bool) {
            None => Ok(false),
            Some(Some(truth)) => Ok(truth),
            Some(None) => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
        };
        let event = value("event").ok_or("Missing event name for rule")?;
        let event = DEBUG_EVENTS.iter().find(|known| **known == event);
        let event = event.ok_or_else(|| unknown(value("event").unwrap_or_default()))?;
        let state = number("state")?.filter(|state| *state != 0);
        let action = match self {
            Self::SetState => DebugAction::SetState(number("new_state")?.unwrap_or(0)),
            Self::InjectError => {
                // It tells only when the error comes, and all of them come at once here.
                truth("immediately")?;
                let errno = number("errno")?.map(|errno| i32::try_from(errno).unwrap_or(EIO));
                let sector = number("sector")?.filter(|sector| *sector != u64::MAX);
                DebugAction::Inject(Injection {
                    errno: errno.unwrap_or(EIO),
                    sector,
                    accesses: accesses(value("iotype"))?,
                    once: truth("once")?,
                })
            }
        };
        Ok(DebugRule { event, state, action })
    }
}

fn unknown(value: &str) -> String {
    format!("invalid parameter value: {value}")
}

fn accesses(name: Option<&str>) -> Result<Vec<Access>, String> {
    let Some(name) = name else {
        let all =
            [Access::Read, Access::Write, Access::WriteZeroes, Access::Discard, Access::Flush];
        return Ok(all.to_vec());
    };
    Ok(vec![match name {
        "read" => Access::Read,
        "write" => Access::Write,
        "write-zeroes" => Access::WriteZeroes,
        "discard" => Access::Discard,
        "flush" => Access::Flush,
        "block-status" => Access::BlockStatus,
        other => return Err(unknown(other)),
    }])
}

/// Reads the rules of a file: `[inject-error]`, `[set-state]`, and `name = "value"` below.
fn read_config(text: &str) -> Result<Vec<DebugRule>, String> {
    let mut sections: Vec<(Kind, Vec<(&str, &str)>)> = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line.trim_end().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split([']', ' ']).next().unwrap_or_default();
            let kind = [Kind::InjectError, Kind::SetState].into_iter();
            let kind = kind.clone().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| format!("There is no option group '{name}'"))?;
            sections.push((kind, Vec::new()));
            continue;
        }
        let (kind, options) = sections.last_mut().ok_or("no group defined")?;
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let (name, rest) = line.split_at_checked(end).unwrap_or((line, ""));
        if !kind.has(name) {
            return Err(format!("Invalid parameter '{name}'"));
        }
        let value = rest.trim_start().strip_prefix('=').map(str::trim_start);
        let value = value.and_then(|value| value.strip_prefix('"'));
        options.push((name, value.and_then(|value| value.split('"').next()).unwrap_or_default()));
    }
    sections.iter().map(|(kind, options)| kind.rule(options)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_rules() {
        let text = "# one\n[inject-error \"x\"]\n  event = \"l2_load\"  \nerrno = \"28\"\n\n\
                    [set-state]\nevent = \"none\"\nnew_state = \"3\"";
        let rules = read_config(text).unwrap();
        let [inject, set] = rules.as_slice() else { panic!("{rules:?}") };
        assert_eq!((inject.event, inject.state), ("l2_load", None));
        assert!(matches!(&inject.action, DebugAction::Inject(inject) if inject.errno == 28));
        assert_eq!((set.event, &set.action), ("none", &DebugAction::SetState(3)));
        for (text, reason) in [
            ("x", "no group defined"),
            ("[foo]\nx = \"y\"", "There is no option group 'foo'"),
            ("[inject-error]\nevent = l2_load", "invalid parameter value: "),
            ("[inject-error]\nevent=\"l2_load\"", "Invalid parameter 'event=\"l2_load\"'"),
            ("[set-state]\nerrno = \"1\"", "Invalid parameter 'errno'"),
            ("[inject-error]\n", "Missing event name for rule"),
        ] {
            assert_eq!(read_config(text), Err(reason.to_owned()), "{text}");
        }
    }
}
