//! Worlds from manifests: defaults filled in, pods made, addresses assigned, contradictions refused.

use sluice_crds::manifest;
use sluice_world::{BuildError, Inputs, NodeName, PodRef, ServiceRef, World, build};

fn try_build(text: &str) -> Result<World, BuildError> {
    let (objects, problems) = manifest::read("test.yaml", text);
    assert!(problems.is_empty(), "{problems:?}");
    build(objects.into_iter().collect::<Inputs>())
}

fn world(text: &str) -> World {
    try_build(text).unwrap_or_else(|error| panic!("{error}"))
}

fn pod_ref(text: &str) -> PodRef {
    let (namespace, name) = text.split_once('/').unwrap();
    PodRef {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn addresses(world: &World, pod: &str) -> Vec<String> {
    world.pods[&pod_ref(pod)]
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn pod_names(world: &World) -> Vec<String> {
    world.pods.keys().map(ToString::to_string).collect()
}

fn node(world: &World, pod: &str) -> String {
    world.pods[&pod_ref(pod)].node.to_string()
}

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: b}}
spec:
  serviceAccountName: robot
  containers:
  - name: main
    ports:
    - {name: http, containerPort: 8080}
    - {containerPort: 53, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: given, namespace: shop}
status: {podIPs: [{ip: 10.244.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop}
status: {phase: Succeeded, podIPs: [{ip: 10.244.0.2}]}
";

#[test]
fn what_is_not_given_is_assigned_in_order_of_name() {
    let world = world(PODS);
    assert_eq!(pod_names(&world), ["shop/a", "shop/b", "shop/given"]);
    assert_eq!(
        addresses(&world, "shop/given"),
        ["10.244.0.2"],
        "a given family stays alone"
    );
    assert_eq!(
        addresses(&world, "shop/a"),
        ["10.244.0.3", "fd00:10:244::2"],
        "the given address is skipped"
    );
    assert_eq!(
        addresses(&world, "shop/b"),
        ["10.244.0.4", "fd00:10:244::3"]
    );
    assert_eq!(node(&world, "shop/a"), "lab-node");
    assert_eq!(world.nodes[&NodeName("lab-node".into())].addresses.len(), 2);
    assert_eq!(
        world.namespaces["shop"].labels["kubernetes.io/metadata.name"],
        "shop"
    );
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let mut documents: Vec<&str> = PODS.split("---").collect();
    documents.reverse();
    assert_eq!(world(PODS), world(&documents.join("---")));
}

#[test]
fn pods_carry_what_policy_can_see() {
    let world = world(PODS);
    let pod = &world.pods[&pod_ref("shop/b")];
    assert_eq!(pod.service_account, "robot");
    assert_eq!(pod.named_ports.len(), 1);
    assert_eq!(
        pod.listens.iter().copied().collect::<Vec<_>>(),
        [(6, 8080), (17, 53)]
    );
    assert_eq!(world.pods[&pod_ref("shop/a")].service_account, "default");
}

#[test]
fn workloads_become_pods() {
    let world = world(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: []}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: []}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: shop}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [], nodeSelector: {disk: ssd}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {disk: ssd}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
",
    );
    assert_eq!(
        pod_names(&world),
        ["shop/db-0", "shop/log-n2", "shop/web-0", "shop/web-1"]
    );
    assert_eq!(node(&world, "shop/log-n2"), "n2");
    assert_eq!(
        node(&world, "shop/web-1"),
        "n1",
        "pods without nodeName share the first node"
    );
    assert_eq!(world.pods[&pod_ref("shop/db-0")].labels["app"], "db");
}

#[test]
fn a_dump_with_pods_is_not_doubled() {
    let world = world(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: []}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-5f
  namespace: shop
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: '1'}]
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: []}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-5f-xyz
  namespace: shop
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5f, uid: '2'}]
",
    );
    assert_eq!(pod_names(&world), ["shop/web-5f-xyz"]);
}

#[test]
fn nodes_give_addresses_out_of_their_own_prefixes() {
    let world = world(
        "
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.0.0/24, 'fd00:10:244::/120']}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on1}, spec: {nodeName: n1, containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on2}, spec: {nodeName: n2, containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {nodeName: n2, hostNetwork: true, containers: []}}
",
    );
    assert_eq!(
        addresses(&world, "default/on1"),
        ["10.244.0.2", "fd00:10:244::2"]
    );
    assert_eq!(
        addresses(&world, "default/on2"),
        ["10.244.1.0", "fd00:10:244::100"],
        "outside n1's prefixes"
    );
    assert_eq!(
        addresses(&world, "default/host"),
        ["172.31.0.3", "fd00:172:31::3"],
        "a host-network pod is its node"
    );
    assert_eq!(
        world.nodes[&NodeName("n2".into())].addresses[0].to_string(),
        "172.31.0.3"
    );
}

#[test]
fn a_prefix_that_is_full_is_an_error() {
    let error = try_build(
        "
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.9.0.0/30]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b}}
",
    );
    assert_eq!(
        error.unwrap_err(),
        BuildError::Exhausted {
            range: "10.9.0.0/30".into(),
            holder: "Pod default/b".into()
        }
    );
}

#[test]
fn external_pods_have_outside_addresses() {
    let pod = |annotation: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: out, annotations: {{sluice.io/lab-external: '{annotation}'}}}}}}"
        )
    };
    let world = world(&pod("203.0.113.1, 2001:db8::1"));
    assert!(world.pods[&pod_ref("default/out")].external);
    assert_eq!(
        addresses(&world, "default/out"),
        ["203.0.113.1", "2001:db8::1"]
    );
    for wrong in ["nowhere", "1.1.1.1,2.2.2.2", "", "1.1.1.1,::1,::2"] {
        let error = try_build(&pod(wrong)).unwrap_err().to_string();
        assert!(
            error.contains("Pod default/out") && error.contains("lab-external"),
            "{error}"
        );
    }
}

#[test]
fn services_have_endpoints_and_cluster_ips() {
    let world = world(
        "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd00:96::9'], selector: {app: db}}
---
apiVersion: v1
kind: Service
metadata: {name: ext, namespace: shop}
spec: {clusterIP: None, selector: {}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ext-1, namespace: shop, labels: {kubernetes.io/service-name: ext}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.7]}, {addresses: [203.0.113.8], conditions: {ready: false}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default}
addressType: IPv4
endpoints: [{addresses: [172.31.0.2]}]
",
    );
    let service = |namespace: &str, name: &str| {
        &world.services[&ServiceRef {
            namespace: namespace.into(),
            name: name.into(),
        }]
    };
    assert_eq!(service("shop", "db").cluster_ips.len(), 2);
    assert_eq!(
        service("shop", "ext").selector,
        None,
        "an empty selector is none"
    );
    assert_eq!(
        service("shop", "ext").endpoints.len(),
        1,
        "what is not ready is no endpoint"
    );
    assert_eq!(service("default", "kubernetes").endpoints.len(), 1);
}

#[test]
fn contradictions_are_errors() {
    let pod =
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {podIPs: [{ip: 10.0.0.1}]}}";
    let twin = pod.replace("name: a", "name: b");
    let error = try_build(&format!("{pod}\n---\n{pod}"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("Pod default/a is there twice"), "{error}");
    let error = try_build(&format!("{pod}\n---\n{twin}"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "address 10.0.0.1 belongs to both Pod default/a and Pod default/b"
    );
    let node = "{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}}";
    let error = try_build(&format!("{pod}\n---\n{node}"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "address 10.0.0.1 belongs to both Node n and Pod default/a"
    );
    for (from, to, field) in [
        ("10.0.0.1", "10.0.0", "status.podIPs"),
        (
            "{ip: 10.0.0.1}",
            "{ip: 10.0.0.1}, {ip: 10.0.0.2}",
            "status.podIPs",
        ),
    ] {
        let error = try_build(&pod.replace(from, to)).unwrap_err().to_string();
        assert!(
            error.contains("Pod default/a") && error.contains(field),
            "{error}"
        );
    }
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}}}";
    let error = try_build(&format!("{policy}\n---\n{policy}"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("NetworkPolicy default/p is there twice"),
        "{error}"
    );
}

#[test]
fn items_rebuild_the_world() {
    let world = world(PODS);
    assert_eq!(world.items().into_iter().collect::<World>(), world);
}

#[test]
fn an_edit_moves_nobody_else() {
    let before = world(PODS);
    let earlier = "\n---\n{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: aaa}}\n---\n\
        {apiVersion: v1, kind: Pod, metadata: {name: taker, namespace: shop}, status: {podIPs: [{ip: 10.244.0.4}]}}";
    let (objects, _) = manifest::read("test.yaml", &format!("{PODS}{earlier}"));
    let after = sluice_world::build_after(objects.into_iter().collect(), &before).unwrap();
    assert_eq!(addresses(&after, "shop/a"), addresses(&before, "shop/a"));
    assert_eq!(addresses(&after, "aaa/a"), ["10.244.0.5", "fd00:10:244::3"]);
    assert_eq!(
        addresses(&after, "shop/b"),
        ["10.244.0.6", "fd00:10:244::4"],
        "its address was given to another"
    );
    assert_eq!(after.nodes, before.nodes);
}

#[test]
fn an_absurd_number_of_replicas_is_an_error() {
    let error = try_build(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2000000000
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: []}}
",
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("Deployment shop/web: spec.replicas"),
        "{error}"
    );
}
