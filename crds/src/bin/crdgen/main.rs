#![forbid(unsafe_code)]
//! Writes the custom resource definitions to `crds/yaml` and the tables of `docs/crds.md`, or checks that what is there is what the types
//! say.

mod page;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use sluice_crds::crd;

fn main() -> ExitCode {
    let files = match generated(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("crdgen: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match env::args().nth(1).as_deref() {
        Some("--write") => write(&files).map(|()| true),
        Some("--check") => Ok(check(&files)),
        _ => {
            eprintln!("usage: crdgen --write | --check");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every generated file with what it should hold.
fn generated(root: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let yaml = crd::all_crds().map_err(|error| error.to_string())?;
    let mut files: Vec<_> = yaml
        .into_iter()
        .map(|(name, text)| (root.join("yaml").join(name), text))
        .collect();
    let path = root.join("../docs/crds.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let definitions = crd::definitions().map_err(|error| error.to_string())?;
    let fresh =
        page::renew(&text, &definitions).map_err(|error| format!("{}: {error}", path.display()))?;
    files.push((path, fresh));
    Ok(files)
}

fn write(files: &[(PathBuf, String)]) -> io::Result<()> {
    files.iter().try_for_each(|(path, text)| {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)
    })
}

fn check(files: &[(PathBuf, String)]) -> bool {
    let stale: Vec<String> = files
        .iter()
        .filter(|(path, text)| fs::read_to_string(path).ok().as_ref() != Some(text))
        .map(|(path, _)| path.display().to_string())
        .collect();
    if !stale.is_empty() {
        eprintln!(
            "crdgen: not what the types say: {}; run crdgen --write",
            stale.join(", ")
        );
    }
    stale.is_empty()
}
