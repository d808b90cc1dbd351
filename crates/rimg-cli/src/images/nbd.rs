//! Names of disks that a server exports.

use crate::images::node::NodeOptions;
use rimg::{NbdAddress, NbdServer};
use std::fmt::Write as _;

/// The port of a server that names none.
const DEFAULT_PORT: &str = "10809";

/// A disk that a server exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NbdNode {
    /// Where it is.
    pub(crate) address: NbdAddress,
    /// The metadata context that is looked at in place of holes and zeroes.
    pub(crate) context: Option<String>,
    /// What was said of it, as it was said.
    pub(crate) said: NodeOptions,
}

const NO_ADDRESS: &str = "NBD server address missing";
const NO_URL: &str = "No valid URL specified";

impl NbdNode {
    /// Reads what stands on a command line: `nbd:…`, `nbd://…`, `nbd+tcp://…`, `nbd+unix://…`.
    pub(crate) fn of_name(name: &str) -> Result<Self, String> {
        let address = match name.split_once("://") {
            Some(("nbd" | "nbd+tcp", rest)) => tcp_url(rest)?,
            Some(("nbd+unix", rest)) => unix_url(rest)?,
            _ => match name.strip_prefix("nbd:") {
                Some(rest) => plain(rest)?,
                None => return Err("File name string for NBD must start with 'nbd:'".to_owned()),
            },
        };
        let mut said = NodeOptions::default();
        let mut say = |name: &str, value: &str| {
            said.set(name.to_owned(), crate::json::Scalar::Text(value.to_owned()));
        };
        match &address.server {
            NbdServer::Unix(path) => say("path", &path.to_string_lossy()),
            NbdServer::Tcp { host, port } => {
                say("host", host);
                say("port", port);
            }
        }
        if !address.export.is_empty() {
            say("export", &address.export);
        }
        Ok(Self { address, context: None, said })
    }

    /// Reads what stands in a list of options or an object.
    pub(crate) fn of_options(mut options: NodeOptions) -> Result<Self, String> {
        for accepted in ["reconnect-delay", "open-timeout"] {
            options.take(accepted);
        }
        if let Some(id) = options.value("tls-creds") {
            return Err(format!("No TLS credentials with id '{id}'"));
        }
        options.take("tls-hostname");
        let said = options.clone();
        let legacy = ["path", "host", "port"].map(|name| options.take(name));
        let server = options.take_child("server");
        let export = options.take("export").unwrap_or_default();
        let context = options.take("x-dirty-bitmap");
        let server = match (legacy, server.is_empty()) {
            ([None, None, None], true) => return Err(NO_ADDRESS.to_owned()),
            ([None, None, None], false) => server_of_options(server)?,
            (_, false) => {
                return Err("Cannot use 'server' and path/host/port at the same time".to_owned());
            }
            ([Some(_), Some(_), _], true) => {
                return Err("path and host may not be used at the same time".to_owned());
            }
            ([_, None, Some(_)], true) => {
                return Err("port may not be used without host".to_owned());
            }
            ([Some(path), None, None], true) => NbdServer::Unix(path.into()),
            ([None, Some(host), port], true) => {
                NbdServer::Tcp { host, port: port.unwrap_or_else(|| DEFAULT_PORT.to_owned()) }
            }
        };
        options.refuse_rest("nbd")?;
        Ok(Self { address: NbdAddress { server, export }, context, said })
    }

    /// The name that says all there is to say.
    pub(crate) fn shown(&self) -> String {
        let NbdAddress { server, export } = &self.address;
        let mut name = String::new();
        match server {
            NbdServer::Unix(path) => {
                name.push_str("nbd+unix://");
                if !export.is_empty() {
                    let _ = write!(name, "/{export}");
                }
                let _ = write!(name, "?socket={}", path.display());
            }
            NbdServer::Tcp { host, port } => {
                let _ = write!(name, "nbd://{host}:{port}");
                if !export.is_empty() {
                    let _ = write!(name, "/{export}");
                }
            }
        }
        name
    }
}

fn server_of_options(mut server: NodeOptions) -> Result<NbdServer, String> {
    let missing = |name: &str| format!("Parameter '{name}' is missing");
    let kind = server.take("type").ok_or_else(|| missing("type"))?;
    let address = match kind.as_str() {
        "unix" => {
            let path = server.take("path").ok_or_else(|| missing("path"))?;
            NbdServer::Unix(path.into())
        }
        "inet" => {
            let host = server.take("host").ok_or_else(|| missing("host"))?;
            let port = server.take("port").ok_or_else(|| missing("port"))?;
            for accepted in ["numeric", "to", "ipv4", "ipv6", "keep-alive", "mptcp"] {
                server.take(accepted);
            }
            NbdServer::Tcp { host, port }
        }
        "fd" | "vsock" => return Err(format!("NBD servers of type '{kind}' are not supported")),
        _ => return Err(format!("Parameter 'type' does not accept value '{kind}'")),
    };
    match server.iter().next() {
        Some((unexpected, _)) => Err(format!("Parameter '{unexpected}' is unexpected")),
        None => Ok(address),
    }
}

/// Reads `host:port`, `unix:path`, and `:exportname=…` behind them.
fn plain(name: &str) -> Result<NbdAddress, String> {
    let (server, export) = match name.split_once(":exportname=") {
        Some((_, "")) => return Err(NO_ADDRESS.to_owned()),
        Some((server, export)) => (server, export),
        None => (name, ""),
    };
    if server.is_empty() {
        return Err(NO_ADDRESS.to_owned());
    }
    let server = match server.strip_prefix("unix:") {
        Some(path) => NbdServer::Unix(path.into()),
        None => host_and_port(server).ok_or_else(|| format!("error parsing address '{server}'"))?,
    };
    Ok(NbdAddress { server, export: export.to_owned() })
}

fn host_and_port(text: &str) -> Option<NbdServer> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => text.split_once(':')?,
    };
    Some(NbdServer::Tcp { host: host.to_owned(), port: port.to_owned() })
}

/// Reads what follows `nbd://`.
fn tcp_url(rest: &str) -> Result<NbdAddress, String> {
    let Url { authority, path, query } = Url::split(rest);
    if query.is_some() || authority.is_empty() {
        return Err(NO_URL.to_owned());
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[') {
        Some(host) => host.split_once(']').ok_or(NO_URL)?,
        None => host.split_at_checked(host.find(':').unwrap_or(host.len())).ok_or(NO_URL)?,
    };
    let port = match port.strip_prefix(':').unwrap_or(port) {
        "" => DEFAULT_PORT,
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => port,
        _ => return Err(NO_URL.to_owned()),
    };
    if host.is_empty() {
        return Err(NO_URL.to_owned());
    }
    let server = NbdServer::Tcp { host: decoded(host)?, port: port.to_owned() };
    Ok(NbdAddress { server, export: decoded(path)? })
}

/// Reads what follows `nbd+unix://`.
fn unix_url(rest: &str) -> Result<NbdAddress, String> {
    let Url { authority, path, query } = Url::split(rest);
    let socket = query.and_then(|query| query.strip_prefix("socket="));
    match socket {
        Some(socket) if authority.is_empty() && !socket.contains('&') => Ok(NbdAddress {
            server: NbdServer::Unix(decoded(socket)?.into()),
            export: decoded(path)?,
        }),
        _ => Err(NO_URL.to_owned()),
    }
}

/// The parts of a URL behind its scheme.
struct Url<'u> {
    authority: &'u str,
    /// Without the slash that it starts with.
    path: &'u str,
    query: Option<&'u str>,
}

impl<'u> Url<'u> {
    fn split(url: &'u str) -> Self {
        let url = url.split_once('#').map_or(url, |(url, _)| url);
        let (place, query) = match url.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (url, None),
        };
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        Self { authority, path, query }
    }
}

/// Resolves `%20` and its like.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let byte = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(byte.ok_or(NO_URL)?);
    }
    String::from_utf8(bytes).map_err(|_| NO_URL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> Result<String, String> {
        NbdNode::of_name(name).map(|node| node.shown())
    }

    #[test]
    fn names_are_read_as_qemu_reads_them() {
        for (name, expected) in [
            ("nbd:unix:/s", "nbd+unix://?socket=/s"),
            ("nbd:unix:/s:exportname=a b/c", "nbd+unix:///a b/c?socket=/s"),
            ("nbd:localhost:10809", "nbd://localhost:10809"),
            ("nbd:[::1]:1:exportname=x:exportname=y", "nbd://::1:1/x:exportname=y"),
            ("nbd+unix:///a%20b/%c3%a9%3fx?socket=/s", "nbd+unix:///a b/é?x?socket=/s"),
            ("nbd+unix:////a?socket=/s", "nbd+unix:////a?socket=/s"),
            ("nbd+unix://?socket=", "nbd+unix://?socket="),
            ("nbd://h", "nbd://h:10809"),
            ("nbd://h:/x", "nbd://h:10809/x"),
            ("nbd+tcp://user@h:1/x/y#z", "nbd://h:1/x/y"),
            ("nbd://[::1]:7/", "nbd://::1:7"),
        ] {
            assert_eq!(shown(name).as_deref(), Ok(expected), "{name}");
        }
        for (name, reason) in [
            ("nbd:", NO_ADDRESS),
            ("nbd:unix:/s:exportname=", NO_ADDRESS),
            ("nbd:127.0.0.1", "error parsing address '127.0.0.1'"),
            ("nbd:/x", "error parsing address '/x'"),
            ("nbd://", NO_URL),
            ("nbd://h/?x=y", NO_URL),
            ("nbd://h:x/", NO_URL),
            ("nbd+unix:///x", NO_URL),
            ("nbd+unix://h/x?socket=/s", NO_URL),
            ("nbd+unix:///a?socket=/s&foo=bar", NO_URL),
            ("nbd+unix:///a%2?socket=/s", NO_URL),
            ("nbd+tcp:x", "File name string for NBD must start with 'nbd:'"),
        ] {
            assert_eq!(shown(name), Err(reason.to_owned()), "{name}");
        }
    }
}
