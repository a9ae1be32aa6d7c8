//! What is found between objects of several files that are each valid.

use sluice_crds::{
    manifest::{Placed, Problem, read_placed, relate},
    validate::Severity,
};

const GROUP: &str = "apiVersion: sluice.io/v1\nkind: SluiceCIDRGroup\nmetadata: {name: banks}\nspec: {externalCIDRs: [203.0.113.0/24]}\n";
const SHOP: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

fn related(files: &[&str]) -> (Vec<Placed>, Vec<Problem>) {
    let mut objects = Vec::new();
    for (number, text) in files.iter().enumerate() {
        let (read, problems) = read_placed(&format!("{number}.yaml"), text);
        let errors: Vec<_> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        objects.extend(read);
    }
    let problems = relate(&mut objects);
    (objects, problems)
}

fn lines(files: &[&str]) -> Vec<String> {
    related(files).1.iter().map(ToString::to_string).collect()
}

#[test]
fn a_name_given_twice_is_an_error_and_neither_object_is_used() {
    let (objects, problems) = related(&[GROUP, &format!("{SHOP}---\n{GROUP}")]);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(
        problems[0].to_string(),
        "1.yaml:7: error: SluiceCIDRGroup banks: metadata.name: this name is given twice: an object of the same kind and name is at 0.yaml:1"
    );
    assert_eq!(objects.len(), 1, "the namespace alone");
}

#[test]
fn kinds_and_namespaces_tell_names_apart() {
    let pod = |namespace: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: {namespace}}}\n")
    };
    let cilium = GROUP
        .replace("sluice.io/v1", "cilium.io/v2")
        .replace("Sluice", "Cilium");
    assert!(lines(&[&pod("a"), &pod("b"), GROUP, &cilium]).is_empty());
    assert_eq!(
        lines(&[
            &pod("default"),
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
        ])
        .len(),
        1
    );
}

#[test]
fn a_reference_to_no_cidr_group_is_warned_of_at_its_line() {
    let policy = "\
apiVersion: sluice.io/v1
kind: SluiceClusterwideNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {}
  egress:
  - toCIDRSet:
    - cidrGroupRef: banks
specs:
- endpointSelector: {}
  ingressDeny:
  - fromEntities: [world]
  - fromCIDRSet:
    - cidr: 10.0.0.0/8
    - cidrGroupRef: bonks
";
    let all = lines(&[policy]);
    assert_eq!(all.len(), 2, "{all:#?}");
    assert!(
        all[0].starts_with("0.yaml:8: warning: SluiceClusterwideNetworkPolicy out: spec.egress[0].toCIDRSet[0].cidrGroupRef: there is no CIDR group \"banks\""),
        "{all:#?}"
    );
    let with_group = lines(&[policy, GROUP]);
    assert_eq!(with_group.len(), 1, "{with_group:#?}");
    assert!(
        with_group[0].starts_with("0.yaml:15: warning: SluiceClusterwideNetworkPolicy out: specs[0].ingressDeny[1].fromCIDRSet[1].cidrGroupRef: "),
        "{with_group:#?}"
    );
}

#[test]
fn a_namespace_that_is_not_there_is_warned_of_where_the_files_describe_a_cluster() {
    let cilium = "\
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: a, namespace: shop}
spec:
  endpointSelector: {}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: a}
    - matchLabels: {io.kubernetes.pod.namespace: shpo}
";
    let kubernetes = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec:
  podSelector: {}
  egress:
  - to:
    - namespaceSelector:
        matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [shop, shpo]}]
";
    let tier = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shpo}}}
  ingress:
  - action: Deny
    from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}]
";
    let lived_in = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shpo}\n";
    for (policy, line, path) in [
        (cilium, 9, "spec.ingress[0].fromEndpoints[1]"),
        (kubernetes, 8, "spec.egress[0].to[0]"),
        (tier, 7, "spec.subject"),
    ] {
        assert!(lines(&[policy]).is_empty(), "no cluster is described");
        let (_, problems) = related(&[policy, SHOP]);
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!(problems[0].severity, Severity::Warning);
        assert_eq!((problems[0].line, problems[0].path.as_str()), (line, path));
        assert!(problems[0].message.contains("\"shpo\""), "{}", problems[0]);
        assert!(lines(&[policy, SHOP, lived_in]).is_empty());
    }
}

#[test]
fn equal_priorities_in_one_tier_are_warned_of() {
    let policy = |name: &str, tier: &str, priority: u32| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  tier: {tier}\n  priority: {priority}\n  subject: {{namespaces: {{}}}}\n"
        )
    };
    let others = [policy("b", "Admin", 2), policy("c", "Baseline", 1)];
    assert!(lines(&[&policy("a", "Admin", 1), &others[0], &others[1]]).is_empty());
    let all = lines(&[&policy("a", "Admin", 1), &policy("b", "Admin", 1)]);
    assert_eq!(
        all,
        [
            "1.yaml:6: warning: ClusterNetworkPolicy b: spec.priority: ClusterNetworkPolicy a at 0.yaml:1 has the same tier and priority: they are ordered by kind and name"
        ]
    );
}
