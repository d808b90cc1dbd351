//! Links the program so that it starts quickly: scripts call it many times for small things.
//!
//! Each measure is for GNU systems, and taken where the tools at hand are known to be able to.
//! Without them nothing is lost but a part of a millisecond and of the memory.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // The host's compiler knows nothing of other machines.
    let is_native = env::var("HOST").ok() == env::var("TARGET").ok();
    if !is_native || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    link_unwinder();
    // Other programs are not for speed, and link faster without it.
    if is("PROFILE", "release") {
        order_functions();
    }
}

/// The shared libgcc asks the processor what it can do before `main`, which is slow in a virtual
/// machine: a seventh of the time that `rimg info` takes.
fn link_unwinder() {
    const LIBRARY: &str = "libgcc_eh.a";
    // It prints the path, or the bare name.
    let asked = compiler().arg(format!("-print-file-name={LIBRARY}")).output();
    let path = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if path.is_ok_and(|path| Path::new(&path).is_absolute() && Path::new(&path).is_file()) {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// What short commands run is put side by side: less of the program is mapped. `cargo xtask
/// startup` makes the list.
fn order_functions() {
    let script = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let script = script.join("startup.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    // The compiler hands it on as it is; commas would split what follows `-Wl`.
    let argument = format!("-T{}", script.display());
    if !is_linker_chosen() && is_understood(&argument) {
        println!("cargo::rustc-link-arg-bin=rimg={argument}");
    }
}

/// Whether somebody wants a linker of their own, or tells it what to do.
fn is_linker_chosen() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    env::var_os("RUSTC_LINKER").is_some() || flags.contains("link")
}

/// Whether the system's linker takes the argument: LLVM's, which may come with the Rust compiler,
/// and GNU's ld do, others do not know parts of scripts.
fn is_understood(argument: &str) -> bool {
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let source = folder.join("empty.c");
    fs::write(&source, "int main(void) { return 0; }\n").is_ok()
        && compiler()
            .arg(argument)
            .arg("-o")
            .arg(folder.join("empty"))
            .arg(source)
            .output()
            .is_ok_and(|output| output.status.success())
}

/// The compiler that links.
fn compiler() -> Command {
    Command::new(env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into()))
}
