//! The programs that tests and benchmarks compare rimg with.

use crate::{Result, run};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program, or a module of Python, and the Debian package that has it.
struct Peer {
    program: &'static str,
    package: &'static str,
}

const PEERS: &[Peer] = &[
    Peer { program: "qemu-img", package: "qemu-utils" },
    Peer { program: "qemu-io", package: "qemu-utils" },
    Peer { program: "qemu-nbd", package: "qemu-utils" },
    Peer { program: "mke2fs", package: "e2fsprogs" },
    Peer { program: "7zz", package: "7zip" },
    Peer { program: "bximage", package: "bximage" },
    Peer { program: "script", package: "bsdutils" },
    Peer { program: "prlimit", package: "util-linux" },
    Peer { program: "unshare", package: "util-linux" },
    Peer { program: "nsenter", package: "util-linux" },
    Peer { program: "groff", package: "groff-base" },
    Peer { program: "zsh", package: "zsh" },
    Peer { program: "fish", package: "fish" },
    Peer { program: "pyvhdi", package: "python3-libvhdi" },
];

/// What these packages begin with are modules of the system's Python, not programs.
const PYTHON_PACKAGE: &str = "python3-";

/// `cargo xtask peers [--check]`: installs what is missing where that can be done, else says what
/// is missing. Only in CI is a missing peer an error: elsewhere its tests report themselves skipped.
pub(crate) fn run(args: &[String]) -> Result {
    let only_look = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("takes only --check".into()),
    };
    if !only_look && !missing().is_empty() && can_install() {
        install(&missing())?;
    }
    for peer in PEERS {
        match peer.find() {
            Some(path) => println!("{}: {}", peer.program, path.display()),
            None => println!("{}: missing (Debian package {})", peer.program, peer.package),
        }
    }
    let missing = missing();
    if missing.is_empty() || (!run::in_ci() && !only_look) {
        return Ok(());
    }
    Err(format!("missing packages: {}", missing.join(" ")).into())
}

impl Peer {
    /// Where it is; a module is where the Python is that has it.
    fn find(&self) -> Option<PathBuf> {
        if !self.package.starts_with(PYTHON_PACKAGE) {
            return run::find(self.program);
        }
        let python = PathBuf::from("/usr/bin/python3");
        let mut import = Command::new(&python);
        import.args(["-c", &format!("import {}", self.program)]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success()).then_some(python)
    }
}

/// The packages of the programs that are not there.
fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> =
        PEERS.iter().filter(|peer| peer.find().is_none()).map(|peer| peer.package).collect();
    packages.dedup();
    packages
}

fn can_install() -> bool {
    nix::unistd::geteuid().is_root() && run::find("apt-get").is_some()
}

fn install(packages: &[&str]) -> Result {
    println!("installing {}", packages.join(" "));
    run::check(&mut apt_get(&["update", "-qq"]))?;
    let mut install = apt_get(&["install", "-qq", "-y", "--no-install-recommends"]);
    run::check(install.args(packages))
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
