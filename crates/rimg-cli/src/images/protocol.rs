//! Plain names: paths, and names that start with a protocol.

use crate::images::blkdebug::DebugNode;
use crate::images::nbd::NbdNode;
use crate::images::node::{FileNode, Node};
use std::ffi::OsStr;
use std::path::PathBuf;

/// The node that a plain name of the user's means.
pub(crate) fn node(name: &str) -> Result<Node, String> {
    node_of(name.as_ref())
}

/// As [`node`], for names that need not be UTF-8.
pub(crate) fn node_of(name: &OsStr) -> Result<Node, String> {
    let text = name.to_string_lossy();
    match protocol_of(&text) {
        None => local("file", name.into()),
        Some(protocol) => match driver_of(protocol) {
            Some(driver) => of_driver(driver, name),
            None => Err(format!("Unknown protocol '{protocol}'")),
        },
    }
}

/// The node that a name means to a driver that the user gave.
pub(crate) fn of_driver(driver: &'static str, name: &OsStr) -> Result<Node, String> {
    let text = name.to_string_lossy();
    let rest = text.strip_prefix(driver).and_then(|rest| rest.strip_prefix(':'));
    match driver {
        "nbd" => NbdNode::of_name(&text).map(Node::Nbd),
        "null-co" | "null-aio" if rest == Some("//") => Ok(Node::of_null(driver)),
        "null-co" | "null-aio" => {
            Err(format!("The only allowed filename for this driver is '{driver}://'"))
        }
        "blkdebug" => match rest {
            Some(rest) => DebugNode::of_name(rest).map(|node| Node::Debug(Box::new(node))),
            None => Err("blkdebug requires both config file and image path".to_owned()),
        },
        // Without its protocol a name must not look as if it had another.
        driver => match rest {
            Some(rest) if protocol_of(rest).is_some() => local(driver, format!("./{rest}").into()),
            rest => local(driver, rest.map_or_else(|| name.into(), PathBuf::from)),
        },
    }
}

fn local(driver: &'static str, path: PathBuf) -> Result<Node, String> {
    if path.as_os_str().is_empty() {
        return Err(format!("The '{driver}' block driver requires a file name"));
    }
    Ok(Node::File(FileNode { driver, path, locks: true }))
}

/// The driver of a protocol.
pub(crate) fn driver_of(protocol: &str) -> Option<&'static str> {
    Some(match protocol {
        "file" => "file",
        "host_device" => "host_device",
        "host_cdrom" => "host_cdrom",
        "nbd" | "nbd+tcp" | "nbd+unix" => "nbd",
        "null-co" => "null-co",
        "null-aio" => "null-aio",
        "blkdebug" => "blkdebug",
        _ => return None,
    })
}

/// The protocol that a name starts with, as `nbd` in `nbd:localhost:10809`.
pub(crate) fn protocol_of(name: &str) -> Option<&str> {
    let end = name.find([':', '/'])?;
    let (protocol, rest) = name.split_at_checked(end)?;
    rest.starts_with(':').then_some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_end_before_the_first_slash() {
        assert_eq!(protocol_of("nbd:localhost:1"), Some("nbd"));
        assert_eq!(protocol_of("http://x"), Some("http"));
        assert_eq!(protocol_of("./a:b"), None);
        assert_eq!(protocol_of("plain"), None);
    }

    #[test]
    fn names_choose_their_driver() {
        for (name, driver) in [
            ("a", "file"),
            ("./a:b", "file"),
            ("file:a:b", "file"),
            ("host_device:/dev/x", "host_device"),
            ("null-co://", "null-co"),
            ("nbd:unix:/s", "nbd"),
            ("blkdebug::blkdebug::a", "blkdebug"),
        ] {
            assert_eq!(node(name).map(|node| node.driver()), Ok(driver), "{name}");
        }
        for (name, reason) in [
            ("", "The 'file' block driver requires a file name"),
            ("null-co:", "The only allowed filename for this driver is 'null-co://'"),
            ("blkdebug:x", "blkdebug requires both config file and image path"),
            ("blkdebug::", "The 'file' block driver requires a file name"),
            ("foo:bar", "Unknown protocol 'foo'"),
            ("json:{}", "Unknown protocol 'json'"),
        ] {
            assert_eq!(node(name).map(drop), Err(reason.to_owned()), "{name}");
        }
    }
}
