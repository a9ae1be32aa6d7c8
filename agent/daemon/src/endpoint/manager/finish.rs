//! What requests left to do about their interfaces. When it is time for it may not enter.

use sluice_cni::protocol::{AttachmentId, Code, Failure};
use sluice_datapath::net::NetError;
use tracing::warn;

use super::{
    super::later::{Task, What},
    Manager,
};

impl Manager {
    /// Does what requests left to do, whenever none has come for a moment. It does not return.
    pub fn finish_when_quiet(&self) {
        loop {
            self.finish(&self.later.next());
        }
    }

    /// Does what requests left to do, each once.
    pub fn finish_all(&self) {
        for id in self.later.all() {
            self.finish(&id);
        }
    }

    /// Removes what is left of an interface whose key is wanted again.
    pub(super) fn remove_before(&self, id: &AttachmentId) -> Result<(), Failure> {
        let Some(task) = self.later.take(id) else {
            return Ok(());
        };
        let done = self.perform(&task);
        done.map_err(|details| {
            self.later.put_again(id, task);
            Failure::new(
                Code::TRY_AGAIN,
                "the interface before this one is there still",
                details,
            )
        })
    }

    fn finish(&self, id: &AttachmentId) {
        let _turn = self.turn(id);
        let Some(task) = self.later.take(id) else {
            return;
        };
        if let Err(error) = self.perform(&task) {
            warn!(
                interface = task.host_name,
                error, "what was left to do about an interface is tried again"
            );
            self.later.put_again(id, task);
        }
    }

    fn perform(&self, task: &Task) -> Result<(), String> {
        let told = |error: NetError| error.to_string();
        match task.what {
            What::Fasten => match self.datapath.fasten(task.index) {
                // It went with its namespace.
                Err(_) if self.links.find(&task.host_name).map_err(told)? != Some(task.index) => {
                    self.datapath.release(task.index)
                }
                other => other,
            },
            What::Remove => {
                self.links.remove(&task.host_name).map_err(told)?;
                self.datapath.release(task.index)
            }
        }
    }
}
