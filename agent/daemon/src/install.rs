//! Files that the container runtime reads: the plugin's binary and the list of plugins. When they come and go is decided elsewhere.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// The plugin, in the folder of plugins.
pub const PLUGIN: &str = "sluice-cni";
/// The list of plugins: before others by its name, so that the runtime takes it.
pub const CONFLIST: &str = "05-sluice.conflist";

/// Where the runtime looks, and what the plugin is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder of plugins.
    pub plugins: PathBuf,
    /// The folder of lists.
    pub lists: PathBuf,
    /// The version of the specification that the runtime is to speak.
    pub version: String,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Where deletions wait.
    pub deletions: PathBuf,
}

/// Copies the plugin into the folder of plugins, in one step for whoever runs it meanwhile.
///
/// # Errors
/// A file can't be read or written.
pub fn install_plugin(from: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let half = folder.join(format!(".{PLUGIN}.new"));
    fs::copy(from, &half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
    fs::rename(half, folder.join(PLUGIN))
}

/// Writes the list of plugins: from now on the runtime starts pods with us.
///
/// # Errors
/// The folder can't be written.
pub fn write_conflist(places: &Places) -> io::Result<()> {
    fs::create_dir_all(&places.lists)?;
    // What doesn't end as the runtime expects is not read.
    let half = places.lists.join(".sluice.new");
    fs::write(&half, format!("{:#}\n", conflist(places)))?;
    fs::rename(half, places.lists.join(CONFLIST))
}

/// Removes the list of plugins. One that is not there is no error.
///
/// # Errors
/// It can't be removed.
pub fn remove_conflist(folder: &Path) -> io::Result<bool> {
    remove(&folder.join(CONFLIST))
}

/// Removes the plugin. One that is not there is no error.
///
/// # Errors
/// It can't be removed.
pub fn remove_plugin(folder: &Path) -> io::Result<bool> {
    remove(&folder.join(PLUGIN))
}

fn conflist(places: &Places) -> Value {
    let mut plugins = vec![json!({
        "type": PLUGIN,
        "socket": places.socket,
        "deletions": places.deletions,
    })];
    // Host ports are its work, where it is installed.
    // A link that leads somewhere on the node leads nowhere in our container.
    if places.plugins.join("portmap").symlink_metadata().is_ok() {
        plugins.push(json!({
            "type": "portmap",
            "capabilities": {"portMappings": true},
        }));
    }
    json!({
        "cniVersion": places.version,
        "name": "sluice",
        "plugins": plugins,
    })
}

fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_and_list_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            plugins: folder.path().join("bin"),
            lists: folder.path().join("net.d"),
            version: "1.1.0".to_owned(),
            socket: "/s".into(),
            deletions: "/d".into(),
        };
        let source = folder.path().join("built");
        fs::write(&source, "#!").unwrap();
        install_plugin(&source, &places.plugins).unwrap();
        install_plugin(&source, &places.plugins).unwrap();
        let mode = fs::metadata(places.plugins.join(PLUGIN))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        write_conflist(&places).unwrap();
        let read = || -> Value {
            serde_json::from_slice(&fs::read(places.lists.join(CONFLIST)).unwrap()).unwrap()
        };
        assert_eq!(read()["plugins"].as_array().unwrap().len(), 1);
        assert_eq!(read()["plugins"][0]["socket"], "/s");
        // Chained where it is there.
        fs::write(places.plugins.join("portmap"), "").unwrap();
        write_conflist(&places).unwrap();
        assert_eq!(read()["plugins"][1]["type"], "portmap");
        assert!(remove_conflist(&places.lists).unwrap());
        assert!(!remove_conflist(&places.lists).unwrap());
        assert!(remove_plugin(&places.plugins).unwrap());
        let left: Vec<_> = fs::read_dir(&places.lists).unwrap().collect();
        assert!(left.is_empty());
    }
}
