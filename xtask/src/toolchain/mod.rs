//! The toolchain of the eBPF programs: a Rust compiler with the standard library's sources, and a `bpf-linker` built
//! against the same major version of LLVM. [`plan`] decides, [`probe`] looks, [`install`] acts.

mod install;
mod plan;
mod probe;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::process::say;
pub(crate) use install::ensure_tool;
use plan::Next;

/// What builds the eBPF programs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Toolchain {
    /// The compiler, and the cargo that goes with it.
    pub(crate) compiler: Compiler,
    /// The linker for the compiler's LLVM.
    pub(crate) linker: PathBuf,
}

/// One Rust compiler of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Compiler {
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// The compiler itself, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// The cargo beside it.
    pub(crate) cargo: PathBuf,
    /// Its version, without the patch number.
    pub(crate) version: (u32, u32),
    /// The major version of the LLVM inside it.
    pub(crate) llvm: u32,
    /// Whether the standard library's sources, which `-Z build-std` compiles, are there.
    pub(crate) has_sources: bool,
}

/// Who installed a compiler.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// The system's packages.
    System,
    /// rustup, under this toolchain name.
    Rustup(String),
}

impl Compiler {
    fn describe(&self) -> String {
        let origin = match &self.origin {
            Origin::System => "of the system".to_owned(),
            Origin::Rustup(name) => format!("of rustup's {name}"),
        };
        format!(
            "rustc {}.{} {origin} (LLVM {}, {} the standard library's sources)",
            self.version.0,
            self.version.1,
            self.llvm,
            if self.has_sources { "with" } else { "without" }
        )
    }
}

/// Finds the toolchain, installing what is missing, and says what it finds, does and why.
pub(crate) fn ensure() -> Result<Toolchain> {
    let mut given_up = Vec::new();
    loop {
        let probe = probe::look();
        match plan::next(&probe, &given_up) {
            Next::Ready(toolchain) => {
                say(format!("eBPF compiler: {}", toolchain.compiler.describe()));
                say(format!("eBPF linker: {}", toolchain.linker.display()));
                return Ok(toolchain);
            }
            Next::Do(step) => {
                for compiler in &probe.compilers {
                    say(format!("found {}", compiler.describe()));
                }
                say(step.why());
                if let Err(error) = install::perform(&step) {
                    say(format!("that way is closed: {error:#}"));
                }
                // Whether it worked shows in the next probe; no step is worth repeating.
                given_up.push(step);
            }
            Next::Stuck(advice) => bail!("no toolchain for the eBPF programs: {advice}"),
        }
    }
}
