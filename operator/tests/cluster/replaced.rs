//! Pods that follow others of the same name, and pods whose agent is away.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use sluice_operator::core::{Change, Input, Step, Write};
use sluice_policy::Endpoint;
use sluice_stream::{Report, Revision};
use sluice_world::{NodeName, PodRef, PodUid};

use crate::scene::{Scene, pod, policy};

fn web() -> PodRef {
    PodRef {
        namespace: "default".to_owned(),
        name: "web-0".to_owned(),
    }
}

/// The pod `web-0` of a label and UID.
fn web_of(app: &str, uid: &str) -> Value {
    let mut object = pod("web-0", "n1", &[("app", app)]);
    object["metadata"]["uid"] = json!(uid);
    object
}

/// What a step says of `web-0`, last.
fn said(step: &Step) -> Option<Endpoint> {
    let delta = &step.batch.as_ref()?.delta;
    let mut own = delta.endpoints.iter().rev();
    own.find(|(id, _)| *id == web())?.1
}

fn scene() -> Scene {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.put(&policy("p", "a"));
    scene.commit();
    scene
}

#[test]
fn agents_are_told_which_pod_of_a_name_is_meant() {
    let mut scene = scene();
    scene.apply_pod(&web_of("a", "one"));
    let first = said(&scene.commit()).unwrap();
    assert_eq!(first.uid, PodUid::of("one"));
    // Replaced by one that looks the same, unseen or seen between.
    for (uid, gone) in [("two", false), ("three", true)] {
        if gone {
            scene.cluster.apply(Input::Pod(web(), None));
        }
        scene.apply_pod(&web_of("a", uid));
        let next = said(&scene.commit()).expect(uid);
        assert_eq!(next.uid, PodUid::of(uid));
        assert_eq!((next.identity, next.node), (first.identity, first.node));
        let (writes, _) = scene.writes();
        assert_eq!(spec(&writes)["podUID"], uid);
        assert_eq!(spec(&writes)["identity"], first.identity.0);
    }
    // Replaced by one of other labels.
    scene.apply_pod(&web_of("b", "four"));
    let other = said(&scene.commit()).unwrap();
    assert_eq!(other.uid, PodUid::of("four"));
    assert_ne!(other.identity, first.identity);
    // A pod that only changes stays the same pod.
    scene.apply_pod(&web_of("a", "four"));
    assert_eq!(said(&scene.commit()).unwrap().uid, PodUid::of("four"));
    // And nothing is said where nothing changed.
    scene.apply_pod(&web_of("a", "four"));
    assert_eq!(said(&scene.commit()), None);
}

#[test]
fn the_endpoints_of_an_identity_are_counted_over_replacements() {
    let mut scene = scene();
    scene.apply_pod(&web_of("a", "one"));
    let step = scene.commit();
    for write in step
        .first
        .iter()
        .filter(|write| write.object.kind == "Identity")
    {
        scene.store(write);
    }
    let count = |scene: &mut Scene| {
        let identity = scene.identity_of("web-0");
        let writes = scene.slow_writes();
        let own = writes.iter().find(|write| {
            write.object.kind == "Identity" && write.object.name == identity.to_string()
        });
        own.map(|write| match &write.change {
            Change::ApplyStatus(value) => value["status"]["endpoints"].clone(),
            other => panic!("{other:?}"),
        })
    };
    let one = count(&mut scene);
    assert!(one.is_some(), "one is told");
    for (uid, gone) in [("two", false), ("three", true)] {
        if gone {
            scene.cluster.apply(Input::Pod(web(), None));
        }
        scene.apply_pod(&web_of("a", uid));
        scene.commit();
        let now = count(&mut scene);
        assert!(now.is_none() || now == one, "{uid}: {now:?} after {one:?}");
    }
}

#[test]
fn a_static_pod_goes_by_the_uid_that_its_kubelet_knows() {
    let mut scene = scene();
    let mut object = web_of("a", "of-the-image");
    object["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "of-the-file" });
    scene.apply_pod(&object);
    assert_eq!(
        said(&scene.commit()).unwrap().uid,
        PodUid::of("of-the-file")
    );
    let report = Report::EndpointUp {
        pod: web(),
        uid: "of-the-file".to_owned(),
        addresses: vec!["10.244.0.7".parse().unwrap()],
        container: "c".to_owned(),
    };
    scene
        .cluster
        .apply(Input::Report(NodeName("n1".to_owned()), report));
    scene.commit();
    assert_eq!(scene.addresses(), ["10.244.0.7"]);
    let (writes, _) = scene.writes();
    // The API server collects by its own object's UID.
    assert_eq!(spec(&writes)["podUID"], "of-the-image");
}

#[test]
fn an_endpoint_whose_agent_is_away_says_so_and_comes_back() {
    let mut scene = scene();
    let node = NodeName("n1".to_owned());
    let is_there = |scene: &mut Scene| {
        let revision = Revision {
            epoch: 1,
            number: 1,
        };
        scene.agents.sessions.insert(node.clone(), Some(revision));
    };
    is_there(&mut scene);
    scene.apply_pod(&web_of("a", "one"));
    scene.commit();
    let report = Report::EndpointUp {
        pod: web(),
        uid: "one".to_owned(),
        addresses: vec!["10.244.0.7".parse().unwrap()],
        container: "c".to_owned(),
    };
    scene.cluster.apply(Input::Report(node.clone(), report));
    scene.commit();
    assert_eq!(spec(&scene.writes().0)["state"], "ready");
    // Away for a moment: an agent that restarts.
    scene.agents.sessions.clear();
    let after = |scene: &mut Scene, seconds: i64| {
        scene.now += SignedDuration::from_secs(seconds);
        scene.slow_writes();
        scene.writes().0
    };
    assert!(after(&mut scene, 1).is_empty());
    assert!(after(&mut scene, 20).is_empty());
    is_there(&mut scene);
    assert!(after(&mut scene, 20).is_empty());
    // Away for good.
    scene.agents.sessions.clear();
    assert!(after(&mut scene, 1).is_empty());
    let writes = after(&mut scene, 31);
    assert_eq!(spec(&writes)["state"], "disconnected");
    assert_eq!(spec(&writes)["addresses"], json!(["10.244.0.7"]));
    assert!(after(&mut scene, 60).is_empty(), "told once");
    // The next leader takes over addresses of pods of whose agent nothing is heard.
    let mut next = Scene::new();
    next.node("n1");
    next.apply_pod(&web_of("a", "one"));
    for write in writes
        .iter()
        .filter(|write| write.object.kind == "SluiceEndpoint")
    {
        next.store(write);
    }
    next.lead();
    next.commit();
    assert_eq!(next.addresses(), ["10.244.0.7"]);
    // Back.
    is_there(&mut scene);
    assert_eq!(spec(&after(&mut scene, 1))["state"], "ready");
    // The node itself goes, and its agent with it.
    scene.agents.sessions.clear();
    scene.cluster.apply(Input::Node(node, None));
    scene.commit();
    after(&mut scene, 1);
    assert_eq!(spec(&after(&mut scene, 31))["state"], "disconnected");
}

/// The stored endpoint of `web-0` that is written.
fn spec(writes: &[Write]) -> Value {
    let own = writes
        .iter()
        .find(|write| write.object.kind == "SluiceEndpoint" && write.object.name == "web-0");
    match &own.expect("an endpoint is written").change {
        Change::Apply(value) => value["spec"].clone(),
        other => panic!("{other:?}"),
    }
}
