//! One node's datapath and what it should hold: deltas of the compiler go in, in the order that keeps every packet judged by a whole
//! state; interfaces become endpoints. What a verdict is may not enter.
//!
//! ```text
//! Delta ─▶ tables (new ids, one step each) ─▶ watermarks ─▶ prefixes, addresses ─▶ endpoints     in force
//! settle ─▶ retired entries, dropped tables, programs ─▶ grace period ─▶ ids free
//! ```

mod beyond;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, RwLock},
};

use sluice_abi::{
    config::Config,
    endpoint::Endpoint,
    ipcache::{Address, AddressInfo, PrefixKey},
    service::Frontend,
};
use sluice_datapath::{
    load::{self, Attacher, Attachment, Datapath, Instance, LoadError, Sizes},
    net::{Mac, NetNs},
    state::{
        AddressChange, Addresses, Endpoints, Excluded, Nodes, Place, Services, Settings, Targets,
    },
    writer::{Change, KernelStore, MapStore, Usage, Writer},
};
use sluice_policy::{Delta, delta};
use sluice_world::{NodeName, PodRef, PodUid};

use crate::{
    AgentError,
    book::Book,
    events::FlowReader,
    outgoing::Outgoing,
    tables::{Staged, Tables},
};

pub use beyond::{Masquerade, OverlayDevice};

/// The low bits of an identity's number: its place in its range.
const LOCAL_BITS: u32 = 0x00ff_ffff;

/// A pod's interface, as the maker of interfaces knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index of the host side, in the node's network namespace.
    pub index: u32,
    /// The pod's own Ethernet address.
    pub mac: Mac,
    /// The Ethernet address of the host side.
    pub host_mac: Mac,
    /// The pod's addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Which of the pods of its name it is, where that is known: it never gets another one's tables.
    pub uid: Option<PodUid>,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    name: NodeName,
    config: Config,
    datapath: Datapath,
    writer: Writer<KernelStore>,
    addresses: Addresses,
    endpoints: Endpoints,
    services: Services,
    excluded: Excluded,
    settings: Settings,
    others: Nodes,
    tables: Tables,
    /// What the kernel holds of an earlier process or world. It goes when the new is there.
    stale: Option<Change>,
    /// What the last delta took out, until [`Node::settle`].
    going: Outgoing,
    held_addresses: HashMap<Address, AddressInfo>,
    held_prefixes: HashMap<PrefixKey, AddressInfo>,
    subjects: BTreeMap<PodRef, delta::Endpoint>,
    interfaces: BTreeMap<PodRef, Interface>,
    /// Endpoints that have ended, whose connections are still to go; whether they have been looked for once.
    ended: BTreeMap<Place, bool>,
    /// A change of the tables failed: the next one compares all of them.
    out_of_step: bool,
    /// See [`Node::operations`].
    operations: u64,
    book: Arc<RwLock<Book>>,
}

impl Node {
    /// Loads the datapath of the node of this name. With an instance, what an earlier process left goes on judging packets until
    /// the first [`Node::apply`] has put the new in force; without one, everything ends with this value.
    ///
    /// `config` gives gateways and limits; its node number is filled in when the compiler has told it.
    ///
    /// # Errors
    /// The kernel or the rights do not suffice, or another process has the instance.
    pub fn open(
        name: NodeName,
        instance: Option<&str>,
        sizes: &Sizes,
        config: Config,
    ) -> Result<Self, AgentError> {
        let instance: Option<Instance> = instance.map(str::parse).transpose()?;
        let datapath = Datapath::open(instance.as_ref(), sizes)?;
        let writer = datapath.writer()?;
        let mut tables = Tables::default();
        let dump = writer
            .store()
            .dump()
            .map_err(sluice_datapath::writer::WriteError::from)?;
        let attributions = dump
            .attributions
            .iter()
            .map(|(key, _)| key.attribution)
            .collect();
        let programs = dump.programs.iter().map(|(id, _)| *id).collect();
        tables.reserve(
            dump.revisions.iter().map(|(id, _)| *id).collect(),
            programs,
            attributions,
        );
        let mut node = Self {
            name,
            config,
            addresses: datapath.addresses()?,
            endpoints: datapath.endpoints()?,
            services: datapath.services()?,
            excluded: datapath.excluded()?,
            settings: datapath.settings()?,
            others: datapath.nodes()?,
            writer,
            datapath,
            tables,
            stale: None,
            going: Outgoing::default(),
            held_addresses: HashMap::new(),
            held_prefixes: HashMap::new(),
            subjects: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            ended: BTreeMap::new(),
            out_of_step: false,
            operations: 0,
            book: Arc::default(),
        };
        node.start_anew();
        Ok(node)
    }

    /// Prepares for a compiler that starts from nothing: its first delta replaces all that is there now, in one step for each endpoint.
    pub fn start_anew(&mut self) {
        self.stale = Some(self.tables.forget_all());
        self.going = Outgoing::default();
        self.held_addresses.clear();
        self.held_prefixes.clear();
        self.subjects.clear();
        self.interfaces.clear();
        self.out_of_step = false;
        self.book = Arc::default();
    }

    /// Writes the settings as they are, for a node that no compiler numbers. Until settings are written everything drops.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make_ready(&self) -> Result<(), AgentError> {
        Ok(self.settings.put(&self.config)?)
    }

    /// Puts a delta in force. Call [`Node::settle`] soon after, when nobody waits for it.
    ///
    /// # Errors
    /// Something could not be written. Tables that could not change keep their last state, less the access that the delta takes away;
    /// the next delta tries them again.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), AgentError> {
        self.settle()?;
        self.note_names(delta);
        let Staged { come, go } = self.tables.stage(delta);
        self.going.hold(go);
        let written = self.write_tables(&come);
        if written.is_ok() {
            self.raise_watermarks(delta);
        }
        self.move_addresses(delta)?;
        self.move_endpoints(delta)?;
        written
    }

    /// Takes out what the last delta ended, once no packet can be at it any more: some milliseconds.
    ///
    /// # Errors
    /// The kernel refuses; the next call tries again.
    pub fn settle(&mut self) -> Result<(), AgentError> {
        let writer = &mut self.writer;
        if let Some(report) = self.going.take_out(|change| writer.apply(change))? {
            self.operations += report.operations;
        }
        let freed = self.writer.settle()?;
        self.operations += freed.operations;
        self.tables.free(&freed);
        Ok(())
    }

    /// Makes an interface the endpoint of a pod. The programs are attached first and drop its traffic until the pod's tables are there.
    ///
    /// # Errors
    /// There is no such interface, or all endpoint slots are taken.
    pub fn add_interface(
        &mut self,
        pod: &PodRef,
        interface: Interface,
        namespace: &NetNs,
    ) -> Result<(), AgentError> {
        self.datapath.attach_endpoint(namespace, interface.index)?;
        self.know_interface(pod, interface)
    }

    /// As [`Node::add_interface`], without attaching: for packets that are only traced.
    ///
    /// # Errors
    /// All endpoint slots are taken.
    pub fn know_interface(&mut self, pod: &PodRef, interface: Interface) -> Result<(), AgentError> {
        self.interfaces.insert(pod.clone(), interface);
        self.put_endpoint(pod)
    }

    /// Attaches endpoint programs from other threads; `None` for a node without instance.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attacher(&self) -> Result<Option<Attacher>, AgentError> {
        Ok(self.datapath.attacher()?)
    }

    /// Attaches the program for what comes from outside the cluster.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn add_outside(&mut self, index: u32, namespace: &NetNs) -> Result<(), AgentError> {
        Ok(self.datapath.attach_outside(namespace, index)?)
    }

    /// Changes services; `None` for a frontend that goes. Pods' packets to a frontend go to one of its backends, and are judged there. A
    /// service whose backends are not this node's to use is `silent`. Returns how many frontends changed.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses: what could not change is named, the rest is changed.
    pub fn apply_services(
        &mut self,
        changes: &[(Frontend, Option<Targets>)],
    ) -> Result<usize, AgentError> {
        Ok(self.services.apply(changes)?)
    }

    /// Makes the services exactly these: for the first word of a new source of them.
    ///
    /// # Errors
    /// As for [`Node::apply_services`].
    pub fn sync_services(
        &mut self,
        services: &BTreeMap<Frontend, Targets>,
    ) -> Result<usize, AgentError> {
        Ok(self.services.sync(services)?)
    }

    /// Ends a pod's endpoint. What still comes from its interface drops.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_interface(&mut self, pod: &PodRef) -> Result<(), AgentError> {
        if let Some(interface) = self.interfaces.remove(pod) {
            self.end_endpoint(interface.index)?;
            self.datapath.detach(interface.index)?;
        }
        Ok(())
    }

    /// Ends a pod's endpoint and forgets its interface, whose programs stay attached: what comes from it, or is for it, drops for as long
    /// as it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn close_interface(&mut self, pod: &PodRef) -> Result<(), AgentError> {
        if let Some(interface) = self.interfaces.remove(pod) {
            self.end_endpoint(interface.index)?;
        }
        Ok(())
    }

    /// Ends endpoints that an earlier process or world had and that are no interface's now. Call it when all interfaces are known and
    /// before the first delta: addresses may have moved between them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn end_unknown_endpoints(&mut self) -> Result<(), AgentError> {
        let known: BTreeSet<u32> = self
            .interfaces
            .values()
            .map(|interface| interface.index)
            .collect();
        let all = self.endpoints.iter().map(|(_, record)| record.ifindex);
        let unknown: Vec<u32> = all.filter(|index| !known.contains(index)).collect();
        for index in unknown {
            self.end_endpoint(index)?;
        }
        Ok(())
    }

    /// Runs this process's programs at the links that an earlier one left. Call it when the first delta is in force.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_over(&mut self) -> Result<Vec<Attachment>, AgentError> {
        let attached = self.datapath.take_over()?;
        self.datapath.remove_old_layouts()?;
        Ok(attached)
    }

    /// Who holds which address, for flow records.
    pub fn name_addresses(&self, holders: HashMap<IpAddr, String>) {
        self.with_book(|book| book.holders = holders);
    }

    /// What the author of a policy wants flows to say of its rules: `log.value`. Call it for each policy that is new or changed.
    pub fn name_log_texts(&self, policy: &sluice_crds::parsed::Policy) {
        self.with_book(|book| book.note_log_texts(policy));
    }

    /// A reader of flows. There may be one at a time; it may be used on another thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn flows(&self) -> Result<FlowReader, AgentError> {
        Ok(FlowReader::new(
            self.datapath.events()?,
            Arc::clone(&self.book),
        ))
    }

    /// The compiler's word on a pod.
    #[must_use]
    pub fn subject(&self, pod: &PodRef) -> Option<&delta::Endpoint> {
        self.subjects.get(pod)
    }

    /// Elements of policy tables and the address table written or removed until now.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// How much of the tables is in use.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.writer.usage()
    }

    /// Removes connections that are over, and those of endpoints that have ended, so that their memory comes back. Call it every few
    /// seconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect_connections(&mut self) -> Result<usize, AgentError> {
        let ended = self.ended.keys().copied().collect();
        let live = self.datapath.connections()?.collect(&ended)?.live;
        // A packet that was under way when its endpoint ended may have left an entry behind this look.
        self.ended
            .retain(|_, looked| !std::mem::replace(looked, true));
        Ok(live)
    }

    /// The datapath, for counters and test runs.
    #[must_use]
    pub const fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// Ends the datapath: links, programs and maps.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn remove(self) -> Result<(), AgentError> {
        Ok(self.datapath.remove()?)
    }

    fn write_tables(&mut self, come: &Change) -> Result<(), AgentError> {
        let written = if self.out_of_step {
            self.writer.sync(&self.tables.snapshot())
        } else {
            self.writer.apply(come)
        };
        self.out_of_step = written.is_err();
        self.operations += written?.operations;
        Ok(())
    }

    fn raise_watermarks(&self, delta: &Delta) {
        for (range, identity) in &delta.watermarks {
            let local = identity.0 & LOCAL_BITS;
            self.settings.raise_watermark(*range, local);
        }
    }

    fn move_addresses(&mut self, delta: &Delta) -> Result<(), AgentError> {
        self.configure(delta)?;
        let mut change = AddressChange::default();
        for (prefix, info) in &delta.prefixes {
            if let Some(info) = info {
                change.set_prefixes.push((*prefix, *info));
                self.held_prefixes.insert(*prefix, *info);
            } else {
                change.remove_prefixes.push(*prefix);
                self.held_prefixes.remove(prefix);
            }
        }
        for (address, info) in &delta.addresses {
            if let Some(info) = info {
                change.set.push((*address, *info));
                self.held_addresses.insert(*address, *info);
            } else {
                change.remove.push(*address);
                self.held_addresses.remove(address);
            }
        }
        self.operations += if self.stale.is_some() {
            self.addresses
                .sync(&self.held_addresses, &self.held_prefixes)?
        } else {
            self.addresses.apply(&change)?
        };
        Ok(())
    }

    /// Writes the settings once the compiler has numbered this node.
    fn configure(&mut self, delta: &Delta) -> Result<(), AgentError> {
        let own = delta.nodes.iter().find(|(name, _)| *name == self.name);
        if let Some((_, number)) = own {
            self.config.node = *number;
            self.settings.put(&self.config)?;
        }
        Ok(())
    }

    fn move_endpoints(&mut self, delta: &Delta) -> Result<(), AgentError> {
        for (pod, subject) in &delta.endpoints {
            if let Some(subject) = subject {
                self.subjects.insert(pod.clone(), *subject);
                self.put_endpoint(pod)?;
            } else {
                self.subjects.remove(pod);
                if let Some(interface) = self.interfaces.get(pod) {
                    self.end_endpoint(interface.index)?;
                }
            }
        }
        self.refresh_endpoints(delta)?;
        if let Some(stale) = self.stale.take() {
            // Tables of before go last: until now endpoints may have used them.
            self.going.hold_too(stale);
        }
        Ok(())
    }

    /// Writes the endpoints of whom only an address changed its identity: policies by address block tell a pod's two addresses apart.
    fn refresh_endpoints(&mut self, delta: &Delta) -> Result<(), AgentError> {
        // Most changes are of policy alone, and there may be many interfaces.
        if delta.addresses.is_empty() {
            return Ok(());
        }
        let changed: HashSet<Address> = delta
            .addresses
            .iter()
            .map(|(address, _)| *address)
            .collect();
        let named: HashSet<&PodRef> = delta.endpoints.iter().map(|(pod, _)| pod).collect();
        let touched: Vec<PodRef> = self
            .interfaces
            .iter()
            .filter(|(pod, _)| !named.contains(pod))
            .filter(|(_, interface)| {
                interface
                    .addresses
                    .iter()
                    .any(|address| changed.contains(&Address::from(*address)))
            })
            .map(|(pod, _)| pod.clone())
            .collect();
        touched.iter().try_for_each(|pod| self.put_endpoint(pod))
    }

    /// Ends the endpoint at an interface, if there is one. Its connections are nobody's from then on.
    fn end_endpoint(&mut self, index: u32) -> Result<(), AgentError> {
        let place = self.endpoints.place(index);
        self.endpoints.remove(index)?;
        self.ended.extend(place.map(|place| (place, false)));
        Ok(())
    }

    /// Writes a pod's endpoint if both its interface and its tables are known.
    fn put_endpoint(&mut self, pod: &PodRef) -> Result<(), AgentError> {
        let (Some(subject), Some(interface)) = (self.subjects.get(pod), self.interfaces.get(pod))
        else {
            return Ok(());
        };
        if !PodUid::may_be(subject.uid, interface.uid) {
            // Another pod of the same name is meant. What had been said of this one holds no more.
            self.end_endpoint(interface.index)?;
            return Ok(());
        }
        let (Some(egress_table), Some(ingress_table)) = (
            self.tables.table(subject.egress),
            self.tables.table(subject.ingress),
        ) else {
            return Ok(());
        };
        let mut record = Endpoint {
            identity: subject.identity,
            egress_table,
            ingress_table,
            ifindex: interface.index,
            mac: interface.mac.0,
            host_mac: interface.host_mac.0,
            ..Endpoint::default()
        };
        for address in interface
            .addresses
            .iter()
            .map(|address| Address::from(*address))
        {
            // Policies by address block may tell a pod's two addresses apart.
            let identity = self
                .held_addresses
                .get(&address)
                .map_or(subject.identity, |info| info.identity);
            if address.is_v4() {
                (record.ipv4, record.identity) = (address, identity);
                record.flags |= Endpoint::IPV4;
            } else {
                (record.ipv6, record.identity_ipv6) = (address, identity);
                record.flags |= Endpoint::IPV6;
            }
        }
        self.endpoints.put(&record)?;
        Ok(())
    }

    fn note_names(&self, delta: &Delta) {
        self.with_book(|book| book.note(delta));
    }

    fn with_book(&self, change: impl FnOnce(&mut Book)) {
        // A reader that panicked has changed nothing.
        change(
            &mut self
                .book
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
    }
}

/// The names of the instances that have anything in the kernel, also where their process was killed.
///
/// # Errors
/// The bpf file system can't be read.
pub fn instances() -> Result<Vec<String>, AgentError> {
    let listing = |source| AgentError::Io {
        action: "listing the instances of the datapath",
        source,
    };
    let instances = Instance::list().map_err(listing)?;
    Ok(instances.iter().map(ToString::to_string).collect())
}

/// Removes the datapath of an instance that no process looks after. `false` if there was none.
///
/// # Errors
/// A process still has it, or a pin can't be removed.
pub fn remove_instance(name: &str) -> Result<bool, AgentError> {
    let instance: Instance = name.parse()?;
    let there = instances()?.iter().any(|known| known == name);
    if there {
        load::remove(&instance)?;
    }
    Ok(there)
}

/// The settings of a node whose pods have these gateways.
#[must_use]
pub fn config(gateway_ipv4: IpAddr, gateway_ipv6: IpAddr, sizes: &Sizes) -> Config {
    Config {
        gateway_ipv4: Address::from(gateway_ipv4),
        gateway_ipv6: Address::from(gateway_ipv6),
        drop_event_interval: Config::DEFAULT_DROP_EVENT_INTERVAL,
        drop_event_burst: Config::DEFAULT_DROP_EVENT_BURST,
        conntrack_quota: sizes.connections,
        ..Config::default()
    }
}

/// Whether an error says that another process has the instance.
#[must_use]
pub const fn is_busy(error: &AgentError) -> bool {
    matches!(error, AgentError::Load(LoadError::InUse(_)))
}
