//! The manager over a datapath, links and an operator that are only memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sluice_agent::Interface;
use sluice_cni::{
    deletions,
    protocol::{Attachment, AttachmentId, Check, Code, Pod},
};
use sluice_datapath::net::{Mac, NetError, NetNs};
use sluice_world::PodRef;

use super::{
    Datapath, LinkPlan, Links, Manager, Patience, Record, Reports, Site, follow_deletions, pod_of,
};
use crate::store;

/// The node as memory. It outlives managers, as the kernel does.
#[derive(Default)]
struct Ground {
    site: Mutex<Option<Site>>,
    subjects: Mutex<BTreeSet<PodRef>>,
    endpoints: Mutex<BTreeMap<PodRef, Interface>>,
    links: Mutex<BTreeMap<String, (u32, LinkPlan)>>,
    connected: Mutex<BTreeSet<String>>,
    told: Mutex<Vec<String>>,
    next: AtomicU32,
    /// What fails from now on.
    failing: Mutex<Option<&'static str>>,
    /// The operator says what addresses are.
    echoes: Mutex<bool>,
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

    fn wait_for_subject(&self, pod: &PodRef, until: Instant) -> bool {
        loop {
            if self.subjects.lock().unwrap().contains(pod) {
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

    fn is_in_force(&self, pod: &PodRef, index: u32) -> bool {
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

struct Bench {
    ground: Arc<Ground>,
    folder: tempfile::TempDir,
    manager: Option<Arc<Manager>>,
}

impl Bench {
    fn new() -> Self {
        let ground = Arc::new(Ground::default());
        *ground.echoes.lock().unwrap() = true;
        *ground.site.lock().unwrap() = Some(Site {
            pod_cidrs: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            addresses: vec!["192.0.2.1".parse().unwrap()],
            mtu: 1450,
            addresses_matter: false,
        });
        let mut bench = Self {
            ground,
            folder: tempfile::tempdir().unwrap(),
            manager: None,
        };
        bench.restart();
        bench
    }

    /// As after a kill: what was in memory is gone, the rest is there.
    fn restart(&mut self) -> super::Restored {
        self.manager = None;
        let store = store::Endpoints::open(&self.folder.path().join("endpoints.redb")).unwrap();
        let ground = &self.ground;
        let patience = Patience {
            subject: Duration::from_millis(50),
            addresses: Duration::from_millis(50),
        };
        let manager = Manager::new(
            Arc::clone(ground) as _,
            Arc::clone(ground) as _,
            Arc::clone(ground) as _,
            store,
            patience,
        );
        let restored = manager.restore().unwrap();
        self.manager = Some(Arc::new(manager));
        restored
    }

    fn manager(&self) -> &Arc<Manager> {
        self.manager.as_ref().unwrap()
    }

    fn known(&self, pod: &str) {
        self.ground.subjects.lock().unwrap().insert(PodRef {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
        });
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.ground.told.lock().unwrap())
    }

    /// Neither interface, endpoint nor address is in use.
    fn assert_empty(&self) {
        assert_eq!(self.ground.links.lock().unwrap().len(), 0);
        assert_eq!(self.ground.endpoints.lock().unwrap().len(), 0);
        assert_eq!(self.manager().records(), []);
        assert_eq!(self.manager().address_counts().0, 0);
    }
}

fn id(container: &str) -> AttachmentId {
    AttachmentId {
        container: container.to_owned(),
        interface: "eth0".to_owned(),
    }
}

fn wanted(container: &str, pod: &str) -> Attachment {
    Attachment {
        id: id(container),
        sandbox: "/run/netns/x".to_owned(),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
            uid: format!("uid-of-{container}"),
        }),
    }
}

fn namespace() -> NetNs {
    NetNs::current().unwrap()
}

#[test]
fn an_interface_is_given_once_and_again_as_it_was() {
    let bench = Bench::new();
    bench.known("web");
    let first = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
    let addresses: Vec<String> = first
        .addresses
        .iter()
        .map(|given| format!("{} via {}", given.address, given.gateway))
        .collect();
    assert_eq!(
        addresses,
        ["10.0.0.1 via 169.254.1.1", "fd00::1 via fe80::1"]
    );
    assert_eq!(first.mtu, 1450);
    let again = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(bench.told(), ["up shop/web uid-of-c1"]);
    assert_eq!(bench.ground.links.lock().unwrap().len(), 1);
    bench.manager().del(&id("c1")).unwrap();
    bench.manager().del(&id("c1")).unwrap();
    assert_eq!(bench.told(), ["down shop/web uid-of-c1"]);
    bench.assert_empty();
}

#[test]
fn a_pod_waits_for_its_tables_and_gives_up_in_time() {
    let bench = Bench::new();
    let error = bench
        .manager()
        .add(&wanted("c1", "late"), &namespace())
        .unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    bench.assert_empty();
    let ground = Arc::clone(&bench.ground);
    let operator = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        ground
            .subjects
            .lock()
            .unwrap()
            .insert(pod_of(&id("c1"), wanted("c1", "late").pod.as_ref()));
    });
    bench
        .manager()
        .add(&wanted("c1", "late"), &namespace())
        .unwrap();
    operator.join().unwrap();
}

#[test]
fn where_addresses_matter_the_operator_must_have_heard_of_them() {
    let bench = Bench::new();
    bench.known("web");
    bench
        .ground
        .site
        .lock()
        .unwrap()
        .as_mut()
        .unwrap()
        .addresses_matter = true;
    *bench.ground.echoes.lock().unwrap() = false;
    let error = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    bench.assert_empty();
    *bench.ground.echoes.lock().unwrap() = true;
    bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
}

#[test]
fn an_agent_that_has_heard_nothing_starts_no_pod() {
    let bench = Bench::new();
    bench.known("web");
    *bench.ground.site.lock().unwrap() = None;
    let error = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    assert_eq!(
        bench.manager().status().unwrap_err().code,
        Code::NOT_AVAILABLE
    );
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    let bench = Bench::new();
    bench.known("web");
    *bench.ground.failing.lock().unwrap() = Some("attach");
    let error = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap_err();
    assert_eq!(error.code, Code::FAILED);
    bench.assert_empty();
    *bench.ground.failing.lock().unwrap() = None;
    // Its addresses rest; the next pod gets others.
    let added = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
    assert_eq!(added.addresses[0].address.to_string(), "10.0.0.2");
}

#[test]
fn a_restart_finds_every_interface_and_ends_those_that_are_gone() {
    let mut bench = Bench::new();
    for (container, pod) in [("c1", "a"), ("c2", "b")] {
        bench.known(pod);
        bench
            .manager()
            .add(&wanted(container, pod), &namespace())
            .unwrap();
    }
    let gone = bench.manager().records()[1].host_name.clone();
    bench.ground.links.lock().unwrap().remove(&gone);
    // What a killed process made and nobody wrote down can't be; what another agent's store had can.
    let orphan = LinkPlan {
        host_name: "slu0123456789ab".to_owned(),
        host_mac: Mac::local(1),
        pod_name: "eth0".to_owned(),
        mac: Mac::local(2),
        addresses: vec![],
        mtu: 1500,
    };
    bench
        .ground
        .links
        .lock()
        .unwrap()
        .insert(orphan.host_name.clone(), (99, orphan));
    let before = bench.manager().records()[0].clone();
    let restored = bench.restart();
    assert_eq!((restored.ended, restored.removed), (1, 1));
    let [(pod, interface)] = restored.alive.as_slice() else {
        panic!("{restored:?}");
    };
    assert_eq!(pod.to_string(), "shop/a");
    assert_eq!(interface.addresses, before.addresses);
    assert_eq!(bench.manager().records(), [before]);
    // The first one's result is the same after the restart, and its address is not given again; nor is the other's, which rests.
    bench.known("c");
    let again = bench
        .manager()
        .add(&wanted("c1", "a"), &namespace())
        .unwrap();
    assert_eq!(again.addresses[0].address.to_string(), "10.0.0.1");
    let new = bench
        .manager()
        .add(&wanted("c3", "c"), &namespace())
        .unwrap();
    assert_eq!(new.addresses[0].address.to_string(), "10.0.0.3");
}

#[test]
fn a_new_sandbox_of_the_same_pod_takes_over_from_the_old() {
    let bench = Bench::new();
    bench.known("web");
    bench
        .manager()
        .add(&wanted("old", "web"), &namespace())
        .unwrap();
    let new = bench
        .manager()
        .add(&wanted("new", "web"), &namespace())
        .unwrap();
    bench.told();
    bench.manager().del(&id("old")).unwrap();
    assert_eq!(bench.told(), ["down shop/web uid-of-old"]);
    let endpoints = bench.ground.endpoints.lock().unwrap();
    let (_, interface) = endpoints
        .iter()
        .next()
        .expect("the new one's endpoint stays");
    assert_eq!(interface.addresses[0], new.addresses[0].address);
}

#[test]
fn another_namespace_under_the_same_key_gets_a_new_interface() {
    let bench = Bench::new();
    bench.known("web");
    let first = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
    let other = NetNs::adopt("other", File::open("/proc/self/ns/uts").unwrap().into());
    let second = bench.manager().add(&wanted("c1", "web"), &other).unwrap();
    assert_ne!(first.addresses, second.addresses);
    assert_eq!(bench.ground.links.lock().unwrap().len(), 1);
}

#[test]
fn gc_ends_what_no_container_has() {
    let bench = Bench::new();
    for (container, pod) in [("c1", "a"), ("c2", "b"), ("c3", "c")] {
        bench.known(pod);
        bench
            .manager()
            .add(&wanted(container, pod), &namespace())
            .unwrap();
    }
    assert_eq!(
        bench.manager().gc(&[id("c2"), id("unheard-of")]).unwrap(),
        2
    );
    let left: Vec<String> = bench
        .manager()
        .records()
        .into_iter()
        .map(|record| record.id.container)
        .collect();
    assert_eq!(left, ["c2"]);
}

#[test]
fn check_names_what_is_different() {
    let bench = Bench::new();
    bench.known("web");
    let added = bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
    let check = |addresses: Vec<IpAddr>| {
        let wanted = Check {
            id: id("c1"),
            addresses,
        };
        bench.manager().check(&wanted, &namespace())
    };
    let given: Vec<IpAddr> = added.addresses.iter().map(|given| given.address).collect();
    check(given.clone()).unwrap();
    assert_eq!(check(vec![given[0]]).unwrap_err().code, Code::DIFFERENT);
    bench.ground.endpoints.lock().unwrap().clear();
    let error = check(given).unwrap_err();
    assert!(error.details.contains("kernel's maps"), "{error}");
    let unknown = Check {
        id: id("c9"),
        addresses: vec![],
    };
    let error = bench.manager().check(&unknown, &namespace()).unwrap_err();
    assert_eq!(error.code, Code::UNKNOWN_CONTAINER);
}

#[test]
fn an_interface_without_a_pod_is_made_and_has_no_tables() {
    let bench = Bench::new();
    let nobody = Attachment {
        pod: None,
        ..wanted("c1", "")
    };
    bench.manager().add(&nobody, &namespace()).unwrap();
    assert_eq!(
        bench.manager().records()[0].pod_ref().to_string(),
        "cni/c1.eth0"
    );
}

#[test]
fn deletions_that_waited_are_done_once() {
    let bench = Bench::new();
    bench.known("web");
    bench
        .manager()
        .add(&wanted("c1", "web"), &namespace())
        .unwrap();
    let folder = bench.folder.path().join("deletions");
    deletions::queue(&folder, &id("c1")).unwrap();
    deletions::queue(&folder, &id("never-there")).unwrap();
    follow_deletions(bench.manager(), &folder);
    bench.assert_empty();
    assert_eq!(deletions::waiting(&folder).unwrap(), []);
}

#[test]
fn many_at_once_get_different_addresses() {
    let bench = Bench::new();
    for number in 0..32 {
        bench.known(&format!("p{number}"));
    }
    let manager = bench.manager();
    thread::scope(|scope| {
        for number in 0..32 {
            scope.spawn(move || {
                let wanted = wanted(&format!("c{number}"), &format!("p{number}"));
                // Twice at once: the second waits and is given the same.
                thread::scope(|scope| {
                    let twin = scope.spawn(|| manager.add(&wanted, &namespace()).unwrap());
                    let own = manager.add(&wanted, &namespace()).unwrap();
                    assert_eq!(own, twin.join().unwrap());
                });
            });
        }
    });
    let addresses: BTreeSet<IpAddr> = manager
        .records()
        .iter()
        .flat_map(|record| record.addresses.clone())
        .collect();
    assert_eq!(addresses.len(), 64);
}

#[test]
fn pods_wait_where_no_address_is_free() {
    let bench = Bench::new();
    let cidr = vec!["10.0.0.0/30".parse().unwrap()];
    bench
        .ground
        .site
        .lock()
        .unwrap()
        .as_mut()
        .unwrap()
        .pod_cidrs = cidr;
    for pod in ["a", "b", "c"] {
        bench.known(pod);
    }
    bench
        .manager()
        .add(&wanted("c1", "a"), &namespace())
        .unwrap();
    bench
        .manager()
        .add(&wanted("c2", "b"), &namespace())
        .unwrap();
    let error = bench
        .manager()
        .add(&wanted("c3", "c"), &namespace())
        .unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    assert_eq!(
        bench.manager().status().unwrap_err().code,
        Code::NOT_AVAILABLE
    );
}
