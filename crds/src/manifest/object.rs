//! Which kind a document is, and what is read from it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Problem;
use super::decode::{Unknown, decode};
use super::tree::{Content, Document, Node, TextProblem};
use crate::parsed::{
    CidrGroup, CidrGroupKind, NetworkPolicy, Policy, PolicyKind, PolicyRef, TierPolicy,
};
use crate::policy::{
    AdminNetworkPolicySpec, BaselineAdminNetworkPolicySpec, ClusterNetworkPolicySpec, PolicyRule,
};
use crate::resources::{CidrGroupSpec, IdentitySpec};
use crate::validate::{self, Finding, Findings, Severity};

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Box<Namespace>),
    /// A pod.
    Pod(Box<Pod>),
    /// A deployment.
    Deployment(Box<Deployment>),
    /// A stateful set.
    StatefulSet(Box<StatefulSet>),
    /// A daemon set.
    DaemonSet(Box<DaemonSet>),
    /// A replica set.
    ReplicaSet(Box<ReplicaSet>),
    /// A service.
    Service(Box<Service>),
    /// Endpoints of a service.
    EndpointSlice(Box<EndpointSlice>),
    /// A node.
    Node(Box<KubeNode>),
    /// A service account.
    ServiceAccount(Box<ServiceAccount>),
    /// A `NetworkPolicy`.
    NetworkPolicy(NetworkPolicy),
    /// A policy of one of the four Cilium-style kinds.
    Policy(Policy),
    /// A `ClusterNetworkPolicy`, `AdminNetworkPolicy` or `BaselineAdminNetworkPolicy`.
    TierPolicy(TierPolicy),
    /// A `SluiceCIDRGroup` or `CiliumCIDRGroup`.
    CidrGroup(CidrGroup),
    /// An object of a kind that means nothing to Sluice. A warning says so.
    Unsupported(ObjectRef),
}

/// The name of an object in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: String,
    /// Its namespace; `default` where a namespaced object names none.
    pub namespace: Option<String>,
    /// Its name; empty where it has none.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// An object, and where it is written.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The object.
    pub object: Object,
    /// Its name.
    pub name: ObjectRef,
    /// The file's name as given to the reader.
    pub file: String,
    /// The text, taken apart, for the lines of fields.
    pub(super) node: Node,
}

impl Placed {
    /// The line it begins at.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.node.line
    }

    /// A problem of this object.
    pub(super) fn problem(&self, severity: Severity, path: &str, message: String) -> Problem {
        Problem {
            severity,
            file: self.file.clone(),
            line: self.node.line_of(path),
            object: Some(self.name.clone()),
            path: path.to_owned(),
            message,
        }
    }
}

/// Where objects without a namespace go, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// What an API group and kind stand for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Namespace,
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Service,
    EndpointSlice,
    Node,
    ServiceAccount,
    Policy(PolicyKind),
    CidrGroup(CidrGroupKind),
    Identity,
}

/// Every kind that is read: group, versions, kind, what it is.
const KINDS: [(&str, &[&str], &str, Kind); 21] = [
    ("", &["v1"], "Namespace", Kind::Namespace),
    ("", &["v1"], "Pod", Kind::Pod),
    ("", &["v1"], "Service", Kind::Service),
    ("", &["v1"], "Node", Kind::Node),
    ("", &["v1"], "ServiceAccount", Kind::ServiceAccount),
    ("apps", &["v1"], "Deployment", Kind::Deployment),
    ("apps", &["v1"], "StatefulSet", Kind::StatefulSet),
    ("apps", &["v1"], "DaemonSet", Kind::DaemonSet),
    ("apps", &["v1"], "ReplicaSet", Kind::ReplicaSet),
    (
        "discovery.k8s.io",
        &["v1"],
        "EndpointSlice",
        Kind::EndpointSlice,
    ),
    (
        "networking.k8s.io",
        &["v1"],
        "NetworkPolicy",
        Kind::Policy(PolicyKind::NetworkPolicy),
    ),
    (
        "sluice.io",
        &["v1"],
        "SluiceNetworkPolicy",
        Kind::Policy(PolicyKind::SluiceNetworkPolicy),
    ),
    (
        "sluice.io",
        &["v1"],
        "SluiceClusterwideNetworkPolicy",
        Kind::Policy(PolicyKind::SluiceClusterwideNetworkPolicy),
    ),
    (
        "sluice.io",
        &["v1"],
        "SluiceCIDRGroup",
        Kind::CidrGroup(CidrGroupKind::Sluice),
    ),
    ("sluice.io", &["v1"], "Identity", Kind::Identity),
    (
        "cilium.io",
        &["v2"],
        "CiliumNetworkPolicy",
        Kind::Policy(PolicyKind::CiliumNetworkPolicy),
    ),
    (
        "cilium.io",
        &["v2"],
        "CiliumClusterwideNetworkPolicy",
        Kind::Policy(PolicyKind::CiliumClusterwideNetworkPolicy),
    ),
    (
        "cilium.io",
        &["v2", "v2alpha1"],
        "CiliumCIDRGroup",
        Kind::CidrGroup(CidrGroupKind::Cilium),
    ),
    (
        "policy.networking.k8s.io",
        &["v1alpha2"],
        "ClusterNetworkPolicy",
        Kind::Policy(PolicyKind::ClusterNetworkPolicy),
    ),
    (
        "policy.networking.k8s.io",
        &["v1alpha1"],
        "AdminNetworkPolicy",
        Kind::Policy(PolicyKind::AdminNetworkPolicy),
    ),
    (
        "policy.networking.k8s.io",
        &["v1alpha1"],
        "BaselineAdminNetworkPolicy",
        Kind::Policy(PolicyKind::BaselineAdminNetworkPolicy),
    ),
];

/// Whether objects of a kind of this name are read, in whatever group.
fn is_read(kind: &str) -> bool {
    KINDS.iter().any(|(_, _, known, _)| *known == kind)
}

impl Kind {
    const fn is_namespaced(self) -> bool {
        match self {
            Self::Namespace | Self::Node | Self::CidrGroup(_) | Self::Identity => false,
            Self::Policy(kind) => kind.is_namespaced(),
            _ => true,
        }
    }

    /// Whether leaving the object out could open or close traffic unnoticed.
    const fn is_policy(self) -> bool {
        matches!(self, Self::Policy(_) | Self::CidrGroup(_))
    }
}

/// Collects the objects of one file.
pub(super) struct Reader<'a> {
    file: &'a str,
    objects: Vec<Placed>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str) -> Self {
        Self {
            file,
            objects: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Vec<Placed>, Vec<Problem>) {
        (self.objects, self.problems)
    }

    pub(super) fn document(&mut self, document: &Document) {
        let before = self.objects.len();
        self.object(&document.root, None);
        if !document.problems.is_empty() {
            self.objects.truncate(before);
            let object = text_ref(&document.root);
            for problem in &document.problems {
                self.text_problem(problem, object.clone());
            }
        }
    }

    pub(super) fn text_problem(&mut self, problem: &TextProblem, object: Option<ObjectRef>) {
        self.problems.push(Problem {
            severity: Severity::Error,
            file: self.file.to_owned(),
            line: problem.line,
            object,
            path: String::new(),
            message: problem.message.clone(),
        });
    }

    /// Reads one object, or each of a list. `inherited` is the apiVersion and kind of a typed list's items.
    fn object(&mut self, node: &Node, inherited: Option<(&str, &str)>) {
        if matches!(node.content, Content::Scalar(Value::Null)) {
            return;
        }
        if !matches!(node.content, Content::Map(_)) {
            self.error(
                node,
                None,
                "",
                "this is no Kubernetes object: a map with apiVersion and kind is expected",
            );
            return;
        }
        let api_version = node
            .text("apiVersion")
            .or(inherited.map(|(version, _)| version));
        let kind = node.text("kind").or(inherited.map(|(_, kind)| kind));
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            let field = if api_version.is_none() {
                "apiVersion"
            } else {
                "kind"
            };
            let message = format!(
                "{field} is missing, so it can't be known what this is; text before or after it may be indented wrongly"
            );
            self.error(node, None, field, &message);
            return;
        };
        match kind.strip_suffix("List") {
            Some(items) if items.is_empty() || is_read(items) => {
                self.list(node, (!items.is_empty()).then_some((api_version, items)));
            }
            _ => self.one(node, api_version, kind),
        }
    }

    /// Reads each object of a list. Nothing but its items counts, so that a misspelt `items` must not make it an empty one.
    fn list(&mut self, node: &Node, inherited: Option<(&str, &str)>) {
        if let Content::Map(fields) = &node.content {
            for (field, _) in fields {
                if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "items") {
                    let message = "unknown field: of a list only apiVersion, kind, metadata and items are read";
                    self.error(node, None, field, message);
                }
            }
        }
        match node.get("items").map(|items| &items.content) {
            Some(Content::List(items)) => {
                for item in items {
                    self.object(item, inherited);
                }
            }
            // What `kubectl get` writes of nothing.
            Some(Content::Scalar(Value::Null)) => {}
            _ => self.error(node, None, "items", "a list needs items, a list of objects"),
        }
    }

    fn one(&mut self, node: &Node, api_version: &str, kind_text: &str) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let known = KINDS.iter().find(|(known_group, _, known_kind, _)| {
            *known_group == group && *known_kind == kind_text
        });
        let Some((_, versions, _, kind)) = known else {
            self.unsupported(node, group, kind_text, api_version);
            return;
        };
        let object = object_ref(node, kind_text, kind.is_namespaced());
        if !versions.contains(&version) {
            let expected: Vec<String> = versions
                .iter()
                .map(|version| {
                    if group.is_empty() {
                        (*version).to_owned()
                    } else {
                        format!("{group}/{version}")
                    }
                })
                .collect();
            let message = format!(
                "{kind_text} is read in {}, not in {api_version}",
                expected.join(" and ")
            );
            self.error(node, Some(object), "apiVersion", &message);
            return;
        }
        if !self.metadata_is_valid(node, &object, *kind) {
            return;
        }
        let value = node.to_value();
        let (read, findings) = match kind {
            Kind::Namespace => world(value, Object::Namespace),
            Kind::Pod => world(value, Object::Pod),
            Kind::Deployment => world(value, Object::Deployment),
            Kind::StatefulSet => world(value, Object::StatefulSet),
            Kind::DaemonSet => world(value, Object::DaemonSet),
            Kind::ReplicaSet => world(value, Object::ReplicaSet),
            Kind::Service => world(value, Object::Service),
            Kind::EndpointSlice => world(value, Object::EndpointSlice),
            Kind::Node => world(value, Object::Node),
            Kind::ServiceAccount => world(value, Object::ServiceAccount),
            Kind::Policy(kind) => policy(value, *kind, &object),
            Kind::CidrGroup(kind) => cidr_group(value, *kind, &object),
            Kind::Identity => identity(value, &object),
        };
        self.note(node, &object, findings);
        if let Some(read) = read {
            self.keep(node, object, read);
        }
    }

    fn unsupported(&mut self, node: &Node, group: &str, kind: &str, api_version: &str) {
        let object = text_ref(node).unwrap_or_else(|| object_ref(node, kind, false));
        let same_kind = KINDS
            .iter()
            .find(|(_, _, known, what)| *known == kind && what.is_policy());
        // A policy under a wrong group of ours is a slip that must not leave traffic unguarded; under a stranger's group
        // it is a stranger's kind that happens to have the name.
        let is_slip = group.is_empty() || KINDS.iter().any(|(known, ..)| *known == group);
        if let Some((right_group, versions, ..)) = same_kind
            && is_slip
        {
            let message = format!(
                "{kind} belongs to {right_group}/{}, not {api_version}",
                versions[0]
            );
            self.error(node, Some(object), "apiVersion", &message);
            return;
        }
        if matches!(group, "sluice.io" | "policy.networking.k8s.io")
            || (group == "cilium.io" && kind.contains("NetworkPolicy"))
        {
            let message = format!(
                "{api_version} has no kind {kind:?} that this version knows: check its spelling"
            );
            self.error(node, Some(object), "kind", &message);
            return;
        }
        let message =
            format!("objects of {api_version} {kind} mean nothing to Sluice: it is left out");
        self.problem(
            node,
            Severity::Warning,
            Some(object.clone()),
            "kind",
            &message,
        );
        self.keep(node, object.clone(), Object::Unsupported(object));
    }

    fn keep(&mut self, node: &Node, name: ObjectRef, object: Object) {
        self.objects.push(Placed {
            object,
            name,
            file: self.file.to_owned(),
            node: node.clone(),
        });
    }

    fn metadata_is_valid(&mut self, node: &Node, object: &ObjectRef, kind: Kind) -> bool {
        let mut valid = true;
        if object.name.is_empty() {
            self.error(
                node,
                Some(object.clone()),
                "metadata.name",
                "the object has no name: write metadata.name (a generateName is not enough here)",
            );
            valid = false;
        } else if !validate::is_object_name(&object.name) {
            self.error(node, Some(object.clone()), "metadata.name", &format!("{:?} can't be an object's name: lower-case letters, digits, `-` and `.` are expected", object.name));
            valid = false;
        }
        let namespace = node
            .get("metadata")
            .and_then(|metadata| metadata.text("namespace"));
        match namespace {
            Some(namespace) if !namespace.is_empty() && !kind.is_namespaced() => {
                self.error(node, Some(object.clone()), "metadata.namespace", &format!("{} is cluster-wide and in no namespace: remove the field, or use the namespaced kind", object.kind));
                valid = false;
            }
            Some(namespace) if !namespace.is_empty() && !validate::is_namespace_name(namespace) => {
                self.error(node, Some(object.clone()), "metadata.namespace", &format!("{namespace:?} can't be a namespace's name: lower-case letters, digits and `-` are expected"));
                valid = false;
            }
            _ => {}
        }
        valid
    }

    fn note(&mut self, node: &Node, object: &ObjectRef, findings: Vec<Finding>) {
        for finding in findings {
            self.problem(
                node,
                finding.severity,
                Some(object.clone()),
                &finding.path,
                &finding.message,
            );
        }
    }

    fn error(&mut self, node: &Node, object: Option<ObjectRef>, path: &str, message: &str) {
        self.problem(node, Severity::Error, object, path, message);
    }

    fn problem(
        &mut self,
        node: &Node,
        severity: Severity,
        object: Option<ObjectRef>,
        path: &str,
        message: &str,
    ) {
        self.problems.push(Problem {
            severity,
            file: self.file.to_owned(),
            line: node.line_of(path),
            object,
            path: path.to_owned(),
            message: message.to_owned(),
        });
    }
}

/// The object's name, as far as the text tells it.
fn text_ref(node: &Node) -> Option<ObjectRef> {
    let kind = node.text("kind")?;
    let known = KINDS.iter().find(|(_, _, known, _)| *known == kind);
    let written = node
        .get("metadata")
        .and_then(|metadata| metadata.text("namespace"))
        .is_some();
    Some(object_ref(
        node,
        kind,
        known.map_or(written, |(.., kind)| kind.is_namespaced()),
    ))
}

fn object_ref(node: &Node, kind: &str, is_namespaced: bool) -> ObjectRef {
    let metadata = node.get("metadata");
    let field = |name| {
        metadata
            .and_then(|metadata| metadata.text(name))
            .filter(|text| !text.is_empty())
    };
    ObjectRef {
        kind: kind.to_owned(),
        namespace: is_namespaced
            .then(|| field("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned()),
        name: field("name").unwrap_or_default().to_owned(),
    }
}

/// An object that policies are about: read leniently, since its kind is Kubernetes' own and may be newer.
fn world<T>(value: Value, wrap: impl FnOnce(Box<T>) -> Object) -> (Option<Object>, Vec<Finding>)
where
    T: DeserializeOwned + Resource<DynamicType = ()> + IsNamespaced,
{
    let decoded = decode::<T>(value, Unknown::Warn);
    let object = decoded.object.map(|mut object| {
        if T::IS_NAMESPACED {
            let namespace = &mut object.meta_mut().namespace;
            if namespace.as_deref().is_none_or(str::is_empty) {
                *namespace = Some(DEFAULT_NAMESPACE.to_owned());
            }
        }
        wrap(Box::new(object))
    });
    (object, decoded.findings)
}

/// Whether objects of a type live in a namespace.
trait IsNamespaced {
    const IS_NAMESPACED: bool = true;
}

impl IsNamespaced for Namespace {
    const IS_NAMESPACED: bool = false;
}
impl IsNamespaced for KubeNode {
    const IS_NAMESPACED: bool = false;
}
impl IsNamespaced for Pod {}
impl IsNamespaced for Deployment {}
impl IsNamespaced for StatefulSet {}
impl IsNamespaced for DaemonSet {}
impl IsNamespaced for ReplicaSet {}
impl IsNamespaced for Service {}
impl IsNamespaced for EndpointSlice {}
impl IsNamespaced for ServiceAccount {}

/// An object with one `spec`. Its status is the cluster's, not the author's, and is not looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WithSpec<S> {
    #[expect(
        dead_code,
        reason = "looked at before; here so that it is no unknown field"
    )]
    api_version: Option<String>,
    #[expect(
        dead_code,
        reason = "looked at before; here so that it is no unknown field"
    )]
    kind: Option<String>,
    metadata: ObjectMeta,
    spec: S,
    #[expect(dead_code, reason = "here so that it is no unknown field")]
    status: Option<Value>,
}

/// An object with `spec` and `specs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WithSpecs {
    #[expect(
        dead_code,
        reason = "looked at before; here so that it is no unknown field"
    )]
    api_version: Option<String>,
    #[expect(
        dead_code,
        reason = "looked at before; here so that it is no unknown field"
    )]
    kind: Option<String>,
    #[expect(
        dead_code,
        reason = "its names were looked at before; here so that its types are checked"
    )]
    metadata: ObjectMeta,
    spec: Option<PolicyRule>,
    specs: Option<Vec<PolicyRule>>,
    #[expect(dead_code, reason = "here so that it is no unknown field")]
    status: Option<Value>,
}

fn policy(value: Value, kind: PolicyKind, object: &ObjectRef) -> (Option<Object>, Vec<Finding>) {
    let origin = PolicyRef {
        kind,
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    };
    match kind {
        PolicyKind::NetworkPolicy => strict(value, |raw: WithSpec<NetworkPolicySpec>, findings| {
            let namespace = object.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            validate::network_policy(origin, namespace, &raw.spec, findings)
                .map(Object::NetworkPolicy)
        }),
        PolicyKind::ClusterNetworkPolicy => strict(
            value,
            |raw: WithSpec<ClusterNetworkPolicySpec>, findings| {
                validate::cluster_network_policy(origin, &raw.spec, findings)
                    .map(Object::TierPolicy)
            },
        ),
        PolicyKind::AdminNetworkPolicy => {
            strict(value, |raw: WithSpec<AdminNetworkPolicySpec>, findings| {
                validate::admin_network_policy(origin, &raw.spec, findings).map(Object::TierPolicy)
            })
        }
        PolicyKind::BaselineAdminNetworkPolicy => strict(
            value,
            |raw: WithSpec<BaselineAdminNetworkPolicySpec>, findings| {
                validate::baseline_admin_network_policy(origin, &raw.spec, findings)
                    .map(Object::TierPolicy)
            },
        ),
        PolicyKind::SluiceNetworkPolicy
        | PolicyKind::SluiceClusterwideNetworkPolicy
        | PolicyKind::CiliumNetworkPolicy
        | PolicyKind::CiliumClusterwideNetworkPolicy => {
            strict(value, |raw: WithSpecs, findings| {
                validate::policy(origin, raw.spec.as_ref(), raw.specs.as_deref(), findings)
                    .map(Object::Policy)
            })
        }
    }
}

fn cidr_group(
    value: Value,
    kind: CidrGroupKind,
    object: &ObjectRef,
) -> (Option<Object>, Vec<Finding>) {
    strict(value, |raw: WithSpec<CidrGroupSpec>, findings| {
        let labels: BTreeMap<String, String> = raw.metadata.labels.unwrap_or_default();
        validate::cidr_group(kind, &object.name, &labels, &raw.spec, findings)
            .map(Object::CidrGroup)
    })
}

fn identity(value: Value, object: &ObjectRef) -> (Option<Object>, Vec<Finding>) {
    let (read, mut findings) = strict(value, |_: WithSpec<IdentitySpec>, _| {
        Some(Object::Unsupported(object.clone()))
    });
    findings.push(Finding {
        severity: Severity::Warning,
        path: "kind".to_owned(),
        message: "identities are made by the operator, never read from a manifest: it is left out"
            .to_owned(),
    });
    (read, findings)
}

/// An object that must be understood whole.
fn strict<T: DeserializeOwned>(
    value: Value,
    parse: impl FnOnce(T, &mut Findings) -> Option<Object>,
) -> (Option<Object>, Vec<Finding>) {
    let decoded = decode::<T>(value, Unknown::Refuse);
    let mut all = decoded.findings;
    let mut findings = Findings::default();
    let object = decoded.object.and_then(|raw| parse(raw, &mut findings));
    all.extend(findings.into_vec());
    let is_valid = all
        .iter()
        .all(|finding| finding.severity == Severity::Warning);
    (object.filter(|_| is_valid), all)
}
