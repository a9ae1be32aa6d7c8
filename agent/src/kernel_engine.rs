//! The kernel engine of `policy eval`: a world's tables in real maps, written as for a real node, and each query a real packet judged by
//! the real program in a BPF test run.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use sluice_abi::{
    Cookie, Reason,
    event::{Event, EventEnd, EventKind, Hook},
    policy::Judgement,
    program::Verdict,
};
use sluice_datapath::{load::Sizes, net::Mac, test_run::Input};
use sluice_policy::{Engine, Index, MemTables, Settings};
use sluice_world::{
    Answer, Learned, Mode, NodeName, Query, Reason as SideReason, Side, SideVerdict, Target, World,
};

use crate::{
    AgentError,
    events::FlowReader,
    node::{Interface, Node, config},
    packet::{self, Wanted},
};

/// The endpoints that a datapath is made for at least, so that most worlds find one that is loaded already.
const ENDPOINTS: usize = 1024;

/// A world in the kernel.
pub struct KernelEngine {
    engine: Engine,
    /// Always there but while this is dropped.
    loaded: Option<Mutex<Loaded>>,
}

/// A datapath that no interface uses, with the reader of its events.
struct Loaded {
    node: Node,
    reader: FlowReader,
    endpoints: usize,
}

/// Loading and verifying the programs takes long; a datapath is used for one world after another.
static IDLE: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

impl KernelEngine {
    /// Brings a world into the kernel.
    ///
    /// # Errors
    /// The kernel or the rights do not suffice, or the world is too large for the maps.
    pub fn new(world: &World, learned: &Learned, mode: Mode) -> Result<Self, AgentError> {
        let mut index = Index::new(Settings {
            mode,
            ..Settings::default()
        });
        for item in world.items() {
            index.apply(item);
        }
        index.set_learned(learned.clone());
        let mut engine = Engine::over(index, MemTables::default(), mode);
        let delta = engine.commit();
        let mut loaded = Loaded::for_endpoints(world.pods.len())?;
        loaded.node.start_anew();
        loaded.node.end_unknown_endpoints()?;
        for (number, pod) in (2_u32..).zip(
            world
                .pods
                .values()
                .filter(|pod| !pod.external && !pod.host_network),
        ) {
            let interface = Interface {
                // Never attached to: any number tells endpoints apart.
                index: number,
                mac: Mac::local(number),
                host_mac: Mac::local(0),
                addresses: pod.addresses.clone(),
                uid: None,
            };
            loaded.node.know_interface(&pod.id, interface)?;
        }
        loaded.node.apply(&delta)?;
        loaded.node.settle()?;
        Ok(Self {
            engine,
            loaded: Some(Mutex::new(loaded)),
        })
    }

    /// Judges a query.
    ///
    /// # Errors
    /// The kernel can't run the program on the query's packet.
    pub fn answer(&self, query: &Query) -> Result<Answer, AgentError> {
        let egress = self.side(query, &query.from, true)?;
        let ingress = self.side(query, &query.to, false)?;
        let denied = [&egress, &ingress]
            .iter()
            .any(|side| side.verdict == SideVerdict::Denied);
        Ok(Answer {
            id: query.id.clone(),
            verdict: if denied {
                SideVerdict::Denied
            } else {
                SideVerdict::Allowed
            },
            egress,
            ingress,
        })
    }

    /// One end's word, from the sight of its own node.
    fn side(&self, query: &Query, subject: &Target, opener: bool) -> Result<Side, AgentError> {
        let node = match subject {
            Target::Pod(pod) => self
                .engine
                .tables()
                .endpoint(pod)
                .map_or(0, |endpoint| endpoint.node),
            _ => 0,
        };
        let event = self.run(query, node)?;
        let end = if opener {
            &event.source
        } else {
            &event.destination
        };
        if end.verdict != EventEnd::NOT_JUDGED {
            return Ok(self.engine.decode(&judgement(end), query));
        }
        if matches!(subject, Target::Pod(_)) {
            let reason = Reason::from_raw(event.reason).map_or("unknown reason", Reason::label);
            return Err(AgentError::NoEvent {
                id: query.id.clone(),
                reason: reason.to_owned(),
            });
        }
        Ok(Side {
            verdict: SideVerdict::NotEnforced,
            reason: SideReason::DefaultAllow,
            rule: None,
        })
    }

    fn run(&self, query: &Query, node: u32) -> Result<Event, AgentError> {
        let wanted = Wanted {
            macs: (Mac::local(1).0, Mac::local(0).0),
            source: query.source,
            destination: query.destination,
            protocol: query.protocol,
            port: query.port,
        };
        let frame =
            packet::frame(&wanted).ok_or_else(|| AgentError::MixedFamilies(query.id.clone()))?;
        let nothing = |reason: &str| AgentError::NoEvent {
            id: query.id.clone(),
            reason: reason.to_owned(),
        };
        let loaded = self
            .loaded
            .as_ref()
            .ok_or_else(|| nothing("the datapath is gone"))?;
        let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
        while loaded.reader.next_event().is_some() {}
        loaded.node.datapath().test_run(
            Hook::Trace,
            &frame,
            &Input {
                mark: node,
                ..Input::default()
            },
        )?;
        while let Some(event) = loaded.reader.next_event() {
            if EventKind::from_raw(event.kind) == Some(EventKind::Trace) {
                return Ok(event);
            }
        }
        Err(nothing("nothing in the ring"))
    }
}

impl Drop for KernelEngine {
    fn drop(&mut self) {
        let loaded = self
            .loaded
            .take()
            .map(|mutex| mutex.into_inner().unwrap_or_else(PoisonError::into_inner));
        IDLE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(loaded);
    }
}

impl Loaded {
    /// A datapath with room for so many endpoints: an idle one, or a new one.
    fn for_endpoints(wanted: usize) -> Result<Self, AgentError> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = idle.iter().position(|loaded| loaded.endpoints > wanted) {
            return Ok(idle.swap_remove(index));
        }
        drop(idle);
        let endpoints = (wanted + 1).next_power_of_two().max(ENDPOINTS);
        let sizes = Sizes {
            endpoints: u32::try_from(endpoints).unwrap_or(u32::MAX),
            // Nothing is tracked: traced packets leave no connection.
            connections: 1,
            event_bytes: 1 << 16,
            tables: 1 << 15,
            ..Sizes::default()
        };
        let gateways = (
            Ipv4Addr::new(169, 254, 1, 1).into(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
        );
        // Every query says from which node it is seen, so that this name, which none has, is never meant.
        let name = NodeName(String::new());
        let mut config = config(gateways.0, gateways.1, &sizes);
        config.node = u32::MAX;
        let node = Node::open(name, None, &sizes, config)?;
        node.make_ready()?;
        let reader = node.flows()?;
        Ok(Self {
            node,
            reader,
            endpoints,
        })
    }
}

/// What an event's end says, as a judgement.
fn judgement(end: &EventEnd) -> Judgement {
    Judgement {
        verdict: Verdict::from_raw(end.verdict),
        reason: Reason::from_raw(end.reason).unwrap_or(Reason::Internal),
        cookie: Cookie(end.cookie.0),
        redirect: end.redirect,
        revision: end.revision,
        log: false,
    }
}
