//! Root file systems from Debian packages: resolved and downloaded by apt, unpacked without running or installing anything.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    command,
    error::{Error, Result},
};

/// Unpacks packages and all they depend on into `root`. `downloads` keeps what is fetched.
pub(super) fn unpack(packages: &[&str], downloads: &Path, root: &Path) -> Result<()> {
    usr_merge(root)?;
    fs::create_dir_all(downloads).map_err(Error::at("creating", downloads))?;
    // As if nothing were installed.
    let resolved = command::output(
        Command::new("apt-get")
            .args([
                "-o",
                "Dir::State::status=/dev/null",
                "--simulate",
                "--no-install-recommends",
                "install",
            ])
            .args(packages),
    )?;
    let wanted: Vec<&str> = resolved
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next())
        .collect();
    let missing: Vec<&&str> = wanted
        .iter()
        .filter(|package| find(downloads, package).is_none())
        .collect();
    if !missing.is_empty() {
        command::output(
            Command::new("apt-get")
                .args(["--quiet", "download"])
                .args(missing)
                .current_dir(downloads),
        )?;
    }
    for package in wanted {
        let file = find(downloads, package).ok_or_else(|| Error::Missing {
            what: format!("the Debian package {package} in {}", downloads.display()),
            hint: "apt-get says that it was downloaded; remove the folder and try again".to_owned(),
        })?;
        extract(&file, root)?;
    }
    Ok(())
}

/// Debian's layout since 12: `/bin` and the like are links into `/usr`.
fn usr_merge(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let folder = root.join("usr").join(name);
        fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
        let link = root.join(name);
        if link.symlink_metadata().is_err() {
            symlink(format!("usr/{name}"), &link).map_err(Error::at("linking", &link))?;
        }
    }
    Ok(())
}

/// Files are called `<package>_<version>_<architecture>.deb`.
fn find(downloads: &Path, package: &str) -> Option<std::path::PathBuf> {
    let prefix = format!("{package}_");
    fs::read_dir(downloads)
        .ok()?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
                && path.extension().is_some_and(|extension| extension == "deb")
        })
}

fn extract(package: &Path, root: &Path) -> Result<()> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(package);
    let start = |source| Error::Start {
        command: command::shown(&unpack),
        source,
    };
    let mut content = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(root);
    let input = content.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let done = tar.stdin(input).output().map_err(|source| Error::Start {
        command: command::shown(&tar),
        source,
    })?;
    let status = content.wait().map_err(|source| Error::Start {
        command: command::shown(&unpack),
        source,
    })?;
    command::finish(&tar, &done)?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed {
            command: command::shown(&unpack),
            status,
            stderr: String::new(),
        })
    }
}
