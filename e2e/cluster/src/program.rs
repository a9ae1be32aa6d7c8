//! Where this crate's own program is: machines start with it as their first process.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::{
    command,
    error::{Doing as _, Error, Result},
};

const NAME: &str = "sluice-cluster";

/// The program: this process's own, or the one that cargo builds beside a test.
pub(crate) fn path() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut found = FOUND
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = &*found {
        return Ok(path.clone());
    }
    let own = env::current_exe().doing(|| "finding this program's own file".to_owned())?;
    let path = if own.file_name().is_some_and(|name| name == NAME) {
        own
    } else {
        built_beside(&own)?
    };
    *found = Some(path.clone());
    Ok(path)
}

/// `own` is a test, `<target>/<profile>/deps/<name>`, or a program, `<target>/<profile>/<name>`.
fn built_beside(own: &Path) -> Result<PathBuf> {
    let profile = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .filter(|folder| folder.parent().is_some())
        .ok_or_else(|| Error::Missing {
            what: format!("the program {NAME}"),
            hint: format!("{} is not in a target folder of cargo", own.display()),
        })?;
    let mut cargo = cargo();
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "build",
            "--quiet",
            "--package",
            NAME,
            "--bin",
            NAME,
            "--target-dir",
        ])
        .arg(profile.parent().unwrap_or(profile));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    command::output(&mut cargo)?;
    Ok(profile.join(NAME))
}

/// The cargo that runs this program, without what it told this program about its own package: build scripts that look at it would
/// make half of the dependencies build again, and again when a person calls cargo.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let about_the_caller =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(about_the_caller) {
            cargo.env_remove(name);
        }
    }
    cargo
}
