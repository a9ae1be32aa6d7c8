//! Looks for compilers, LLVMs and linkers. Changing the machine may not enter.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Compiler, Origin, install,
    plan::{Llvm, Probe},
};
use crate::process;

const SYSTEM_BIN: &str = "/usr/bin";

/// Everything that [`super::plan::next`] decides on.
pub(super) fn look() -> Probe {
    let llvms = llvms();
    let mut compilers: Vec<_> = compiler(Origin::System, Path::new(SYSTEM_BIN))
        .into_iter()
        .collect();
    compilers.extend(rustup_compilers());
    let linkers = compilers
        .iter()
        .filter_map(|compiler| working_linker(compiler.llvm))
        .collect();
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    Probe {
        compilers,
        llvms,
        linkers,
        apt: Path::new("/usr/bin/apt-get").exists(),
        debian: is_debian(&os_release),
        rustup: process::find("rustup").is_some(),
    }
}

/// The compiler in this folder; none if there is none, or if it doesn't run.
fn compiler(origin: Origin, bin: &Path) -> Option<Compiler> {
    let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
    if !cargo.exists() {
        return None;
    }
    let version = process::output(Command::new(&rustc).arg("-vV")).ok()?;
    let (version, llvm) = versions(&version)?;
    let sysroot = process::output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    Some(Compiler {
        origin,
        rustc,
        cargo,
        version,
        llvm,
        has_sources: sources.exists(),
    })
}

/// Version and LLVM major from `rustc -vV`.
fn versions(answer: &str) -> Option<((u32, u32), u32)> {
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name));
    let mut release = field("release: ")?.split('.');
    let version = (release.next()?.parse().ok()?, release.next()?.parse().ok()?);
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((version, llvm))
}

/// The compilers of rustup, the one in use first.
fn rustup_compilers() -> Vec<Compiler> {
    let Ok(list) = process::output(Command::new("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    toolchains(&list)
        .into_iter()
        .filter_map(|name| {
            let which = ["which", "--toolchain", &name, "rustc"];
            let rustc = process::output(Command::new("rustup").args(which)).ok()?;
            compiler(Origin::Rustup(name), Path::new(rustc.trim()).parent()?)
        })
        .collect()
}

/// The names in `rustup toolchain list`; the one in use, which is marked, first.
fn toolchains(list: &str) -> Vec<String> {
    let mut toolchains: Vec<_> = list
        .lines()
        .filter_map(|line| Some((!line.contains("active"), line.split_whitespace().next()?)))
        .collect();
    toolchains.sort_by_key(|(not_active, _)| *not_active);
    toolchains
        .into_iter()
        .map(|(_, name)| name.to_owned())
        .collect()
}

fn llvms() -> Vec<Llvm> {
    let debian = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut configs: Vec<PathBuf> = debian
        .filter(|dir| dir.file_name().to_string_lossy().starts_with("llvm-"))
        .map(|dir| dir.path().join("bin/llvm-config"))
        .collect();
    configs.extend(process::find("llvm-config"));
    configs.iter().filter_map(|config| llvm(config)).collect()
}

/// The LLVM that this `llvm-config` speaks for, if a program can be linked with it.
fn llvm(config: &Path) -> Option<Llvm> {
    let ask = |flag: &str| process::output(Command::new(config).arg(flag)).ok();
    let prefix = PathBuf::from(ask("--prefix")?.trim());
    let linkable = ["lib", "lib64"]
        .iter()
        .any(|lib| prefix.join(lib).join("libLLVM.so").exists());
    let major = ask("--version")?.split('.').next()?.parse().ok()?;
    linkable.then_some(Llvm { major, prefix })
}

/// The linker built earlier for this LLVM, if it still starts: LLVM's library may have been removed since.
fn working_linker(llvm: u32) -> Option<(u32, PathBuf)> {
    let linker = install::linker_root(llvm).ok()?.join("bin/bpf-linker");
    process::output(Command::new(&linker).arg("--version")).ok()?;
    Some((llvm, linker))
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| line == "ID=debian")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_compiler_is_read_from_what_it_says() {
        let nightly =
            "rustc 1.97.0-nightly (0 2026-05-19)\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(versions(nightly), Some(((1, 97), 22)));
        assert_eq!(versions("release: 1.97.0\n"), None);
    }

    #[test]
    fn the_toolchain_in_use_comes_first() {
        let list =
            "nightly-x86_64-unknown-linux-gnu\nstable-x86_64-unknown-linux-gnu (active, default)\n";
        assert_eq!(
            toolchains(list),
            [
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu"
            ]
        );
    }

    #[test]
    fn debian_is_not_its_derivatives_which_lack_its_rust_packages() {
        assert!(is_debian("PRETTY_NAME=\"Debian\"\nID=debian\n"));
        assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\n"));
    }
}
