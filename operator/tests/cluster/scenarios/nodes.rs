//! What is told of nodes.

use std::time::Duration;

use crate::scene::Scene;
use k8s_openapi::jiff::Timestamp;
use sluice_operator::core::Change;
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
