//! `quorum`: several nodes that hold the same, of which enough have to agree.

use crate::images::node::{Common, Node, NodeOptions};
use crate::options::{parse_bool, parse_number};

/// A node that is kept several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuorumNode {
    /// The copies.
    pub(crate) children: Vec<Node>,
    /// How many of them have to agree: from 1 to all.
    pub(crate) threshold: usize,
    /// What was said of it besides.
    pub(crate) said: NodeOptions,
}

/// What would do more than ask them all.
const SWITCHES: [&str; 2] = ["blkverify", "rewrite-corrupted"];

impl QuorumNode {
    /// Reads what stands in a list of options or an object.
    pub(crate) fn of_options(
        mut options: NodeOptions,
        common: &mut Common,
    ) -> Result<Self, String> {
        let mut children = Vec::new();
        let mut all = options.take_child("children");
        while !all.is_empty() {
            let name = children.len().to_string();
            if all.value(&name).is_none() && !all.has_child(&name) {
                return Err("All child nodes need to be numbered from 0".to_owned());
            }
            if all.value(&format!("{name}.driver")).is_none() && all.value(&name).is_none() {
                return Err("Must specify either driver or file".to_owned());
            }
            children.push(Node::of_child(&mut all, &name, common)?);
        }
        let said = options.clone();
        let threshold = match options.take("vote-threshold").as_deref().map(parse_number) {
            None => 0,
            Some(Some(Some(threshold))) => threshold,
            Some(_) => return Err("Parameter 'vote-threshold' expects a number".to_owned()),
        };
        if threshold < 1 {
            return Err("Parameter 'vote-threshold' expects a value >= 1".to_owned());
        }
        for name in SWITCHES {
            match options.take(name).as_deref().map(parse_bool) {
                None | Some(Some(false)) => {}
                Some(Some(true)) => return Err(format!("quorum with {name}=on is not supported")),
                Some(None) => return Err(format!("Parameter '{name}' expects 'on' or 'off'")),
            }
        }
        match options.take("read-pattern").as_deref() {
            None | Some("quorum") => {}
            Some(other) => {
                return Err(format!("Parameter 'read-pattern' does not accept '{other}'"));
            }
        }
        options.refuse_rest("quorum")?;
        match usize::try_from(threshold) {
            Ok(threshold) if threshold <= children.len() => Ok(Self { children, threshold, said }),
            _ => Err("threshold may not exceed children count".to_owned()),
        }
    }
}
