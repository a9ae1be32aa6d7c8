//! The services: frontends, lists and backends, changed so that a program sees a list whole or not at all.
//!
//! New backends and the new list are written where nothing refers to them; then the frontend's one entry is replaced, which refers to
//! them; then what it referred to before goes, and its place rests until no program can be at it.

mod ranges;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;

use sluice_abi::ipcache::Address;
use sluice_abi::maps;
use sluice_abi::service::{Backend, Frontend, Service};
use thiserror::Error;

use crate::sys::{GracePeriod, Map, SysError};
use ranges::Ranges;

/// Where a frontend's packets may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Address, of the frontend's family.
    pub address: Address,
    /// Port.
    pub port: u16,
}

/// What a frontend leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The backends; one that is there twice counts once.
    pub backends: Vec<Target>,
    /// For how many seconds a client stays with its backend; 0 for no time.
    pub affinity_seconds: u32,
    /// Without backends packets are dropped and not refused: there are some, but none that this node may use.
    pub silent: bool,
}

/// Services could not be written.
#[derive(Debug, Error)]
pub enum ServicesError {
    /// Too many backends. The frontends named keep what they led to before, or, if they are new, lead nowhere: their packets drop.
    #[error(
        "map {map} is full: it has room for {room}; {} keep what they led to before, or drop what is sent to them", names(.left_out)
    )]
    Full {
        /// The map.
        map: &'static str,
        /// Its capacity.
        room: u32,
        /// The frontends that could not be written.
        left_out: Vec<Frontend>,
    },
    /// A map call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

fn names(frontends: &[Frontend]) -> String {
    const SHOWN: usize = 3;
    let name = |frontend: &Frontend| {
        let address = std::net::Ipv6Addr::from(frontend.address.0).to_canonical();
        format!(
            "{address} port {} (protocol {})",
            frontend.port, frontend.protocol
        )
    };
    let shown: Vec<String> = frontends.iter().take(SHOWN).map(name).collect();
    let rest = frontends.len().saturating_sub(SHOWN);
    if rest == 0 {
        format!("frontends {}", shown.join(", "))
    } else {
        format!("frontends {} and {rest} others", shown.join(", "))
    }
}

/// What is in force for a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    service: Service,
    /// Backends with their ids, in the order of the list.
    members: Vec<(Target, u32)>,
}

impl Known {
    /// Whether this is how a frontend leads there.
    fn is(&self, targets: &Targets, backends: &[Target]) -> bool {
        self.service.flags == flags(targets)
            && self.service.affinity == targets.affinity_seconds
            && self.members.iter().map(|(target, _)| target).eq(backends)
    }
}

const fn flags(targets: &Targets) -> u32 {
    if targets.silent { Service::SILENT } else { 0 }
}

/// The one writer of the services.
#[derive(Debug)]
pub struct Services {
    frontends: Map<Frontend, Service>,
    lists: Map<u32, u32>,
    backends: Map<u32, Backend>,
    grace: GracePeriod,
    known: BTreeMap<Frontend, Known>,
    /// Addresses that are marked as services'.
    marked: BTreeSet<Address>,
    /// The id that rested longest comes first: whoever remembers a backend by its id must not find another one there soon.
    free_ids: VecDeque<u32>,
    free_lists: Ranges,
    resting_ids: Vec<u32>,
    resting_lists: Vec<(u32, u32)>,
    last_number: u32,
}

impl Services {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        let frontends = Map::new(maps::SERVICES.name, fd(maps::SERVICES.name)?)?;
        let lists = Map::new(maps::SERVICE_LISTS.name, fd(maps::SERVICE_LISTS.name)?)?;
        let backends = Map::new(
            maps::SERVICE_BACKENDS.name,
            fd(maps::SERVICE_BACKENDS.name)?,
        )?;
        let mut services = Self {
            free_lists: Ranges::new(lists.capacity()),
            free_ids: VecDeque::new(),
            frontends,
            lists,
            backends,
            grace: GracePeriod::new()?,
            known: BTreeMap::new(),
            marked: BTreeSet::new(),
            resting_ids: Vec::new(),
            resting_lists: Vec::new(),
            last_number: 0,
        };
        services.recall()?;
        Ok(services)
    }

    /// Finds what an earlier process wrote, and finishes what it had begun.
    fn recall(&mut self) -> Result<(), SysError> {
        let records: BTreeMap<u32, Backend> = self.backends.entries()?.into_iter().collect();
        let mut used = BTreeSet::new();
        for (frontend, service) in self.frontends.entries()? {
            if service.number == 0 {
                self.marked.insert(frontend.address);
                continue;
            }
            let mut members = Vec::new();
            for element in service.first..service.first.saturating_add(service.count) {
                let id = self.lists.get(&element)?.unwrap_or(0);
                if let Some(record) = records.get(&id).filter(|r| r.service == service.number) {
                    used.insert(id);
                    members.push((target(record), id));
                }
            }
            self.free_lists.take_at(service.first, service.count);
            self.last_number = self.last_number.max(service.number);
            self.known.insert(frontend, Known { service, members });
        }
        for (id, record) in records {
            if id != 0 && !used.contains(&id) {
                if record != Backend::default() {
                    self.backends.put(&id, &Backend::default())?;
                }
                self.resting_ids.push(id);
            }
        }
        self.rest_over()
    }

    /// Changes frontends; `None` for one that goes. Returns how many changed. Where something fails the others are changed all the same, and
    /// the same call again does the rest.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses.
    pub fn apply(
        &mut self,
        wanted: &[(Frontend, Option<Targets>)],
    ) -> Result<usize, ServicesError> {
        let mut changed = 0;
        let mut failed = None;
        // What goes makes room.
        let (go, come): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, to)| to.is_none());
        for (frontend, _) in go {
            changed += usize::from(self.remove(frontend)?);
        }
        for (frontend, targets) in come {
            let Some(targets) = targets else { continue };
            match self.set(frontend, targets) {
                Ok(done) => changed += usize::from(done),
                Err(ServicesError::Full { map, room, .. }) => {
                    let (.., left_out) = failed.get_or_insert((map, room, Vec::new()));
                    left_out.push(*frontend);
                }
                Err(error) => return Err(error),
            }
        }
        match failed {
            None => Ok(changed),
            Some((map, room, left_out)) => Err(ServicesError::Full {
                map,
                room,
                left_out,
            }),
        }
    }

    /// Makes the services exactly these.
    ///
    /// # Errors
    /// As for [`Services::apply`].
    pub fn sync(&mut self, services: &BTreeMap<Frontend, Targets>) -> Result<usize, ServicesError> {
        let gone = self
            .known
            .keys()
            .filter(|frontend| !services.contains_key(frontend))
            .map(|frontend| (*frontend, None));
        let there = services
            .iter()
            .map(|(frontend, targets)| (*frontend, Some(targets.clone())));
        let wanted: Vec<_> = gone.chain(there).collect();
        let changed = self.apply(&wanted)?;
        // Marks that a killed process left.
        let stray: Vec<Address> = self
            .marked
            .iter()
            .filter(|address| !self.has(**address))
            .copied()
            .collect();
        for address in stray {
            self.unmark(address)?;
        }
        Ok(changed)
    }

    /// Every frontend and where it leads.
    pub fn iter(&self) -> impl Iterator<Item = (&Frontend, Targets)> {
        self.known.iter().map(|(frontend, known)| {
            let targets = Targets {
                backends: known.members.iter().map(|(target, _)| *target).collect(),
                affinity_seconds: known.service.affinity,
                silent: known.service.flags & Service::SILENT != 0,
            };
            (frontend, targets)
        })
    }

    fn set(&mut self, frontend: &Frontend, targets: &Targets) -> Result<bool, ServicesError> {
        let mut backends = targets.backends.clone();
        backends.sort_unstable();
        backends.dedup();
        let before = self.known.get(frontend).cloned();
        if before
            .as_ref()
            .is_some_and(|known| known.is(targets, &backends))
        {
            return Ok(false);
        }
        self.mark(frontend.address)?;
        let number = match &before {
            Some(known) => known.service.number,
            None => self.number(),
        };
        let written = self.write(frontend, number, targets, &backends, before.as_ref());
        if let (Err(ServicesError::Full { .. }), None) = (&written, &before) {
            self.write_not_ready(frontend, number)?;
        }
        let known = written?;
        if let Some(before) = before {
            self.retire(&before, &known)?;
        }
        self.known.insert(*frontend, known);
        Ok(true)
    }

    /// Writes the new backends, the list, and the entry that makes them the frontend's.
    fn write(
        &mut self,
        frontend: &Frontend,
        number: u32,
        targets: &Targets,
        backends: &[Target],
        before: Option<&Known>,
    ) -> Result<Known, ServicesError> {
        let old: BTreeMap<Target, u32> = before
            .map(|known| known.members.iter().copied().collect())
            .unwrap_or_default();
        let new: Vec<Target> = backends
            .iter()
            .filter(|target| !old.contains_key(target))
            .copied()
            .collect();
        let count = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        let (ids, first) = self.places(new.len(), count)?;
        let given: BTreeMap<Target, u32> = new.iter().copied().zip(ids).collect();
        let members: Vec<(Target, u32)> = backends
            .iter()
            .filter_map(|target| Some((*target, *old.get(target).or(given.get(target))?)))
            .collect();
        for (target, id) in &given {
            let record = Backend {
                address: target.address,
                service: number,
                port: target.port,
                reserved: 0,
            };
            self.backends.put(id, &record)?;
        }
        let elements: Vec<(u32, u32)> = (first..).zip(members.iter().map(|(_, id)| *id)).collect();
        self.lists.put_all(&elements)?;
        let service = Service {
            frontend: *frontend,
            number,
            first,
            count,
            affinity: targets.affinity_seconds,
            flags: flags(targets),
        };
        if let Err(error) = self.put(frontend, &service) {
            for id in given.values() {
                self.backends.put(id, &Backend::default())?;
                self.resting_ids.push(*id);
            }
            self.resting_lists.push((first, count));
            return Err(error);
        }
        Ok(Known { service, members })
    }

    /// Room for so many new backends and a list of so many elements.
    fn places(&mut self, ids: usize, count: u32) -> Result<(Vec<u32>, u32), ServicesError> {
        if self.free_ids.len() < ids || !self.free_lists.has(count) {
            self.rest_over()?;
        }
        let full = |map, room| ServicesError::Full {
            map,
            room,
            left_out: Vec::new(),
        };
        if self.free_ids.len() < ids {
            return Err(full(maps::SERVICE_BACKENDS.name, self.backends.capacity()));
        }
        let Some(first) = self.free_lists.take(count) else {
            return Err(full(maps::SERVICE_LISTS.name, self.lists.capacity()));
        };
        Ok((self.free_ids.drain(..ids).collect(), first))
    }

    /// A frontend that has no room drops what is sent to it.
    fn write_not_ready(&mut self, frontend: &Frontend, number: u32) -> Result<(), ServicesError> {
        let service = Service {
            frontend: *frontend,
            number,
            flags: Service::NOT_READY,
            ..Service::default()
        };
        self.put(frontend, &service)?;
        let members = Vec::new();
        self.known.insert(*frontend, Known { service, members });
        Ok(())
    }

    /// Lets go what a frontend led to and leads to no more.
    fn retire(&mut self, before: &Known, now: &Known) -> Result<(), SysError> {
        let kept: BTreeSet<u32> = now.members.iter().map(|(_, id)| *id).collect();
        for (_, id) in before.members.iter().filter(|(_, id)| !kept.contains(id)) {
            // Flows without a handshake find out by this that their backend is no more.
            self.backends.put(id, &Backend::default())?;
            self.resting_ids.push(*id);
        }
        self.resting_lists
            .push((before.service.first, before.service.count));
        Ok(())
    }

    fn remove(&mut self, frontend: &Frontend) -> Result<bool, SysError> {
        let Some(known) = self.known.get(frontend).cloned() else {
            return Ok(false);
        };
        self.frontends.remove(frontend)?;
        let nothing = Known {
            service: Service::default(),
            members: Vec::new(),
        };
        self.retire(&known, &nothing)?;
        self.known.remove(frontend);
        if !self.has(frontend.address) {
            self.unmark(frontend.address)?;
        }
        Ok(true)
    }

    fn has(&self, address: Address) -> bool {
        self.known
            .range(Frontend::mark(address)..)
            .next()
            .is_some_and(|(frontend, _)| frontend.address == address)
    }

    /// Marks an address as a service's, before any of its frontends is there: its other ports lead nowhere.
    fn mark(&mut self, address: Address) -> Result<(), ServicesError> {
        if self.marked.contains(&address) {
            return Ok(());
        }
        let frontend = Frontend::mark(address);
        let mark = Service {
            frontend,
            ..Service::default()
        };
        self.put(&frontend, &mark)?;
        self.marked.insert(address);
        Ok(())
    }

    fn unmark(&mut self, address: Address) -> Result<(), SysError> {
        self.frontends.remove(&Frontend::mark(address))?;
        self.marked.remove(&address);
        Ok(())
    }

    fn put(&self, frontend: &Frontend, service: &Service) -> Result<(), ServicesError> {
        self.frontends.put(frontend, service).map_err(|error| {
            if error.is_full() {
                ServicesError::Full {
                    map: maps::SERVICES.name,
                    room: self.frontends.capacity(),
                    left_out: Vec::new(),
                }
            } else {
                error.into()
            }
        })
    }

    /// A number that no frontend has.
    fn number(&mut self) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            let number = self.last_number;
            if number != 0
                && self
                    .known
                    .values()
                    .all(|known| known.service.number != number)
            {
                return number;
            }
        }
    }

    /// Gives back what rested, once no program can be at it.
    fn rest_over(&mut self) -> Result<(), SysError> {
        if self.resting_ids.is_empty() && self.resting_lists.is_empty() {
            return Ok(());
        }
        self.grace.wait()?;
        self.free_ids.extend(self.resting_ids.drain(..));
        for (first, count) in self.resting_lists.drain(..) {
            self.free_lists.give(first, count);
        }
        Ok(())
    }
}

const fn target(record: &Backend) -> Target {
    Target {
        address: record.address,
        port: record.port,
    }
}
