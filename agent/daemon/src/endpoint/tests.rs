//! The manager over a datapath, links and an operator that are only memory.

mod ground;

use std::{collections::BTreeSet, fs::File, net::IpAddr, sync::Arc, thread, time::Duration};

use sluice_cni::{
    deletions,
    protocol::{Attachment, AttachmentId, Check, Code, Pod},
};
use sluice_datapath::net::{Mac, NetNs};
use sluice_world::{PodRef, PodUid};

use super::{LinkPlan, Manager, Patience, Site, follow_deletions, pod_of};
use crate::store;
use ground::Ground;

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
        self.tables(pod, None);
    }

    /// The operator has said which tables the pod of this name and UID has.
    fn tables(&self, pod: &str, uid: Option<&str>) {
        let pod = PodRef {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
        };
        let mut subjects = self.ground.subjects.lock().unwrap();
        subjects.insert(pod, uid.and_then(PodUid::of));
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.ground.told.lock().unwrap())
    }

    /// Neither interface, endpoint nor address is in use.
    fn assert_empty(&self) {
        self.manager().finish_all();
        assert_eq!(self.ground.fastened.lock().unwrap().len(), 0);
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
fn a_pod_never_starts_with_the_tables_of_the_one_before_it() {
    let bench = Bench::new();
    bench.tables("web-0", Some("uid-of-c1"));
    let manager = bench.manager();
    manager.add(&wanted("c1", "web-0"), &namespace()).unwrap();
    manager.del(&id("c1")).unwrap();
    // The next one of the name is here before the operator has spoken of it.
    let early = manager.add(&wanted("c2", "web-0"), &namespace());
    assert_eq!(early.unwrap_err().code, Code::TRY_AGAIN);
    bench.tables("web-0", Some("uid-of-c2"));
    manager.add(&wanted("c2", "web-0"), &namespace()).unwrap();
    // A runtime that tells no UID has whatever is there; so has one whose operator tells none.
    let mut nameless = wanted("c3", "web-0");
    nameless.pod.as_mut().unwrap().uid.clear();
    manager.add(&nameless, &namespace()).unwrap();
    bench.known("web-1");
    manager.add(&wanted("c4", "web-1"), &namespace()).unwrap();
}

#[test]
fn what_takes_its_time_is_done_after_the_answer() {
    let bench = Bench::new();
    bench.known("web");
    let manager = bench.manager();
    manager.add(&wanted("c1", "web"), &namespace()).unwrap();
    let fastened = || bench.ground.fastened.lock().unwrap().len();
    assert_eq!(fastened(), 0);
    manager.finish_all();
    assert_eq!(fastened(), 1);
    manager.del(&id("c1")).unwrap();
    assert_eq!(bench.ground.endpoints.lock().unwrap().len(), 0);
    assert_eq!(bench.ground.links.lock().unwrap().len(), 1, "still there");
    // The same key again does not wait for its turn.
    manager.add(&wanted("c1", "web"), &namespace()).unwrap();
    assert_eq!(bench.ground.links.lock().unwrap().len(), 1, "made anew");
    assert_eq!(fastened(), 0);
    // What fails is not forgotten.
    *bench.ground.failing.lock().unwrap() = Some("fasten");
    manager.finish_all();
    assert_eq!(fastened(), 0);
    *bench.ground.failing.lock().unwrap() = None;
    manager.finish_all();
    assert_eq!(fastened(), 1);
    // An interface that went with its namespace leaves nothing to do.
    manager.del(&id("c1")).unwrap();
    manager.add(&wanted("c2", "web"), &namespace()).unwrap();
    bench.ground.links.lock().unwrap().clear();
    *bench.ground.failing.lock().unwrap() = Some("fasten");
    manager.finish_all();
    *bench.ground.failing.lock().unwrap() = None;
    manager.del(&id("c2")).unwrap();
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
            .insert(pod_of(&id("c1"), wanted("c1", "late").pod.as_ref()), None);
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
