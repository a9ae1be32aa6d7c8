//! Links between programs and interfaces: made, taken over, removed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use sluice_abi::event::Hook;

use super::{Datapath, Instance, LoadError, name_of, update_link};
use crate::net::{NetNs, in_namespace};
use crate::sys;

/// A program at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The interface's index in its namespace.
    pub ifindex: u32,
    /// Which program.
    pub hook: Hook,
}

/// Both programs of a pod's interface.
pub(super) const ENDPOINT_HOOKS: [Hook; 2] = [Hook::ToEndpoint, Hook::FromEndpoint];
/// Both programs of a device that faces outward: before anything is masqueraded its answers are known.
const OUTSIDE_HOOKS: [Hook; 2] = [Hook::FromOutside, Hook::ToOutside];
/// Both programs of the overlay's device.
const OVERLAY_HOOKS: [Hook; 2] = [Hook::ToOverlay, Hook::FromOverlay];
/// Programs that see what leaves an interface; the others see what comes in.
const EGRESS: [Hook; 3] = [Hook::ToEndpoint, Hook::ToOutside, Hook::ToOverlay];

impl Datapath {
    /// Attaches both endpoint programs to a pod's host-side interface in `ns`. Repeating it replaces the programs in one step. The
    /// programs drop what comes from an interface that is no endpoint's, so an interface attached first and described later is closed
    /// in between.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn attach_endpoint(&mut self, ns: &NetNs, ifindex: u32) -> Result<(), LoadError> {
        ENDPOINT_HOOKS
            .into_iter()
            .try_for_each(|hook| self.attach(ns, Attachment { ifindex, hook }))
    }

    /// Attaches both overlay programs to the device in `ns` that wraps packets for other nodes. Repeating it replaces the programs.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn attach_overlay(&mut self, ns: &NetNs, ifindex: u32) -> Result<(), LoadError> {
        OVERLAY_HOOKS
            .into_iter()
            .try_for_each(|hook| self.attach(ns, Attachment { ifindex, hook }))
    }

    /// Removes both overlay programs from a device. One that has none, or is gone, is no error.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn detach_overlay(&mut self, ifindex: u32) -> Result<(), LoadError> {
        OVERLAY_HOOKS
            .into_iter()
            .try_for_each(|hook| self.detach_one(Attachment { ifindex, hook }))
    }

    /// Attaches both programs for devices that face outward to an interface in `ns`.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn attach_outside(&mut self, ns: &NetNs, ifindex: u32) -> Result<(), LoadError> {
        OUTSIDE_HOOKS
            .into_iter()
            .try_for_each(|hook| self.attach(ns, Attachment { ifindex, hook }))
    }

    /// Removes every program of ours from an interface. An interface that has none, or is gone, is no error.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), LoadError> {
        for (hook, _) in super::PROGRAMS {
            let at = Attachment { ifindex, hook };
            self.links.remove(&at);
            if let Some(instance) = &self.instance {
                remove_pin(instance, at)?;
            }
        }
        Ok(())
    }

    /// What is attached, sorted; links whose interface is gone are left out.
    ///
    /// # Errors
    /// The pins can't be read.
    pub fn attached(&self) -> Result<Vec<Attachment>, LoadError> {
        let mut found = Vec::new();
        for (at, link) in self.links()? {
            if sys::link_info(link.as_fd())?.ifindex != 0 {
                found.push(at);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Puts this process's programs behind the links that an earlier one left, each in one step: no packet goes unjudged. Call it when
    /// the maps hold what they should, which for maps taken over they do. Links whose interface is gone are removed. Returns what is
    /// attached now.
    ///
    /// # Errors
    /// The kernel refuses, or the pins can't be read.
    pub fn take_over(&mut self) -> Result<Vec<Attachment>, LoadError> {
        let mut taken = Vec::new();
        for (at, link) in self.links()? {
            if sys::link_info(link.as_fd())?.ifindex == 0 {
                self.detach_one(at)?;
                continue;
            }
            update_link(link.as_fd(), self.program_fd(at.hook)?)?;
            taken.push(at);
        }
        taken.sort();
        Ok(taken)
    }

    fn attach(&mut self, ns: &NetNs, at: Attachment) -> Result<(), LoadError> {
        if let Some(link) = self.link(at)? {
            // The index may have been given to another interface since; a link follows its interface, not the number.
            if sys::link_info(link.as_fd())?.ifindex == at.ifindex {
                return Ok(update_link(link.as_fd(), self.program_fd(at.hook)?)?);
            }
            self.detach_one(at)?;
        }
        let program = self.program_fd(at.hook)?;
        let link = in_namespace(ns, || {
            sys::create_tcx_link(program, at.ifindex, is_egress(at.hook))
        })??;
        if let Some(instance) = &self.instance {
            sys::pin(link.as_fd(), &pin_path(instance, at))?;
        } else {
            self.links.insert(at, link);
        }
        Ok(())
    }

    fn detach_one(&mut self, at: Attachment) -> Result<(), LoadError> {
        self.links.remove(&at);
        self.instance
            .as_ref()
            .map_or(Ok(()), |instance| remove_pin(instance, at))
    }

    fn link(&self, at: Attachment) -> Result<Option<OwnedFd>, LoadError> {
        if let Some(link) = self.links.get(&at) {
            let copy = link.try_clone().map_err(|e| LoadError::path("a link", e))?;
            return Ok(Some(copy));
        }
        let Some(instance) = &self.instance else {
            return Ok(None);
        };
        Ok(sys::open_pinned(&pin_path(instance, at))?)
    }

    fn links(&self) -> Result<Vec<(Attachment, OwnedFd)>, LoadError> {
        let mut found = Vec::new();
        for (at, link) in &self.links {
            let copy = link.try_clone().map_err(|e| LoadError::path("a link", e))?;
            found.push((*at, copy));
        }
        let Some(instance) = &self.instance else {
            return Ok(found);
        };
        let directory = instance.links();
        for entry in fs::read_dir(&directory).map_err(|e| LoadError::path(&directory, e))? {
            let entry = entry.map_err(|e| LoadError::path(&directory, e))?;
            if let Some(at) = entry.file_name().to_str().and_then(parse)
                && let Some(link) = sys::open_pinned(&entry.path())?
            {
                found.push((at, link));
            }
        }
        Ok(found)
    }
}

/// Whether a program sees what leaves an interface.
pub(super) fn is_egress(hook: Hook) -> bool {
    EGRESS.contains(&hook)
}

pub(super) fn pin_path(instance: &Instance, at: Attachment) -> PathBuf {
    instance
        .links()
        .join(format!("{}-{}", at.ifindex, name_of(at.hook)))
}

pub(super) fn remove_pin(instance: &Instance, at: Attachment) -> Result<(), LoadError> {
    let path = pin_path(instance, at);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LoadError::path(path, error)),
        _ => Ok(()),
    }
}

fn parse(name: &str) -> Option<Attachment> {
    let (ifindex, program) = name.split_once('-')?;
    let (hook, _) = super::PROGRAMS
        .into_iter()
        .find(|(_, known)| *known == program)?;
    Some(Attachment {
        ifindex: ifindex.parse().ok()?,
        hook,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_are_read_back() {
        let instance: Instance = "lab".parse().unwrap();
        let at = Attachment {
            ifindex: 12,
            hook: Hook::ToEndpoint,
        };
        let path = pin_path(&instance, at);
        assert_eq!(
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(parse),
            Some(at)
        );
        assert_eq!(parse("12-something"), None);
        assert_eq!(parse("x-trace"), None);
    }
}
