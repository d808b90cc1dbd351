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
    if is_linker_known() {
        pack_relocations();
        // Others are not for speed, and link faster without it.
        if is("PROFILE", "release") {
            order_functions();
        }
    }
}

/// The shared libgcc asks the processor what it can do before `main`, which is slow in a virtual
/// machine: a seventh of the time that `rimg info` takes.
fn link_unwinder() {
    if library("libgcc_eh.a").is_some() {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// 250 KiB of relocations become 3. Programs linked so start with the C libraries that say so.
fn pack_relocations() {
    const MARK: &[u8] = b"GLIBC_ABI_DT_RELR\0";
    let libc = library("libc.so.6").and_then(|path| fs::read(path).ok()).unwrap_or_default();
    if libc.windows(MARK.len()).any(|bytes| bytes == MARK) {
        println!("cargo::rustc-link-arg-bin=rimg=-Wl,-z,pack-relative-relocs");
    }
}

/// What short commands run is put side by side: less of the program is mapped. `cargo xtask
/// startup` makes the list.
fn order_functions() {
    let script = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let script = script.join("startup.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rustc-link-arg-bin=rimg=-Wl,-T,{}", script.display());
}

/// Whether the linker is the one that comes with the compiler, LLVM's or GNU's: others do not
/// understand parts of scripts.
fn is_linker_known() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    env::var_os("RUSTC_LINKER").is_none() && !flags.contains("link")
}

/// The path of a library that the compiler which links finds: it prints that, or the bare name.
fn library(name: &str) -> Option<PathBuf> {
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let asked = Command::new(linker).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    (path.is_absolute() && Path::new(&path).is_file()).then_some(path)
}
