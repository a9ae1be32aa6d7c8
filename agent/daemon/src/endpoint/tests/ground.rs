//! The node as memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sluice_agent::Interface;
use sluice_datapath::net::{Mac, NetError, NetNs};
use sluice_world::{PodRef, PodUid};

use super::super::{Datapath, LinkPlan, Links, Record, Reports, Site};

/// The node. It outlives managers, as the kernel does.
#[derive(Default)]
pub(super) struct Ground {
    pub(super) site: Mutex<Option<Site>>,
    pub(super) subjects: Mutex<BTreeMap<PodRef, Option<PodUid>>>,
    pub(super) endpoints: Mutex<BTreeMap<PodRef, Interface>>,
    pub(super) links: Mutex<BTreeMap<String, (u32, LinkPlan)>>,
    pub(super) connected: Mutex<BTreeSet<String>>,
    pub(super) fastened: Mutex<BTreeSet<u32>>,
    pub(super) told: Mutex<Vec<String>>,
    next: AtomicU32,
    /// What fails from now on.
    pub(super) failing: Mutex<Option<&'static str>>,
    /// The operator says what addresses are.
    pub(super) echoes: Mutex<bool>,
}

impl Ground {
    fn fails(&self, step: &str) -> bool {
        *self.failing.lock().unwrap() == Some(step)
    }
}

impl Datapath for Ground {
    fn site(&self) -> Option<Site> {
        self.site.lock().unwrap().clone()
    }

    fn wait_for_subject(&self, pod: &PodRef, uid: Option<PodUid>, until: Instant) -> bool {
        loop {
            let known = self.subjects.lock().unwrap().get(pod).copied();
            if known.is_some_and(|known| PodUid::may_be(known, uid)) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn attach(&self, pod: &PodRef, interface: Interface) -> Result<(), String> {
        if self.fails("attach") {
            return Err("no more slots".to_owned());
        }
        self.endpoints
            .lock()
            .unwrap()
            .insert(pod.clone(), interface);
        Ok(())
    }

    fn fasten(&self, index: u32) -> Result<(), String> {
        if self.fails("fasten") {
            return Err("not now".to_owned());
        }
        self.fastened.lock().unwrap().insert(index);
        Ok(())
    }

    fn release(&self, index: u32) -> Result<(), String> {
        self.fastened.lock().unwrap().remove(&index);
        Ok(())
    }

    fn detach(&self, pod: &PodRef, mac: Mac) -> Result<(), String> {
        let mut endpoints = self.endpoints.lock().unwrap();
        if endpoints
            .get(pod)
            .is_some_and(|interface| interface.mac == mac)
        {
            endpoints.remove(pod);
        }
        Ok(())
    }

    fn wait_for_addresses(&self, _: &[IpAddr], _: Instant) -> bool {
        *self.echoes.lock().unwrap()
    }

    fn is_in_force(&self, pod: &PodRef, _: Option<PodUid>, index: u32) -> bool {
        let endpoints = self.endpoints.lock().unwrap();
        endpoints
            .get(pod)
            .is_some_and(|interface| interface.index == index)
    }
}

impl Links for Ground {
    fn make(&self, plan: &LinkPlan, _: &NetNs) -> Result<u32, NetError> {
        assert!(
            self.endpoints
                .lock()
                .unwrap()
                .values()
                .all(|known| known.mac != plan.mac),
            "programs come after the interface"
        );
        let index = self.next.fetch_add(1, Ordering::Relaxed) + 10;
        let before = self
            .links
            .lock()
            .unwrap()
            .insert(plan.host_name.clone(), (index, plan.clone()));
        assert_eq!(before, None, "made twice");
        Ok(index)
    }

    fn connect(
        &self,
        plan: &LinkPlan,
        index: u32,
        _: &NetNs,
        _: &[IpAddr],
    ) -> Result<(), NetError> {
        let attached = self.endpoints.lock().unwrap();
        assert!(
            attached.values().any(|known| known.index == index),
            "nothing may flow before the programs are there"
        );
        self.connected
            .lock()
            .unwrap()
            .insert(plan.host_name.clone());
        Ok(())
    }

    fn find(&self, host_name: &str) -> Result<Option<u32>, NetError> {
        let links = self.links.lock().unwrap();
        Ok(links.get(host_name).map(|(index, _)| *index))
    }

    fn differences(&self, plan: &LinkPlan, _: &NetNs) -> Result<Vec<String>, NetError> {
        let links = self.links.lock().unwrap();
        let whole = links
            .get(&plan.host_name)
            .is_some_and(|(_, made)| made == plan)
            && self.connected.lock().unwrap().contains(&plan.host_name);
        Ok(if whole {
            vec![]
        } else {
            vec!["it is gone".to_owned()]
        })
    }

    fn remove(&self, host_name: &str) -> Result<(), NetError> {
        self.links.lock().unwrap().remove(host_name);
        self.connected.lock().unwrap().remove(host_name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, NetError> {
        Ok(self.links.lock().unwrap().keys().cloned().collect())
    }
}

impl Reports for Ground {
    fn up(&self, record: &Record) {
        let told = format!("up {} {}", record.pod_ref(), record.uid());
        self.told.lock().unwrap().push(told);
    }

    fn down(&self, record: &Record) {
        let told = format!("down {} {}", record.pod_ref(), record.uid());
        self.told.lock().unwrap().push(told);
    }
}
