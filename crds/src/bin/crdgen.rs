#![forbid(unsafe_code)]
//! Writes the custom resource definitions to `crds/yaml`, or checks that what is there is what the types say.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

fn main() -> ExitCode {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let definitions = match sluice_crds::crd::all_crds() {
        Ok(definitions) => definitions,
        Err(error) => {
            eprintln!("crdgen: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match env::args().nth(1).as_deref() {
        Some("--write") => write(&directory, &definitions).map(|()| true),
        Some("--check") => Ok(check(&directory, &definitions)),
        _ => {
            eprintln!("usage: crdgen --write | --check");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crdgen: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path, definitions: &[(String, String)]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    definitions
        .iter()
        .try_for_each(|(name, yaml)| fs::write(directory.join(name), yaml))
}

fn check(directory: &Path, definitions: &[(String, String)]) -> bool {
    let stale: Vec<&str> = definitions
        .iter()
        .filter(|(name, yaml)| fs::read_to_string(directory.join(name)).ok().as_ref() != Some(yaml))
        .map(|(name, _)| name.as_str())
        .collect();
    if !stale.is_empty() {
        eprintln!(
            "crdgen: {} in {} not what the types say: run crdgen --write",
            stale.join(", "),
            directory.display()
        );
    }
    stale.is_empty()
}
