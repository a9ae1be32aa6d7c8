//! What agents are told of services.

use crate::scene::{Scene, service, slice};
use serde_json::json;

#[test]
fn a_service_is_told_by_address_and_port() {
    let mut scene = Scene::leader();
    scene.apply_service(&service("web", &["10.96.0.10", "fd00:96::10"], "80"));
    scene.apply_slice(&slice(
        "web",
        "web-4",
        "IPv4",
        8080,
        &[("10.244.0.5", "n1", "ready")],
    ));
    scene.apply_slice(&slice(
        "web",
        "web-6",
        "IPv6",
        8080,
        &[("fd00:10:244::5", "n1", "ready")],
    ));
    let services = scene.commit().batch.unwrap().services;
    let shown: Vec<String> = services
        .iter()
        .map(|(frontend, entry)| {
            let entry = entry.as_ref().unwrap();
            let backends: Vec<String> = entry
                .backends
                .iter()
                .map(|backend| format!("{} {}", backend.address, backend.port))
                .collect();
            format!(
                "{} {}: {}",
                frontend.address,
                frontend.port,
                backends.join(", ")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "10.96.0.10 80: 10.244.0.5 8080",
            "fd00:96::10 80: fd00:10:244::5 8080"
        ]
    );
}

#[test]
fn who_answers_for_a_service() {
    // What backends are, and who answers of "1" and "2".
    let cases: [(&str, &str, &[&str]); 6] = [
        ("ready", "ready", &["1", "2"]),
        ("ready", "unready", &["1"]),
        ("ready", "serving", &["1"]),
        ("serving", "unready", &["1"]),
        ("unready", "unready", &[]),
        ("serving", "serving", &["1", "2"]),
    ];
    for (first, second, expected) in cases {
        let mut scene = Scene::leader();
        scene.apply_service(&service("web", &["10.96.0.10"], "80"));
        let backends = [("10.244.0.1", "n1", first), ("10.244.0.2", "n1", second)];
        scene.apply_slice(&slice("web", "web-1", "IPv4", 80, &backends));
        let services = scene.commit().batch.unwrap().services;
        let entry = services[0].1.as_ref().unwrap();
        let answering: Vec<String> = entry
            .backends
            .iter()
            .map(|backend| {
                backend
                    .address
                    .to_string()
                    .trim_start_matches("10.244.0.")
                    .to_owned()
            })
            .collect();
        assert_eq!(answering, expected, "{first}, {second}");
    }
}

#[test]
fn what_a_service_says_of_itself() {
    let mut scene = Scene::leader();
    let mut object = service("web", &["10.96.0.10"], "80");
    object["spec"]["sessionAffinity"] = json!("ClientIP");
    object["spec"]["internalTrafficPolicy"] = json!("Local");
    object["spec"]["publishNotReadyAddresses"] = json!(true);
    scene.apply_service(&object);
    scene.apply_slice(&slice(
        "web",
        "web-1",
        "IPv4",
        80,
        &[("10.244.0.1", "n1", "unready")],
    ));
    let services = scene.commit().batch.unwrap().services;
    let entry = services[0].1.clone().unwrap();
    assert_eq!(entry.affinity_seconds, Some(10_800));
    assert!(entry.internal_local);
    assert_eq!(entry.backends.len(), 1, "not ready, and published");

    object["spec"]["clusterIPs"] = json!(["None"]);
    object["spec"]["clusterIP"] = json!("None");
    scene.apply_service(&object);
    let services = scene.commit().batch.unwrap().services;
    assert_eq!(
        services[0].1, None,
        "headless: nothing is translated any more"
    );
}

#[test]
fn an_address_that_passes_to_another_service_is_told_once() {
    let mut scene = Scene::leader();
    scene.apply_service(&service("old", &["10.96.0.10"], "80"));
    scene.commit();
    scene.remove_service("old");
    scene.apply_service(&service("new", &["10.96.0.10"], "80"));
    let services = scene.commit().batch.unwrap().services;
    let [(_, Some(entry))] = &services[..] else {
        panic!("{services:?}")
    };
    assert_eq!(entry.name.name, "new");
}
