//! Endpoint programs at pods' interfaces, from threads that have no datapath: at once by filters, and for good by links. When which is
//! done may not enter.
//!
//! Making a link waits for grace periods, some 10 ms for each program, with the kernel's lock on all interfaces held. A filter is at work
//! at once, but whoever removes an interface's filters removes ours too. So an interface starts with filters, and gets its links when
//! nobody waits.

use std::os::fd::{AsFd, OwnedFd};

use sluice_abi::event::Hook;

use super::links::{ENDPOINT_HOOKS, is_egress, pin_path, remove_pin};
use super::{Attachment, Datapath, Instance, LoadError};
use crate::net::Netlink;
use crate::sys::{self, EmptyProgram, update_link};

/// Attaches endpoint programs to interfaces of the calling thread's namespace, of which each is one request's or thread's at a time.
#[derive(Debug)]
pub struct Attacher {
    instance: Instance,
    from_endpoint: OwnedFd,
    to_endpoint: OwnedFd,
    /// Lets everything on to what comes after it.
    passing: EmptyProgram,
}

impl Datapath {
    /// An attacher of this datapath's endpoint programs; `None` for an anonymous one, whose links are nobody else's.
    ///
    /// # Errors
    /// The kernel refuses a program, or no descriptor is left.
    pub fn attacher(&self) -> Result<Option<Attacher>, LoadError> {
        let Some(instance) = &self.instance else {
            return Ok(None);
        };
        let program = |hook: Hook| {
            self.program_fd(hook)?
                .try_clone_to_owned()
                .map_err(|e| LoadError::path("a program", e))
        };
        Ok(Some(Attacher {
            instance: instance.clone(),
            from_endpoint: program(Hook::FromEndpoint)?,
            to_endpoint: program(Hook::ToEndpoint)?,
            passing: EmptyProgram::passing()?,
        }))
    }
}

impl Attacher {
    /// Puts both programs at a new interface at once. They drop what comes from an interface that is no endpoint's.
    ///
    /// # Errors
    /// There is no such interface, or the kernel has no filters of this kind.
    pub fn guard(&self, ifindex: u32) -> Result<(), LoadError> {
        let (incoming, outgoing) = (self.from_endpoint.as_fd(), self.to_endpoint.as_fd());
        Ok(Netlink::open()?.add_filters(ifindex, incoming, outgoing)?)
    }

    /// Puts both programs at an interface for good, by pinned links, and takes away what [`Attacher::guard`] put there. Repeating it is no
    /// error. It waits for grace periods.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn fasten(&self, ifindex: u32) -> Result<(), LoadError> {
        let mut links = Vec::new();
        for hook in ENDPOINT_HOOKS {
            links.push((self.link(Attachment { ifindex, hook })?, hook));
        }
        // Until here the filters judged, the links let pass. From here to their removal a packet that goes on to the stack is judged by
        // both, in the same way.
        for (link, hook) in &links {
            update_link(link.as_fd(), self.program(*hook).as_fd())?;
        }
        Ok(Netlink::open()?.remove_filters(ifindex)?)
    }

    /// Forgets the links of an interface that is gone.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn release(&self, ifindex: u32) -> Result<(), LoadError> {
        ENDPOINT_HOOKS
            .into_iter()
            .try_for_each(|hook| remove_pin(&self.instance, Attachment { ifindex, hook }))
    }

    /// The link there is, or a new one.
    fn link(&self, at: Attachment) -> Result<OwnedFd, LoadError> {
        let path = pin_path(&self.instance, at);
        if let Some(link) = sys::open_pinned(&path)? {
            // As for the datapath's own links: an index may have been another interface's.
            if sys::link_info(link.as_fd())?.ifindex == at.ifindex {
                return Ok(link);
            }
            remove_pin(&self.instance, at)?;
        }
        let link = sys::create_tcx_link(self.passing.as_fd(), at.ifindex, is_egress(at.hook))?;
        sys::pin(link.as_fd(), &path)?;
        Ok(link)
    }

    const fn program(&self, hook: Hook) -> &OwnedFd {
        match hook {
            Hook::ToEndpoint => &self.to_endpoint,
            _ => &self.from_endpoint,
        }
    }
}
