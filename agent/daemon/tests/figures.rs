//! Measurements, printed: how long ADD and DEL take through the real plugin, and what the agent weighs. Run by hand, with
//! `--ignored --nocapture`, in a release build.

mod support;

use std::time::{Duration, Instant};

use support::{Rig, enabled};

const PODS: u32 = 200;

#[test]
#[ignore = "a measurement"]
fn adding_and_deleting() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(&[]);
    // Two kinds of pods, as replicas are: a known identity.
    for number in 0..PODS {
        let app = ["web", "db"][usize::from(number % 2 == 0)];
        rig.operator.add_pod(&format!("p{number}"), &[("app", app)]);
    }
    rig.operator.wait_acknowledged();
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for number in 0..PODS / 2 {
        let container = format!("c{number}");
        rig.sandbox(&container);
        let began = Instant::now();
        rig.add(&container, Some(&format!("shop/p{number}")));
        adds.push(began.elapsed());
    }
    for number in 0..PODS / 2 {
        let began = Instant::now();
        rig.del(&format!("c{number}"));
        dels.push(began.elapsed());
    }
    print("ADD, plugin started to ended", adds);
    print("DEL, plugin started to ended", dels);
}

#[test]
#[ignore = "a measurement"]
fn memory_with_ten_thousand_identities() {
    if !enabled() {
        return;
    }
    let rig = Rig::new(&[("client", &[("app", "client")])]);
    println!("agent with 1 pod: {} KiB", rig.resident());
    rig.operator.apply(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: numbered, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: number, operator: Exists}]}}]}]
",
    );
    let began = Instant::now();
    rig.operator.add_others(10_000);
    rig.operator.wait_acknowledged();
    println!(
        "10,000 identities: in force after {:?}; agent {} KiB; told {}",
        began.elapsed(),
        rig.resident(),
        rig.show("status")["told"]
    );
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!(
        "{what}: p50 {:?}, p99 {:?}, {} times",
        at(50),
        at(99),
        times.len()
    );
}
