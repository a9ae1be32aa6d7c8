//! Which interface is whose: each request of the runtime from its first step to its last, whatever was begun before. How a step is done
//! may not enter.
//!
//! A record is written before anything is made, so that whatever a killed process leaves is found by the next one.

mod finish;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use ipnet::IpNet;
use sluice_agent::Interface;
use sluice_cni::protocol::{Added, Attachment, AttachmentId, Check, Code, Failure, Pod};
use sluice_datapath::net::{Mac, NetError, NetNs};
use sluice_world::{PodRef, PodUid};
use tracing::{info, warn};

use super::{
    Ipam, LinkPlan, Links, REST_SECONDS, Record,
    later::{Later, Task, What},
    pod_of,
};
use crate::store::{self, StoreError};

/// What an interface needs to know of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Prefixes that pods' addresses are taken from.
    pub pod_cidrs: Vec<IpNet>,
    /// The node's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Largest packet of a pod in bytes.
    pub mtu: u32,
    /// Some policy tells pods apart by address: a new pod must wait until the operator has said what its addresses are.
    pub addresses_matter: bool,
}

/// The node's datapath: the engine, or a test's memory.
pub trait Datapath: Send + Sync {
    /// What the operator says of this node; `None` until it has said anything.
    fn site(&self) -> Option<Site>;

    /// Waits until the tables of the pod of this name and UID are in the kernel; `false` if they are not in time. Those of another pod of
    /// the name, which this one follows, are not its.
    fn wait_for_subject(&self, pod: &PodRef, uid: Option<PodUid>, until: Instant) -> bool;

    /// Makes an interface the pod's endpoint, in place of the one before it. From then on nothing passes it unjudged;
    /// [`Datapath::fasten`] is to follow.
    ///
    /// # Errors
    /// The kernel refuses, or the engine has ended.
    fn attach(&self, pod: &PodRef, interface: Interface) -> Result<(), String>;

    /// Fastens the programs at an interface, so that nobody takes them off by chance. It takes its time.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    fn fasten(&self, index: u32) -> Result<(), String>;

    /// Forgets what fastened the programs at an interface that is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    fn release(&self, index: u32) -> Result<(), String>;

    /// Ends the pod's endpoint if its interface is the one with this address, and not one that came later: nothing passes it any more,
    /// though it is there still.
    ///
    /// # Errors
    /// The kernel refuses, or the engine has ended.
    fn detach(&self, pod: &PodRef, mac: Mac) -> Result<(), String>;

    /// Waits until the operator has said what these addresses are; `false` if it has not in time.
    fn wait_for_addresses(&self, addresses: &[IpAddr], until: Instant) -> bool;

    /// Whether the pod's endpoint is in the kernel's maps, at this interface.
    fn is_in_force(&self, pod: &PodRef, uid: Option<PodUid>, index: u32) -> bool;
}

/// Who hears of interfaces: the operator.
pub trait Reports: Send + Sync {
    /// A pod has its interface.
    fn up(&self, record: &Record);
    /// A pod's interface is gone.
    fn down(&self, record: &Record);
}

/// How long an ADD waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the pod's tables.
    pub subject: Duration,
    /// For the operator's word on its addresses.
    pub addresses: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            subject: Duration::from_secs(10),
            addresses: Duration::from_secs(10),
        }
    }
}

/// See the module.
pub struct Manager {
    datapath: Arc<dyn Datapath>,
    links: Arc<dyn Links>,
    reports: Arc<dyn Reports>,
    store: store::Endpoints,
    patience: Patience,
    state: Mutex<State>,
    turn_ended: Condvar,
    later: Later,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<AttachmentId, Record>,
    /// Which interface is the pod's endpoint: the last one made.
    current: BTreeMap<PodRef, AttachmentId>,
    ipam: Ipam,
    /// Interfaces that a request is at.
    busy: BTreeSet<AttachmentId>,
}

/// What [`Manager::restore`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Interfaces that are there, with their endpoints.
    pub alive: Vec<(PodRef, Interface)>,
    /// Endpoints whose interface is gone.
    pub ended: usize,
    /// Interfaces that nobody knows.
    pub removed: usize,
}

impl Manager {
    /// A manager of what the store knows. Call [`Manager::restore`] before anything else.
    #[must_use]
    pub fn new(
        datapath: Arc<dyn Datapath>,
        links: Arc<dyn Links>,
        reports: Arc<dyn Reports>,
        store: store::Endpoints,
        patience: Patience,
    ) -> Self {
        Self {
            datapath,
            links,
            reports,
            store,
            patience,
            state: Mutex::default(),
            turn_ended: Condvar::new(),
            later: Later::default(),
        }
    }

    /// Finds the interfaces that an earlier process made. Those that are gone end, and those that nobody knows are removed.
    ///
    /// # Errors
    /// The store or the kernel can't be read.
    pub fn restore(&self) -> Result<Restored, Failure> {
        let now = now();
        let records = self.store.records().map_err(storing)?;
        let resting = self.store.resting().map_err(storing)?;
        let mut state = self.state();
        for (address, since) in resting {
            state.ipam.release(address, since);
        }
        let mut found = Restored::default();
        let mut known = BTreeSet::new();
        for record in records {
            known.insert(record.host_name.clone());
            let Some(index) = self.links.find(&record.host_name).map_err(linking)? else {
                self.forget(&mut state, &record, now)?;
                found.ended += 1;
                continue;
            };
            for address in &record.addresses {
                state.ipam.occupy(*address);
            }
            found
                .alive
                .push((record.pod_ref(), interface(&record, index)));
            state.take(record);
        }
        drop(state);
        for name in self.links.list().map_err(linking)? {
            if !known.contains(&name) {
                self.links.remove(&name).map_err(linking)?;
                found.removed += 1;
            }
        }
        Ok(found)
    }

    /// ADD: an interface for a pod, or the one it has.
    ///
    /// # Errors
    /// See [`Failure`]; nothing is left of what was begun.
    pub fn add(&self, wanted: &Attachment, namespace: &NetNs) -> Result<Added, Failure> {
        let _request = self.later.request();
        let _turn = self.turn(&wanted.id);
        if let Some(record) = self.record(&wanted.id) {
            if self.is_whole(&record, namespace)? {
                return Ok(record.added());
            }
            self.end(&record)?;
        }
        self.remove_before(&wanted.id)?;
        let site = self.datapath.site().ok_or_else(|| {
            Failure::new(
                Code::TRY_AGAIN,
                "this node's agent is not in sync",
                "it has not heard from an operator yet",
            )
        })?;
        self.wait_for_subject(wanted)?;
        let record = self.reserve(wanted, namespace, &site)?;
        match self.make(&record, namespace, &site) {
            Ok(()) => Ok(record.added()),
            Err(failure) => {
                // What went wrong first is what matters; what is left the next DEL or start removes.
                if let Err(error) = self.end(&record) {
                    warn!(container = %record.id.container, %error, "clearing up after a failed ADD");
                }
                Err(failure)
            }
        }
    }

    /// DEL: the end of an interface. One that is not there is no error. Nothing passes the interface any more when it returns, though the
    /// kernel may have it for a while.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn del(&self, id: &AttachmentId) -> Result<(), Failure> {
        let _request = self.later.request();
        let _turn = self.turn(id);
        match self.record(id) {
            Some(record) => self.end(&record),
            None => Ok(()),
        }
    }

    /// CHECK: whether an interface is as it was made.
    ///
    /// # Errors
    /// It is not, or is not known.
    pub fn check(&self, wanted: &Check, namespace: &NetNs) -> Result<(), Failure> {
        let _turn = self.turn(&wanted.id);
        let record = self.record(&wanted.id).ok_or_else(|| {
            Failure::new(
                Code::UNKNOWN_CONTAINER,
                format!("container {} has no interface here", wanted.id.container),
                "it was deleted, or never added",
            )
        })?;
        let mut found = self
            .links
            .differences(&plan(&record), namespace)
            .map_err(linking)?;
        let mut given = wanted.addresses.clone();
        let mut known = record.addresses.clone();
        given.sort();
        known.sort();
        if given != known {
            found.push(format!(
                "prevResult has {given:?}, and it was given {known:?}"
            ));
        }
        let index = self.links.find(&record.host_name).map_err(linking)?;
        let pod = record.pod_ref();
        let enforced =
            index.is_some_and(|index| self.datapath.is_in_force(&pod, record.pod_uid(), index));
        if record.pod.is_some() && !enforced {
            found.push("its endpoint is not in the kernel's maps".to_owned());
        }
        if found.is_empty() {
            Ok(())
        } else {
            Err(Failure::new(
                Code::DIFFERENT,
                format!("the interface of {pod} is not as it was made"),
                found.join("; "),
            ))
        }
    }

    /// GC: ends all interfaces but these. Returns how many.
    ///
    /// # Errors
    /// The kernel refuses; the others are ended nonetheless.
    pub fn gc(&self, valid: &[AttachmentId]) -> Result<usize, Failure> {
        let valid: BTreeSet<&AttachmentId> = valid.iter().collect();
        let known: Vec<AttachmentId> = self.state().records.keys().cloned().collect();
        let mut ended = 0;
        let mut failed = None;
        for id in known.iter().filter(|id| !valid.contains(id)) {
            match self.del(id) {
                Ok(()) => ended += 1,
                Err(failure) => failed = Some(failure),
            }
        }
        info!(ended, "interfaces that no container has any more");
        failed.map_or(Ok(ended), Err)
    }

    /// STATUS: whether an interface could be made now.
    ///
    /// # Errors
    /// It could not.
    pub fn status(&self) -> Result<(), Failure> {
        let unavailable = |details: String| {
            Failure::new(Code::NOT_AVAILABLE, "no interface can be made now", details)
        };
        let site = self.datapath.site().ok_or_else(|| {
            unavailable("the agent has not heard from an operator yet".to_owned())
        })?;
        let mut state = self.state();
        state.ipam.set_cidrs(&site.pod_cidrs);
        state
            .ipam
            .check(now())
            .map_err(|error| unavailable(error.to_string()))
    }

    /// All interfaces, by key.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.state().records.values().cloned().collect()
    }

    /// Addresses in use, and addresses that rest.
    #[must_use]
    pub fn address_counts(&self) -> (usize, usize) {
        self.state().ipam.counts()
    }

    /// Brings what was written down to the disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }

    fn wait_for_subject(&self, wanted: &Attachment) -> Result<(), Failure> {
        let Some(Pod { uid, .. }) = &wanted.pod else {
            return Ok(());
        };
        let pod = pod_of(&wanted.id, wanted.pod.as_ref());
        let until = Instant::now() + self.patience.subject;
        if self.datapath.wait_for_subject(&pod, PodUid::of(uid), until) {
            return Ok(());
        }
        Err(Failure::new(
            Code::TRY_AGAIN,
            format!("no policy tables for {pod} yet"),
            format!(
                "the operator has said nothing of the pod, or only of one before it of this name, for {} s: it does not run, or is behind",
                self.patience.subject.as_secs()
            ),
        ))
    }

    /// Takes addresses and writes the record down.
    fn reserve(
        &self,
        wanted: &Attachment,
        namespace: &NetNs,
        site: &Site,
    ) -> Result<Record, Failure> {
        let now = now();
        let inode = namespace.inode().map_err(linking)?;
        let mut state = self.state();
        state.ipam.set_cidrs(&site.pod_cidrs);
        let addresses = state.ipam.allocate(now).map_err(|error| {
            Failure::new(Code::TRY_AGAIN, "no address is free", error.to_string())
        })?;
        let record = Record::new(wanted, inode, addresses, site.mtu, now);
        if let Err(error) = self.store.put(&record) {
            for address in &record.addresses {
                state.ipam.release(*address, now);
            }
            return Err(storing(error));
        }
        state.take(record.clone());
        Ok(record)
    }

    fn make(&self, record: &Record, namespace: &NetNs, site: &Site) -> Result<(), Failure> {
        let failed = |details: String| {
            Failure::new(
                Code::FAILED,
                format!("making the interface of {}", record.pod_ref()),
                details,
            )
        };
        let plan = plan(record);
        let index = self.links.make(&plan, namespace).map_err(linking)?;
        let pod = record.pod_ref();
        self.datapath
            .attach(&pod, interface(record, index))
            .map_err(failed)?;
        self.later.put(
            &record.id,
            Task {
                host_name: record.host_name.clone(),
                index,
                what: What::Fasten,
            },
        );
        self.links
            .connect(&plan, index, namespace, &site.addresses)
            .map_err(linking)?;
        self.reports.up(record);
        if site.addresses_matter && record.pod.is_some() {
            let until = Instant::now() + self.patience.addresses;
            if !self.datapath.wait_for_addresses(&record.addresses, until) {
                return Err(Failure::new(
                    Code::TRY_AGAIN,
                    format!("the operator has not taken in the addresses of {pod}"),
                    "a policy names address blocks that may hold them, so the pod's identity is not known before",
                ));
            }
        }
        Ok(())
    }

    /// Whether an interface asked for again is there as it was made, in the same namespace.
    fn is_whole(&self, record: &Record, namespace: &NetNs) -> Result<bool, Failure> {
        if namespace.inode().map_err(linking)? != record.namespace {
            return Ok(false);
        }
        let found = self
            .links
            .differences(&plan(record), namespace)
            .map_err(linking)?;
        Ok(found.is_empty())
    }

    /// Ends an interface: from here on nothing passes it, and it is removed later.
    fn end(&self, record: &Record) -> Result<(), Failure> {
        let index = self.links.find(&record.host_name).map_err(linking)?;
        let pod = record.pod_ref();
        self.datapath
            .detach(&pod, record.mac())
            .map_err(|details| {
                Failure::new(
                    Code::FAILED,
                    format!("ending the endpoint of {pod}"),
                    details,
                )
            })?;
        if let Some(index) = index {
            self.later.put(
                &record.id,
                Task {
                    host_name: record.host_name.clone(),
                    index,
                    what: What::Remove,
                },
            );
        }
        let mut state = self.state();
        self.forget(&mut state, record, now())?;
        let lives_on = state
            .current
            .get(&pod)
            .and_then(|id| state.records.get(id))
            .is_some_and(|other| other.uid() == record.uid());
        drop(state);
        if !lives_on {
            self.reports.down(record);
        }
        Ok(())
    }

    fn forget(&self, state: &mut State, record: &Record, now: u64) -> Result<(), Failure> {
        self.store
            .end(record, now, now.saturating_sub(REST_SECONDS))
            .map_err(storing)?;
        for address in &record.addresses {
            state.ipam.release(*address, now);
        }
        state.records.remove(&record.id);
        state.current.retain(|_, id| *id != record.id);
        Ok(())
    }

    fn record(&self, id: &AttachmentId) -> Option<Record> {
        self.state().records.get(id).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other request is at this interface.
    fn turn(&self, id: &AttachmentId) -> Turn<'_> {
        let mut state = self.state();
        while !state.busy.insert(id.clone()) {
            state = self
                .turn_ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn {
            manager: self,
            id: id.clone(),
        }
    }
}

impl State {
    fn take(&mut self, record: Record) {
        let pod = record.pod_ref();
        let newer = self
            .current
            .get(&pod)
            .and_then(|id| self.records.get(id))
            .is_none_or(|other| other.since <= record.since);
        if newer {
            self.current.insert(pod, record.id.clone());
        }
        self.records.insert(record.id.clone(), record);
    }
}

struct Turn<'a> {
    manager: &'a Manager,
    id: AttachmentId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.manager.state().busy.remove(&self.id);
        self.manager.turn_ended.notify_all();
    }
}

/// What the kernel is asked for.
fn plan(record: &Record) -> LinkPlan {
    LinkPlan {
        host_name: record.host_name.clone(),
        host_mac: record.host_mac(),
        pod_name: record.id.interface.clone(),
        mac: record.mac(),
        addresses: record.addresses.clone(),
        mtu: record.mtu,
    }
}

fn interface(record: &Record, index: u32) -> Interface {
    Interface {
        index,
        mac: record.mac(),
        host_mac: record.host_mac(),
        addresses: record.addresses.clone(),
        uid: record.pod_uid(),
    }
}

/// Seconds since 1970: what outlives a restart of the machine.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[allow(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn storing(error: StoreError) -> Failure {
    Failure::new(Code::IO, "writing down endpoints", error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn linking(error: NetError) -> Failure {
    Failure::new(Code::FAILED, "the pod's interface", error.to_string())
}
