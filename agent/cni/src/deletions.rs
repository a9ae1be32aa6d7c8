//! Deletions that found no agent: a file each, which the next agent reads and removes. What deleting means may not enter.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::protocol::AttachmentId;

/// Leaves a deletion for the next agent. Repeating it is no error.
///
/// # Errors
/// The folder can't be made or written.
pub fn queue(folder: &Path, id: &AttachmentId) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = path_of(folder, id)?;
    let half = path.with_extension("new");
    fs::write(&half, serde_json::to_vec(id)?)?;
    fs::rename(half, path)
}

/// The deletions that wait, each with its file: removed by whoever has done them. Files that are no deletions are passed over.
///
/// # Errors
/// The folder can't be read; that there is none is no error.
pub fn waiting(folder: &Path) -> io::Result<Vec<(PathBuf, AttachmentId)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let whole = path
            .extension()
            .is_some_and(|extension| extension == "json");
        if whole && let Ok(id) = serde_json::from_slice(&fs::read(&path)?) {
            found.push((path, id));
        }
    }
    found.sort();
    Ok(found)
}

/// Container ids and interface names are checked where they are read; a file name is nothing to be careless about.
fn path_of(folder: &Path, id: &AttachmentId) -> io::Result<PathBuf> {
    let name = format!("{}-{}.json", id.container, id.interface);
    if name.contains(['/', '\0']) || name.starts_with('.') || name.len() > 200 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` can't name a file"),
        ));
    }
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_is_found_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deletions");
        assert_eq!(waiting(&folder).unwrap(), []);
        let id = AttachmentId {
            container: "0a1b".to_owned(),
            interface: "eth0".to_owned(),
        };
        queue(&folder, &id).unwrap();
        queue(&folder, &id).unwrap();
        fs::write(folder.join("junk.json"), "{").unwrap();
        let found = waiting(&folder).unwrap();
        assert_eq!(found, [(folder.join("0a1b-eth0.json"), id)]);
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for container in ["../x", "a/b", ".x"] {
            let id = AttachmentId {
                container: container.to_owned(),
                interface: "eth0".to_owned(),
            };
            assert!(queue(folder.path(), &id).is_err(), "{container}");
        }
    }
}
