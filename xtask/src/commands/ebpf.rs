//! `cargo xtask ebpf`: builds the kernel programs and puts the object where the loader's build looks for it.

use std::{env::consts::ARCH, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, say},
    toolchain::{self, Toolchain},
    workspace::Workspace,
};

const PACKAGE: &str = "sluice-ebpf";

/// Programs run on the machine they are built on, in its byte order.
const TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Builds the eBPF object; cargo decides whether anything is to be done.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    // A folder of its own: sharing one with host builds, whose compiler differs, would rebuild everything at each turn.
    let target_dir = workspace.target.join("ebpf");
    process::run(&mut cargo_build(workspace, &toolchain, &target_dir))?;
    let built = target_dir.join(TARGET).join("release").join(PACKAGE);
    let object = workspace.target.join("bpf").join(format!("{PACKAGE}.o"));
    publish(&built, &object)
}

fn cargo_build(workspace: &Workspace, toolchain: &Toolchain, target_dir: &Path) -> Command {
    let flags = [
        // aya-ebpf's bindings of kernel structures (`pt_regs`) depend on the machine that the program will run on.
        &format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        // The verifier quotes source lines, and maps and global functions need type information, from BTF, which the
        // linker derives from DWARF.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ];
    let linker = format!(
        "CARGO_TARGET_{}_LINKER",
        TARGET.to_uppercase().replace('-', "_")
    );
    let mut command = Command::new(&toolchain.compiler.cargo);
    command
        .current_dir(&workspace.root)
        .args(["build", "--release", "--package", PACKAGE])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(target_dir)
        .env("RUSTC", &toolchain.compiler.rustc)
        // `-Z build-std` is for nightly compilers; this makes a stable one, as Debian has it, accept it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env(linker, &toolchain.linker)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER");
    command
}

/// Copies the object if its content changed: its time of change decides whether the loader is built again.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        say(format!("{} is up to date", object.display()));
        return Ok(());
    }
    let folder = object.parent().context("the object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // Renamed into place, so that a build at the same time reads the old or the new object and no half.
    let partial = folder.join(format!(".{PACKAGE}.{}", std::process::id()));
    fs::write(&partial, &bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, object).with_context(|| format!("writing {}", object.display()))?;
    say(format!(
        "wrote {} ({} KiB)",
        object.display(),
        bytes.len() / 1024
    ));
    Ok(())
}
