//! Finds the eBPF object that `cargo xtask ebpf` built and snapshots it for `object.rs` to embed. Building the object
//! may not enter here: that needs another toolchain, and plain `cargo test` must work without it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const OVERRIDE: &str = "SLUICE_EBPF_OBJECT";
const OBJECT: &str = "sluice-ebpf.o";

fn main() {
    if let Err(error) = run() {
        // `cargo::error` fails the build with this text alone, where a panic would bury it under a backtrace.
        println!("cargo::error={error}");
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rustc-check-cfg=cfg(sluice_ebpf_embedded)");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    let object = match env::var_os(OVERRIDE) {
        Some(path) => Some(named(PathBuf::from(path))?),
        None => built(&out)?,
    };
    if let Some(object) = object {
        let copy = out.join(OBJECT);
        fs::copy(&object, &copy)
            .map_err(|e| format!("copying {} to {}: {e}", object.display(), copy.display()))?;
        println!("cargo::rustc-cfg=sluice_ebpf_embedded");
    }
    Ok(())
}

/// The object that the environment names; whoever names one wants that one and not silently none.
fn named(path: PathBuf) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "{OVERRIDE} names {}, which is not a file",
            path.display()
        ))
    }
}

/// The object that `cargo xtask ebpf` left in the target directory, if it was run.
fn built(out: &Path) -> Result<Option<PathBuf>, String> {
    let target = target_dir(out).ok_or_else(|| {
        format!(
            "no cargo target directory above {}; set {OVERRIDE} to the eBPF object",
            out.display()
        )
    })?;
    // Cargo reruns a script at every build while a path it watches is missing, so the directory is watched, which can
    // be made to exist, and not the object, which can't.
    let dir = target.join("bpf");
    fs::create_dir_all(&dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;
    println!("cargo::rerun-if-changed={}", dir.display());
    let object = dir.join(OBJECT);
    match fs::metadata(&object) {
        Ok(_) => Ok(Some(object)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("reading {}: {e}", object.display())),
    }
}

/// Cargo marks the root of its target directory with one of these files. Counting parents of `OUT_DIR` instead would
/// break with `--target` and with every change of cargo's inner layout.
fn target_dir(out: &Path) -> Option<&Path> {
    out.ancestors()
        .find(|dir| dir.join(".rustc_info.json").is_file() || dir.join("CACHEDIR.TAG").is_file())
}
