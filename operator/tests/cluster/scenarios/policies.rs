//! Which policies are valid and in force, and what is told of them.

use crate::scene::{Scene, condition, outcome_of, policy, policy_object};
use serde_json::{Value, json};
use sluice_operator::core::{Change, Input};
use sluice_stream::Revision;
use sluice_world::NodeName;

#[test]
fn a_policy_that_was_never_valid_is_not_in_force_and_says_so() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.put(&policy("good", "a"));
    let mut bad = policy("bad", "a");
    bad["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"] = json!("70000");
    scene.put(&bad);
    scene.commit();
    assert_eq!(scene.policies_in_force(), ["good"]);
    let (writes, notices) = scene.writes();
    let valid = condition(&writes, "bad", "Valid").unwrap();
    assert_eq!(valid["status"], "False");
    let message = valid["message"].as_str().unwrap();
    assert!(
        message.contains("spec.ingress[0].toPorts[0].ports[0].port"),
        "{message}"
    );
    assert!(message.contains("nothing of it is in force"), "{message}");
    assert_eq!(notices.len(), 1);
    assert!(notices[0].warning && notices[0].name == "bad");
    assert_eq!(
        condition(&writes, "good", "Valid").unwrap()["status"],
        "True"
    );
}

#[test]
fn an_unknown_field_makes_a_policy_invalid() {
    let mut object = policy("p", "a");
    object["spec"]["ingresss"] = json!([]);
    let mut scene = Scene::leader();
    scene.put(&object);
    scene.commit();
    let (writes, _) = scene.writes();
    let message = condition(&writes, "p", "Valid").unwrap()["message"].to_string();
    assert!(message.contains("spec.ingresss"), "{message}");
}

/// The same policy for every way of storing what was valid last.
fn invalid_twin(object: &Value) -> Value {
    let mut invalid = object.clone();
    invalid["metadata"]["generation"] = json!(2);
    invalid["spec"]["endpointSelektor"] = json!({});
    invalid
}

#[test]
fn an_update_that_is_not_valid_leaves_the_last_valid_one_in_force() {
    for kind in ["SluiceNetworkPolicy", "CiliumNetworkPolicy"] {
        let mut scene = Scene::leader();
        scene.node("n1");
        scene.pod("a", "n1", &[("app", "a")]);
        let valid = policy_object(kind, "p", "a");
        scene.put(&valid);
        scene.commit();
        assert_eq!(scene.policies_in_force(), ["p"]);
        let (writes, _) = scene.writes();

        let mut invalid = invalid_twin(&valid);
        scene.put(&invalid);
        scene.commit();
        assert_eq!(scene.policies_in_force(), ["p"], "{kind}");
        let (later, notices) = scene.writes();
        assert!(
            notices[0]
                .note
                .contains("the last valid version stays in force"),
            "{kind}"
        );
        if kind == "SluiceNetworkPolicy" {
            let valid = condition(&later, "p", "Valid").unwrap();
            assert_eq!(valid["status"], "False");
            assert_eq!(valid["observedGeneration"], 2);
        }

        // All operators were down when the update came, and one starts.
        let mut next = Scene::new();
        next.node("n1");
        next.pod("a", "n1", &[("app", "a")]);
        for write in &writes {
            match &write.change {
                Change::ApplyStatus(value) if write.object.name == "p" => {
                    invalid["status"] = value["status"].clone();
                }
                Change::Apply(_) if write.object.kind == "ConfigMap" => next.store(write),
                _ => {}
            }
        }
        next.put(&invalid);
        next.lead();
        next.commit();
        assert_eq!(next.policies_in_force(), ["p"], "{kind} after a restart");

        // And is not revived once it is deleted and made anew.
        let mut again = invalid.clone();
        again["metadata"]["uid"] = json!("another");
        again.as_object_mut().unwrap().remove("status");
        next.remove(&again);
        next.put(&again);
        next.commit();
        assert!(next.policies_in_force().is_empty(), "{kind} made anew");
    }
}

#[test]
fn what_was_valid_last_may_come_after_the_policy() {
    let valid = policy_object("CiliumNetworkPolicy", "p", "a");
    let mut first = Scene::leader();
    first.put(&valid);
    first.commit();
    let (writes, _) = first.writes();
    let mut scene = Scene::leader();
    scene.put(&invalid_twin(&valid));
    scene.commit();
    assert!(scene.policies_in_force().is_empty());
    let stored = writes
        .iter()
        .find(|write| write.object.kind == "ConfigMap")
        .unwrap();
    scene.store(stored);
    scene.commit();
    assert_eq!(scene.policies_in_force(), ["p"]);
    scene.remove(&valid);
    scene.commit();
    let (writes, _) = scene.writes();
    let gone = writes
        .iter()
        .find(|write| write.object.kind == "ConfigMap")
        .unwrap();
    assert_eq!(
        (&gone.object, &gone.change),
        (&stored.object, &Change::Delete)
    );
}

#[test]
fn a_policy_is_enforced_once_every_agent_has_it() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.node("n2");
    scene.node("fresh");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.put(&policy("p", "a"));
    scene.commit();
    let revision = scene.revision;
    let before = Revision {
        number: revision.number - 1,
        ..revision
    };
    let cases = [
        ([Some(before), None], "False", "enforced on 0 of 2 nodes"),
        ([Some(revision), None], "False", "enforced on 1 of 2 nodes"),
        (
            [Some(revision), Some(revision)],
            "True",
            "enforced on 2 of 2 nodes",
        ),
    ];
    for (acked, status, message) in cases {
        let sessions = ["n1", "n2"].into_iter().zip(acked);
        scene.agents.sessions = sessions
            .map(|(name, acked)| (NodeName(name.to_owned()), acked))
            .collect();
        let (writes, _) = scene.writes();
        let enforced = condition(&writes, "p", "Enforced").unwrap();
        assert_eq!(enforced["status"], status);
        assert_eq!(enforced["message"], message);
    }
    assert!(
        condition(&scene.writes().0, "p", "Enforced").is_none(),
        "nothing new to tell"
    );

    // An agent that is gone still has its pods: it counts, with what it had.
    scene.agents.sessions.remove(&NodeName("n2".into()));
    let mut changed = policy("p", "b");
    changed["metadata"]["generation"] = json!(2);
    scene.put(&changed);
    scene.commit();
    let (writes, _) = scene.writes();
    let enforced = condition(&writes, "p", "Enforced").unwrap();
    assert_eq!(enforced["message"], "enforced on 0 of 2 nodes");
    assert_eq!(enforced["observedGeneration"], 2);
}

#[test]
fn a_new_leader_lets_statuses_stand_while_agents_follow() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let mut object = policy("p", "a");
    scene.put(&object);
    scene.commit();
    scene.agents.sessions = [(NodeName("n1".into()), Some(scene.revision))].into();
    let (writes, _) = scene.writes();
    object["status"] = outcome_of(&writes, "p").unwrap()["status"].clone();

    let mut next = Scene::new();
    next.node("n1");
    next.put(&object);
    next.lead();
    next.commit();
    next.agents.sessions = [(NodeName("n1".into()), None)].into();
    assert!(
        outcome_of(&next.writes().0, "p").is_none(),
        "it is not un-enforced for a moment"
    );
    next.agents.sessions = [(NodeName("n1".into()), Some(next.revision))].into();
    assert!(
        outcome_of(&next.writes().0, "p").is_none(),
        "and nothing is written that stands there"
    );
}

#[test]
fn warnings_of_the_compiler_are_in_the_condition() {
    let mut scene = Scene::leader();
    let mut object = policy("p", "a");
    object["spec"]["ingress"] = json!([{ "authentication": { "mode": "required" } }]);
    scene.put(&object);
    scene.commit();
    let (writes, _) = scene.writes();
    let valid = condition(&writes, "p", "Valid").unwrap();
    assert_eq!(
        (&valid["status"], &valid["reason"]),
        (&json!("True"), &json!("ValidWithWarnings"))
    );
    assert!(
        valid["message"]
            .as_str()
            .unwrap()
            .contains("authentication")
    );
}

#[test]
fn agents_learn_whether_addresses_matter() {
    let mut scene = Scene::leader();
    assert!(
        !scene
            .commit()
            .batch
            .unwrap()
            .settings
            .unwrap()
            .addresses_matter
    );
    let blocks = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "b", "namespace": "default", "uid": "u", "generation": 1 },
        "spec": { "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }] }] },
    });
    scene.put(&blocks);
    assert!(
        scene
            .commit()
            .batch
            .unwrap()
            .settings
            .unwrap()
            .addresses_matter
    );
    scene.remove(&blocks);
    assert!(
        !scene
            .commit()
            .batch
            .unwrap()
            .settings
            .unwrap()
            .addresses_matter
    );
}

#[test]
fn a_kind_that_is_no_longer_installed_has_no_policies() {
    let mut scene = Scene::leader();
    let object = policy_object("CiliumNetworkPolicy", "p", "a");
    scene.put(&object);
    scene.commit();
    scene.remove(&object);
    scene.commit();
    assert!(scene.policies_in_force().is_empty());
}

/// Pods with a label whose value is each one's own.
fn singular_pods(scene: &mut Scene, count: usize) {
    for number in 0..count {
        let name = format!("web-{number}");
        let labels = [("app", "web"), ("pod-name", name.as_str())];
        scene.pod(&name, "n1", &labels);
    }
}

#[test]
fn a_policy_that_multiplies_identities_says_so() {
    let mut scene = Scene::leader();
    scene.node("n1");
    singular_pods(&mut scene, 120);
    scene.put(&policy("by-app", "web"));
    scene.commit();
    scene.slow_writes();
    assert!(scene.writes().1.is_empty(), "one identity for all");
    let mut costly = policy("by-pod", "web");
    costly["spec"]["endpointSelector"] = json!({ "matchLabels": { "pod-name": "web-0" } });
    scene.put(&costly);
    scene.commit();
    scene.slow_writes();
    let (writes, notices) = scene.writes();
    let [notice] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!(
        (notice.name.as_str(), notice.reason.as_str()),
        ("by-pod", "IdentitiesMultiplied")
    );
    let told = condition(&writes, "by-pod", "IdentitiesMultiplied").unwrap();
    assert_eq!(told["status"], "True");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("`pod-name`"), "{message}");
    assert!(
        message.contains("makes 120 identities of what would be 1 without it"),
        "{message}"
    );
    assert!(condition(&writes, "by-app", "IdentitiesMultiplied").is_none());
    scene.slow_writes();
    assert!(scene.writes().1.is_empty(), "told once");

    // Fewer, but not by half: it stays told. By more than half: it is not any more.
    let remove = |scene: &mut Scene, which: std::ops::Range<usize>| {
        for number in which {
            let id = super::pod_ref(&format!("web-{number}"));
            scene.cluster.apply(Input::Pod(id, None));
        }
        scene.commit();
        scene.slow_writes();
        condition(&scene.writes().0, "by-pod", "IdentitiesMultiplied")
    };
    assert!(remove(&mut scene, 60..120).is_some());
    assert!(remove(&mut scene, 10..60).is_none());
}

#[test]
fn a_policy_without_a_status_says_so_in_an_event() {
    let mut scene = Scene::leader();
    scene.node("n1");
    singular_pods(&mut scene, 120);
    scene.put(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "np", "namespace": "default", "uid": "uid-np", "generation": 1 },
        "spec": { "podSelector": { "matchExpressions": [{ "key": "pod-name", "operator": "Exists" }] }, "policyTypes": ["Ingress"] },
    }));
    scene.commit();
    scene.slow_writes();
    let (_, notices) = scene.writes();
    assert_eq!(
        (notices[0].kind.as_str(), notices[0].reason.as_str()),
        ("NetworkPolicy", "IdentitiesMultiplied")
    );
}
