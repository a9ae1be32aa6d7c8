//! What is told of nodes.

use std::time::Duration;

use crate::scene::{Scene, condition, policy};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sluice_operator::core::{Change, Input, Notice};
use sluice_stream::{AgentStatus, Condition, MapUse, Report};
use sluice_world::NodeName;

#[test]
fn a_node_status_tells_of_its_agent() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let step = scene.commit();
    for write in &step.first {
        scene.store(write);
    }
    scene.agents.sessions = [(NodeName("n1".into()), Some(scene.revision))].into();
    scene.writes();
    let status = |scene: &mut Scene| {
        let writes = scene.slow_writes();
        let write = writes
            .into_iter()
            .find(|write| write.object.kind == "SluiceNode")?;
        match write.change {
            Change::ApplyStatus(value) => Some(value["status"].clone()),
            _ => None,
        }
    };
    let ready = status(&mut scene).unwrap();
    assert_eq!(ready["conditions"][0]["status"], "True");
    assert_eq!(ready["revision"], scene.revision.to_string());
    assert!(status(&mut scene).is_none(), "nothing new");
    scene.agents.sessions.clear();
    scene.now = scene.now.checked_add(Duration::from_mins(1)).unwrap();
    let gone = status(&mut scene).unwrap();
    assert_eq!(gone["conditions"][0]["status"], "False");
    let since: Timestamp = gone["conditions"][0]["lastTransitionTime"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(since > Timestamp::UNIX_EPOCH);
}

/// A leader with one node whose object is stored and whose agent is connected.
fn one_node() -> Scene {
    let mut scene = Scene::leader();
    scene.node("n1");
    let step = scene.commit();
    for write in &step.first {
        scene.store(write);
    }
    scene.agents.sessions = [(NodeName("n1".into()), Some(scene.revision))].into();
    scene.writes();
    scene
}

fn tell(scene: &mut Scene, status: AgentStatus) -> Vec<Notice> {
    let report = Report::Status(status);
    scene
        .cluster
        .apply(Input::Report(NodeName("n1".into()), report));
    scene.writes().1
}

fn failing(message: &str) -> AgentStatus {
    AgentStatus {
        conditions: vec![Condition {
            kind: "TablesReady".to_owned(),
            holds: false,
            reason: "Failed".to_owned(),
            message: message.to_owned(),
        }],
        ..AgentStatus::default()
    }
}

/// The conditions of the node's status that is written now.
fn conditions(scene: &mut Scene) -> Vec<Value> {
    let writes = scene.slow_writes();
    let status = writes.into_iter().find_map(|write| match write.change {
        Change::ApplyStatus(value) if write.object.kind == "SluiceNode" => Some(value),
        _ => None,
    });
    status.unwrap()["status"]["conditions"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn a_full_map_is_an_event_a_condition_and_why_a_policy_is_not_enforced() {
    let mut scene = one_node();
    scene.put(&policy("p", "a"));
    scene.commit();
    let full = "1 of the tables do not fit: table 5: map peers would need room for 9 entries";
    let notices = tell(&mut scene, failing(full));
    let [notice] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!(
        (notice.kind.as_str(), notice.name.as_str()),
        ("SluiceNode", "n1")
    );
    assert_eq!(
        (notice.reason.as_str(), notice.warning),
        ("TablesNotReady", true)
    );
    assert!(notice.note.contains("map peers"));
    assert!(
        tell(&mut scene, failing(full)).is_empty(),
        "told once, not with every report"
    );
    let told = conditions(&mut scene);
    let tables = told
        .iter()
        .find(|told| told["type"] == "TablesReady")
        .unwrap();
    assert_eq!(tables["status"], "False");

    // What the agent has not acknowledged is not enforced there, and the policy says why.
    let mut scene = one_node();
    scene.put(&policy("p", "a"));
    let report = Report::Status(failing(full));
    scene
        .cluster
        .apply(Input::Report(NodeName("n1".into()), report));
    scene.commit();
    let (writes, _) = scene.writes();
    let enforced = condition(&writes, "p", "Enforced").unwrap();
    assert_eq!(
        (&enforced["status"], &enforced["reason"]),
        (&"False".into(), &"NodesFailing".into())
    );
    let message = enforced["message"].as_str().unwrap();
    assert!(
        message.starts_with("enforced on 0 of 1 nodes; n1: "),
        "{message}"
    );
    assert!(message.contains("map peers"), "{message}");

    // There is room again: the agent acknowledges.
    let notices = tell(&mut scene, AgentStatus::default());
    assert_eq!(
        (notices[0].reason.as_str(), notices[0].warning),
        ("TablesReady", false)
    );
    scene.agents.sessions = [(NodeName("n1".into()), Some(scene.revision))].into();
    let enforced = condition(&scene.writes().0, "p", "Enforced").unwrap();
    assert_eq!(
        (&enforced["status"], &enforced["message"]),
        (&"True".into(), &"enforced on 1 of 1 nodes".into())
    );
}

#[test]
fn a_map_that_is_nearly_full_is_told_of_before_it_is() {
    let used = |used| AgentStatus {
        maps: vec![MapUse {
            name: "peers".to_owned(),
            used,
            size: 1000,
        }],
        ..AgentStatus::default()
    };
    let mut scene = one_node();
    assert!(tell(&mut scene, used(899)).is_empty());
    let pressure = |scene: &mut Scene| {
        let told = conditions(scene);
        told.into_iter()
            .find(|told| told["type"] == "MapPressure")
            .unwrap()
    };
    assert_eq!(pressure(&mut scene)["status"], "False");
    scene.now = scene.now.checked_add(Duration::from_mins(1)).unwrap();
    let notices = tell(&mut scene, used(900));
    assert_eq!(
        (notices[0].reason.as_str(), notices[0].warning),
        ("MapPressure", true)
    );
    assert!(
        notices[0].note.contains("peers holds 900 of 1000"),
        "{}",
        notices[0].note
    );
    let now = pressure(&mut scene);
    assert_eq!(now["status"], "True");
    // Since it is so, and not since the agent is connected.
    assert_eq!(now["lastTransitionTime"], scene.now.to_string());
    let notices = tell(&mut scene, used(10));
    assert_eq!(
        (notices[0].reason.as_str(), notices[0].warning),
        ("MapPressureGone", false)
    );
}

#[test]
fn a_follower_tells_nobody_of_nodes() {
    let mut scene = Scene::new();
    scene.node("n1");
    assert!(tell(&mut scene, failing("full")).is_empty());
    scene.lead();
    scene.commit();
    // Agents report again to a new leader: that is when it is told.
    assert!(scene.writes().1.is_empty());
}
