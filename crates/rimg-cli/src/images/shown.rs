//! Names of nodes as they are shown: plain where a plain name says all that matters, and
//! `json:{…}` otherwise.

use crate::images::node::{Node, NodeOptions};
use crate::json::{Scalar, quoted};
use std::path::Path;

/// The name of a node.
pub(crate) fn node_name(node: &Node) -> String {
    plain(node).unwrap_or_else(|| format!("json:{}", object(node)))
}

/// The name of an image of the format `driver` that lies in `file` and was told `said`.
pub(crate) fn image_name(driver: &str, said: &NodeOptions, file: &Node) -> String {
    plain_image(driver, said, file)
        .unwrap_or_else(|| format!("json:{}", image_object(driver, said, file)))
}

fn plain(node: &Node) -> Option<String> {
    match node {
        Node::File(node) => Some(shown(&node.path)),
        Node::Nbd(node) => Some(node.shown()),
        Node::Null(node) => node.said.is_empty().then(|| format!("{}://", node.driver)),
        Node::Debug(node) if node.said.is_empty() => {
            Some(format!("blkdebug:{}:{}", node.config, plain(&node.image)?))
        }
        Node::Debug(_) | Node::Quorum(_) => None,
        Node::Image(node) => plain_image(node.driver, &node.said, &node.file),
    }
}

fn plain_image(driver: &str, said: &NodeOptions, file: &Node) -> Option<String> {
    let needs_more =
        matches!(file, Node::Image(_)) || said.iter().any(|(name, _)| matters(driver, name));
    if needs_more { None } else { plain(file) }
}

/// Whether an option of a format decides what the image is, rather than how it is worked on.
fn matters(driver: &str, option: &str) -> bool {
    match driver {
        "raw" => matches!(option, "offset" | "size"),
        "qcow" | "qcow2" => option == "encrypt.key-secret",
        "luks" => option == "key-secret" || option.starts_with("header."),
        "vpc" => option == "force_size_calc",
        _ => false,
    }
}

/// A node as an object of JSON.
fn object(node: &Node) -> String {
    let mut members = Members::new(node.driver());
    match node {
        Node::File(node) => members.put("filename", quoted(&shown(&node.path))),
        Node::Nbd(node) => members.put_all(&node.said),
        Node::Null(node) => members.put_all(&node.said),
        Node::Debug(node) => {
            if !node.config.is_empty() {
                members.put("config", quoted(&node.config));
            }
            members.put("image", object(&node.image));
            members.put_all(&node.said);
        }
        Node::Quorum(node) => {
            let children: Vec<_> = node.children.iter().map(object).collect();
            members.put("children", format!("[{}]", children.join(", ")));
            members.put_all(&node.said);
        }
        Node::Image(node) => return image_object(node.driver, &node.said, &node.file),
    }
    members.object()
}

fn image_object(driver: &str, said: &NodeOptions, file: &Node) -> String {
    let mut members = Members::new(driver);
    members.put("file", object(file));
    for (name, value) in said.iter().filter(|(name, _)| matters(driver, name)) {
        match name.strip_prefix("header.") {
            None => members.put(name, scalar(value)),
            Some("filename") => {
                let header = Node::of_path(value.option());
                members.put("header", object(&header));
            }
            Some(_) => {}
        }
    }
    members.object()
}

/// The members of an object.
struct Members(Vec<(String, String)>);

impl Members {
    fn new(driver: &str) -> Self {
        Self(vec![("driver".to_owned(), quoted(driver))])
    }

    fn put(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    fn put_all(&mut self, options: &NodeOptions) {
        for (name, value) in options.iter() {
            self.put(name, scalar(value));
        }
    }

    fn object(mut self) -> String {
        self.0.sort_by_key(|(name, _)| place(name));
        let members = self.0.iter().map(|(name, value)| format!("{}: {value}", quoted(name)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
    }
}

/// Where a member stands: QEMU shows them in the order of a table of its own.
fn place(name: &str) -> usize {
    const ORDER: &[&str] = &[
        "inject-error.state",
        "inject-error.immediately",
        "set-state.event",
        "inject-error.once",
        "offset",
        "read-zeroes",
        "encrypt.key-secret",
        "header",
        "force_size_calc",
        "opt-write-zero",
        "max-write-zero",
        "server.host",
        "port",
        "host",
        "server.path",
        "server.port",
        "image",
        "max-transfer",
        "config",
        "children",
        "driver",
        "path",
        "export",
        "server.type",
        "inject-error.iotype",
        "set-state.new_state",
        "inject-error.errno",
        "inject-error.event",
        "set-state.state",
        "inject-error.sector",
        "opt-discard",
        "max-discard",
        "align",
        "size",
        "vote-threshold",
        "file",
        "filename",
        "key-secret",
    ];
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').filter(|part| !is_number(part)).collect();
    let name = parts.join(".");
    ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
}

fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Text(text) => quoted(text),
        Scalar::Number(number) => number.clone(),
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Null => "null".to_owned(),
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
