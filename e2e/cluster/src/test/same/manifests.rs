//! The objects of a folder, and its pods as the cluster shall have them: their own labels, accounts and ports, a program that
//! answers in place of their images. What they mean may not enter.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::test::pods::Answering;

/// The lab's word for a host outside of the cluster.
const OUTSIDE: &str = "sluice.io/lab-external";

/// Everything in a folder.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    objects: Vec<Value>,
}

impl Manifests {
    /// Reads every YAML file under a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut manifests = Self::default();
        for file in files(folder)? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            manifests
                .add(&text)
                .with_context(|| file.display().to_string())?;
        }
        Ok(manifests)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object = Value::deserialize(document)?;
            if !object.is_null() {
                self.objects.push(object);
            }
        }
        Ok(())
    }

    /// Whether a pod of this `namespace/name` is on the cluster: a host outside is not.
    pub(super) fn is_inside(&self, pod: &str) -> bool {
        self.maker(pod).is_some_and(|maker| {
            template(maker)["metadata"]["annotations"]
                .get(OUTSIDE)
                .is_none()
        })
    }

    /// A pod of the lab, to run on a node of the cluster.
    pub(super) fn pod(&self, pod: &str, node: &str) -> Result<Answering> {
        let maker = self
            .maker(pod)
            .with_context(|| format!("nothing makes the pod {pod}"))?;
        let (namespace, name) = pod.split_once('/').context("a pod's name")?;
        let template = template(maker);
        let containers = template["spec"]["containers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ports = containers
            .iter()
            .filter_map(|container| container["ports"].as_array())
            .flatten();
        Ok(Answering {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: template["metadata"]["labels"].clone(),
            node: node.to_owned(),
            service_account: template["spec"]["serviceAccountName"]
                .as_str()
                .map(str::to_owned),
            ports: ports.cloned().collect(),
        })
    }

    /// The labels of a namespace; none if no manifest has it.
    pub(super) fn namespace_labels(&self, name: &str) -> Value {
        let of_kind = self
            .objects
            .iter()
            .filter(|object| object["kind"] == "Namespace");
        let mut found = of_kind.filter(|object| object["metadata"]["name"] == name);
        found
            .next()
            .map(|object| object["metadata"]["labels"].clone())
            .filter(Value::is_object)
            .unwrap_or_else(|| json!({}))
    }

    /// Policies and what they refer to: those of the cluster and those of these namespaces.
    pub(super) fn in_force(&self, namespaces: &BTreeSet<String>) -> Vec<Value> {
        let wanted = |object: &&Value| match object["metadata"]["namespace"].as_str() {
            Some(namespace) => namespaces.contains(namespace),
            None => true,
        };
        self.rules().filter(wanted).cloned().collect()
    }

    /// Policies that are in no namespace.
    pub(super) fn clusterwide(&self) -> Vec<Value> {
        let wanted = |object: &&Value| object["metadata"]["namespace"].is_null();
        self.rules().filter(wanted).cloned().collect()
    }

    fn rules(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            kind.ends_with("Policy") || kind.ends_with("CIDRGroup") || kind == "Service"
        })
    }

    /// The pod of this name or the workload whose pods are called after it.
    fn maker(&self, pod: &str) -> Option<&Value> {
        let (namespace, name) = pod.split_once('/')?;
        let made = |object: &&Value| {
            let own = object["metadata"]["name"].as_str().unwrap_or_default();
            object["metadata"]["namespace"]
                .as_str()
                .unwrap_or("default")
                == namespace
                && if object["kind"] == "Pod" {
                    own == name
                } else {
                    object["spec"]["template"].is_object()
                        && name
                            .strip_prefix(own)
                            .is_some_and(|rest| rest.starts_with('-'))
                }
        };
        // `web-api-0` is of `web-api`, not of `web`.
        self.objects
            .iter()
            .filter(made)
            .max_by_key(|object| object["metadata"]["name"].as_str().map(str::len))
    }
}

fn template(maker: &Value) -> &Value {
    if maker["kind"] == "Pod" {
        maker
    } else {
        &maker["spec"]["template"]
    }
}

/// In order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers: [{ports: [{containerPort: 80}]}, {}]
---
kind: Deployment
metadata: {name: web-api, namespace: shop}
spec: {template: {metadata: {labels: {app: api}}, spec: {containers: []}}}
---
kind: Pod
metadata: {name: bank, namespace: internet, annotations: {sluice.io/lab-external: "203.0.113.1"}}
---
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
---
kind: NetworkPolicy
metadata: {name: p, namespace: other}
---
kind: ClusterNetworkPolicy
metadata: {name: all}
"#;

    #[test]
    fn pods_are_found_by_who_makes_them() {
        let mut manifests = Manifests::default();
        manifests.add(TEXT).unwrap();
        let pod = manifests.pod("shop/web-0", "node1").unwrap();
        assert_eq!(pod.labels, json!({"app": "web"}));
        assert_eq!(pod.service_account.as_deref(), Some("web"));
        assert_eq!(pod.ports, [json!({"containerPort": 80})]);
        assert_eq!(
            manifests.pod("shop/web-api-0", "node1").unwrap().labels,
            json!({"app": "api"})
        );
        assert!(manifests.pod("shop/other", "node1").is_err());
        assert!(manifests.is_inside("shop/web-0") && !manifests.is_inside("internet/bank"));
        assert_eq!(manifests.namespace_labels("shop"), json!({"team": "shop"}));
        assert_eq!(manifests.namespace_labels("none"), json!({}));
    }

    #[test]
    fn policies_of_the_cluster_and_of_its_namespaces_are_in_force() {
        let mut manifests = Manifests::default();
        manifests.add(TEXT).unwrap();
        assert_eq!(manifests.in_force(&["shop".to_owned()].into()).len(), 2);
        assert_eq!(manifests.clusterwide().len(), 1);
    }
}
