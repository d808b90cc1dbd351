//! Links libgcc's unwinder into the program where that can be had.
//!
//! Scripts call the program many times for small things, and the shared libgcc asks the processor
//! what it can do before `main`: in a virtual machine that is slow, and makes up a seventh of the
//! time that `rimg info` takes. Without the static library nothing is lost but that.

use std::env;
use std::path::Path;
use std::process::Command;

const LIBRARY: &str = "libgcc_eh.a";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // The host's compiler knows nothing of other machines.
    let is_native = env::var("HOST").ok() == env::var("TARGET").ok();
    let is_gnu = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if is_native && is_gnu && compiler_has_library() {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// Whether the compiler that links finds the library: it prints the path, or the bare name.
fn compiler_has_library() -> bool {
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let asked = Command::new(linker).arg(format!("-print-file-name={LIBRARY}")).output();
    let path = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    path.is_ok_and(|path| Path::new(&path).is_absolute() && Path::new(&path).is_file())
}
