//! Carries out the steps of [`super::plan`], and keeps what is built from source in the user's cache folder, where every
//! checkout finds it and no other tool trips over it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::plan::{Llvm, Step};
use crate::{
    machine,
    process::{self, run},
    workspace,
};

const BPF_LINKER: &str = "0.13.0";

/// Carries out one step.
pub(super) fn perform(step: &Step) -> Result<()> {
    match step {
        Step::AptCompiler => apt(
            &["rustc-web", "cargo-web", "rust-web-src"],
            "a compiler with the standard library's sources",
        ),
        Step::AptLlvm(major) => apt(
            &[
                &format!("llvm-{major}-dev"),
                &format!("libpolly-{major}-dev"),
            ],
            "to build bpf-linker",
        ),
        Step::RustupSources(name) => {
            run(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", name]))
        }
        Step::RustupNightly => run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ])),
        Step::BuildLinker(llvm) => build_linker(llvm),
    }
}

fn apt(packages: &[&str], why: &str) -> Result<()> {
    let packages: Vec<_> = packages.iter().map(|&package| package.to_owned()).collect();
    machine::apt_install(&packages, why)
}

fn build_linker(llvm: &Llvm) -> Result<()> {
    let features = format!("llvm-{}", llvm.major);
    // bpf-linker's own build script asks the first variable, llvm-sys, whose name holds its version, the second.
    let llvm_sys = format!("LLVM_SYS_{}1_PREFIX", llvm.major);
    run(
        cargo_install("bpf-linker", BPF_LINKER, &linker_root(llvm.major)?)
            .args(["--no-default-features", "--features", &features])
            .env("LLVM_PREFIX", &llvm.prefix)
            .env(llvm_sys, &llvm.prefix),
    )
}

/// Where the linker for this LLVM lies: its version is in the name, so that a newer one is built beside it.
pub(super) fn linker_root(llvm: u32) -> Result<PathBuf> {
    Ok(cache()?.join(format!("bpf-linker-{BPF_LINKER}-llvm{llvm}")))
}

/// A cargo plugin or tool of exactly this version, built from source if it isn't in the cache.
pub(crate) fn ensure_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = cache()?.join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if process::output(Command::new(&program).arg("--version")).is_err() {
        process::say(format!(
            "building {name} {version}; takes some minutes, once"
        ));
        run(&mut cargo_install(name, version, &root))?;
    }
    Ok(program)
}

fn cargo_install(name: &str, version: &str, root: &Path) -> Command {
    let mut command = Command::new(workspace::cargo());
    command
        .args(["install", name, "--locked", "--version", version, "--root"])
        .arg(root)
        // Its artifacts are of no use later: cargo puts them in a temporary folder unless told otherwise.
        .env_remove("CARGO_TARGET_DIR");
    command
}

/// `$XDG_CACHE_HOME/sluice`, or where that defaults to.
fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so there is no place to keep tools")?;
    Ok(base.join("sluice"))
}
