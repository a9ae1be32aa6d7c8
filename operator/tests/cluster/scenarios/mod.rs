//! The core without an API server: what happens goes in, what is published and written comes out.

mod endpoints;
mod nodes;
mod numbers;
mod policies;
mod services;

use crate::scene::Scene;
use sluice_operator::core::{Input, Kind, Write};
use sluice_stream::Report;
use sluice_world::PodRef;

fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn up(name: &str, addresses: &[&str]) -> Report {
    Report::EndpointUp {
        pod: pod_ref(name),
        uid: format!("uid-{name}"),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        container: "c".to_owned(),
    }
}

fn down(name: &str) -> Report {
    Report::EndpointDown {
        pod: pod_ref(name),
        uid: format!("uid-{name}"),
    }
}

fn names(writes: &[Write], kind: &str) -> Vec<String> {
    let of_kind = writes.iter().filter(|write| write.object.kind == kind);
    of_kind.map(|write| write.object.name.clone()).collect()
}

#[test]
fn nothing_is_published_before_every_list_is_complete() {
    let mut scene = Scene::listing([Kind::Pod, Kind::Node]);
    scene.lead();
    scene.node("n1");
    scene.cluster.apply(Input::Listed(Kind::Pod));
    assert!(scene.cluster.commit(scene.now).batch.is_none());
    scene.cluster.apply(Input::Listed(Kind::Node));
    assert!(scene.cluster.commit(scene.now).batch.is_some());
}

#[test]
fn a_follower_publishes_and_writes_nothing() {
    let mut scene = Scene::new();
    scene.node("n1");
    scene.pod("a", "n1", &[("app", "a")]);
    let step = scene.cluster.commit(scene.now);
    assert!(step.batch.is_none() && step.first.is_empty());
    assert!(scene.writes().0.is_empty());
}
