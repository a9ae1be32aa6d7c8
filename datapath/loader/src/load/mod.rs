//! An instance of the datapath: its programs, maps and links; made, taken over from a process before, and removed. What is written into
//! the maps may not enter.
//!
//! ```text
//! /sys/fs/bpf/sluice/NAME/
//!     links/12-from_endpoint …        not versioned: a new program replaces the old one of the same link in one step
//!     v0123456789abcdef/ipcache …     versioned by layout and sizes: a new layout never meets old bytes
//! ```

mod attacher;
mod error;
mod instance;
mod links;
mod pins;
mod sizes;

pub use attacher::Attacher;
pub use error::LoadError;
pub use instance::{BadName, Instance};
pub use links::Attachment;
pub use sizes::Sizes;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use sluice_abi::{event::Hook, maps};

use self::instance::Layout;
use crate::state::{
    Addresses, Connections, Counters, Endpoints, Events, Excluded, Nodes, Services, Settings,
};
use crate::sys::{SysError, update_link};
use crate::writer::{KernelStore, WriteError, Writer};
use crate::{object, probe};

/// The programs, by what they are attached to.
pub(crate) const PROGRAMS: [(Hook, &str); Hook::COUNT] = [
    (Hook::FromEndpoint, "from_endpoint"),
    (Hook::ToEndpoint, "to_endpoint"),
    (Hook::FromOutside, "from_outside"),
    (Hook::Trace, "trace"),
    (Hook::ToOutside, "to_outside"),
    (Hook::FromOverlay, "from_overlay"),
    (Hook::ToOverlay, "to_overlay"),
];

/// Name of the map that only userland knows: what ended connections had counted. See [`Counters`].
pub(crate) const CARRIED: &str = "rule_carried";

/// A loaded datapath. A pinned one goes on judging packets when this value and its process are gone; an anonymous one ends with it.
#[derive(Debug)]
pub struct Datapath {
    ebpf: Ebpf,
    carried: OwnedFd,
    instance: Option<Instance>,
    layout: Layout,
    /// Links of an anonymous instance, which live as long as these descriptors; for a pinned one the pins keep them.
    links: BTreeMap<Attachment, OwnedFd>,
    /// Held as long as this process is the instance's one writer.
    _lock: Option<File>,
}

impl Datapath {
    /// Loads the programs. With an instance its pinned maps of the same layout and sizes are taken over where there are any, and others are
    /// made beside those; the links that an earlier process left
    /// keep running its programs until [`Datapath::take_over`]. Without one nothing is pinned.
    ///
    /// # Errors
    /// The kernel or the rights do not suffice, another process has the instance, a pinned map is not what its directory says, or the
    /// verifier refuses a program.
    pub fn open(instance: Option<&Instance>, sizes: &Sizes) -> Result<Self, LoadError> {
        probe::require()?;
        sizes.check()?;
        let layout = Layout::of(sizes);
        let lock = instance
            .map(|instance| pins::prepare(instance, &layout))
            .transpose()?;
        let object = object::embedded()?;
        let entries: Vec<(&str, u32)> = maps::ALL
            .iter()
            .map(|spec| (spec.name, sizes.entries(spec)))
            .collect();
        let mut loader = EbpfLoader::new();
        for &(name, count) in &entries {
            loader.map_max_entries(name, count);
        }
        if let Some(instance) = instance {
            for spec in maps::ALL {
                let path = instance.map(&layout, spec.name);
                pins::check(path.clone(), spec, sizes.entries(spec))?;
                loader.map_pin_path(spec.name, path);
            }
        }
        let mut ebpf = loader
            .load(object)
            .map_err(|e| LoadError::Object(Box::new(e)))?;
        for (_, name) in PROGRAMS {
            program_mut(&mut ebpf, name)?
                .load()
                .map_err(|source| LoadError::Program {
                    name,
                    source: Box::new(source),
                })?;
        }
        let carried = instance.map(|instance| instance.map(&layout, CARRIED));
        let carried = pins::carried(carried.as_deref(), sizes)?;
        Ok(Self {
            ebpf,
            carried,
            instance: instance.cloned(),
            layout,
            links: BTreeMap::new(),
            _lock: lock,
        })
    }

    /// The instance, unless it is anonymous.
    #[must_use]
    pub const fn instance(&self) -> Option<&Instance> {
        self.instance.as_ref()
    }

    /// The writer of the policy tables. There must be one at a time.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn writer(&self) -> Result<Writer<KernelStore>, WriteError> {
        let store =
            KernelStore::new(|name| self.map(name)).map_err(crate::writer::StoreError::from)?;
        Writer::open(store)
    }

    /// The address table.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn addresses(&self) -> Result<Addresses, SysError> {
        Addresses::new(|name| self.map(name))
    }

    /// The endpoints.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn endpoints(&self) -> Result<Endpoints, SysError> {
        Endpoints::new(|name| self.map(name))
    }

    /// The other nodes.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn nodes(&self) -> Result<Nodes, SysError> {
        Nodes::new(|name| self.map(name))
    }

    /// The node's settings and watermarks.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn settings(&self) -> Result<Settings, SysError> {
        Settings::new(|name| self.map(name))
    }

    /// The blocks that are never masqueraded.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn excluded(&self) -> Result<Excluded, SysError> {
        Excluded::new(|name| self.map(name))
    }

    /// The services.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn services(&self) -> Result<Services, SysError> {
        Services::new(|name| self.map(name))
    }

    /// The connections.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn connections(&self) -> Result<Connections, SysError> {
        Connections::new(|name| self.map(name))
    }

    /// The counters of rules and drops.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn counters(&self) -> Result<Counters, SysError> {
        Counters::new(|name| self.map(name))
    }

    /// The reader of events. A ring has one reader: a second one takes events from the first.
    ///
    /// # Errors
    /// The ring can't be mapped.
    pub fn events(&self) -> Result<Events, LoadError> {
        Events::new(self.map(maps::EVENTS.name)?)
    }

    /// A descriptor of a map, by its name: for tests and tools that look behind the writers.
    ///
    /// # Errors
    /// There is no such map, or no descriptor is left.
    pub fn map(&self, name: &str) -> Result<OwnedFd, SysError> {
        let clone = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|source| SysError {
                call: "dup",
                object: format!("map {name}"),
                source,
            })
        };
        if name == CARRIED {
            return clone(self.carried.as_fd());
        }
        let map = self
            .ebpf
            .map(name)
            .and_then(pins::data)
            .ok_or_else(|| SysError {
                call: "opening",
                object: format!("map {name}"),
                source: std::io::Error::new(
                    std::io::ErrorKind::NotFound,
                    "the programs have no such map",
                ),
            })?;
        clone(map.fd().as_fd())
    }

    pub(crate) fn classifier(&self, hook: Hook) -> Result<&SchedClassifier, LoadError> {
        let name = name_of(hook);
        self.ebpf
            .program(name)
            .and_then(|program| <&SchedClassifier>::try_from(program).ok())
            .ok_or(LoadError::Missing(name))
    }

    /// A program's descriptor.
    pub(crate) fn program_fd(&self, hook: Hook) -> Result<BorrowedFd<'_>, LoadError> {
        let program = self.classifier(hook)?;
        let name = name_of(hook);
        Ok(program
            .fd()
            .map_err(|source| LoadError::Program {
                name,
                source: Box::new(source),
            })?
            .as_fd())
    }
}

/// The program for a hook, as it is called in the object.
pub(crate) const fn name_of(hook: Hook) -> &'static str {
    PROGRAMS[hook as usize].1
}

fn program_mut<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, LoadError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut SchedClassifier>::try_from(program).ok())
        .ok_or(LoadError::Missing(name))
}

impl Datapath {
    /// Name and number of verified instructions of each program.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn verified_instructions(&self) -> Result<Vec<(&'static str, u32)>, LoadError> {
        let mut counts = Vec::new();
        for (hook, name) in PROGRAMS {
            let info = self
                .classifier(hook)?
                .info()
                .map_err(|source| LoadError::Program {
                    name,
                    source: Box::new(source),
                })?;
            counts.push((name, info.verified_instruction_count().unwrap_or(0)));
        }
        Ok(counts)
    }
}

/// Removes an instance: its links, then its maps. Repeating it is no error.
///
/// # Errors
/// A process has it open, or something can't be removed.
pub fn remove(instance: &Instance) -> Result<(), LoadError> {
    let _lock = pins::lock(instance)?;
    pins::remove(instance)
}

impl Datapath {
    /// Removes what earlier layouts of this instance left, once [`Datapath::take_over`] has replaced their programs.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn remove_old_layouts(&self) -> Result<(), LoadError> {
        self.instance.as_ref().map_or(Ok(()), |instance| {
            pins::remove_old_layouts(instance, &self.layout)
        })
    }

    /// Removes everything, links first.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn remove(mut self) -> Result<(), LoadError> {
        self.links.clear();
        self.instance.as_ref().map_or(Ok(()), pins::remove)
    }
}
