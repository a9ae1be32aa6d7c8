//! Deletions that the plugin left while no agent was there. What deleting does is the manager's.

use std::{fs, path::Path};

use tracing::{info, warn};

use super::Manager;

/// Does the deletions that wait. One that fails waits on.
pub fn follow_deletions(manager: &Manager, folder: &Path) {
    let waiting = match sluice_cni::deletions::waiting(folder) {
        Ok(waiting) => waiting,
        Err(error) => {
            warn!(folder = %folder.display(), %error, "deletions that wait can't be read");
            return;
        }
    };
    for (path, id) in waiting {
        match manager.del(&id) {
            Ok(()) => {
                info!(container = %id.container, "a deletion that waited is done");
                if let Err(error) = fs::remove_file(&path) {
                    warn!(path = %path.display(), %error, "a deletion that is done can't be removed");
                }
            }
            Err(error) => warn!(container = %id.container, %error, "a deletion waits on"),
        }
    }
}
