//! The programs that tests and benchmarks compare rimg with.

use crate::{Result, run};
use std::process::Command;

/// A program and the Debian package that has it.
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
];

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
        match run::find(peer.program) {
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

/// The packages of the programs that are not there.
fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> = PEERS
        .iter()
        .filter(|peer| run::find(peer.program).is_none())
        .map(|peer| peer.package)
        .collect();
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
