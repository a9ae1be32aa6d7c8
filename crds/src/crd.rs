//! The custom resource definitions of group `sluice.io`, made from the types of [`crate::policy`] and
//! [`crate::resources`], and their YAML.
//!
//! `spec` and `specs` of policies keep fields that the schema does not know: the API server would otherwise prune them
//! silently, and half a policy would be enforced. The webhook and the reader refuse them instead.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use kube::{CustomResourceExt, Resource};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::AddNullable;
use serde_json::{Value, json};

use crate::resources::{
    GROUP, Identity, SluiceCIDRGroup, SluiceClusterwideNetworkPolicy, SluiceEndpoint,
    SluiceNetworkPolicy, SluiceNode, VERSION,
};

/// A custom resource definition could not be made; only a mistake in this crate's types leads here.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The schema is not one of Kubernetes'.
    #[error("the schema made from the types is no CustomResourceDefinition: {0}")]
    Shape(#[from] serde_json::Error),
    /// The YAML could not be written.
    #[error("the definition can't be written as YAML: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
}

/// The text generated files begin with.
const HEADER: &str = "# Generated from the types of the crate sluice-crds: change those, then run `cargo xtask crdgen`.\n";

/// Every definition: the name of its file, and its YAML.
///
/// # Errors
/// Where the types can't be expressed, see [`CrdError`].
pub fn all_crds() -> Result<Vec<(String, String)>, CrdError> {
    definitions()?
        .iter()
        .map(|crd| {
            let name = format!("{GROUP}_{}.yaml", crd.spec.names.plural);
            Ok((
                name,
                format!(
                    "{HEADER}{}",
                    serde_yaml_ng::to_string(&serde_json::to_value(crd)?)?
                ),
            ))
        })
        .collect()
}

/// Every definition.
///
/// # Errors
/// Where the types can't be expressed, see [`CrdError`].
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, CrdError> {
    Ok(vec![
        policy_definition::<SluiceNetworkPolicy>("Namespaced", "snp")?,
        policy_definition::<SluiceClusterwideNetworkPolicy>("Cluster", "scnp")?,
        closed(SluiceCIDRGroup::crd())?,
        closed(Identity::crd())?,
        closed(SluiceNode::crd())?,
        closed(SluiceEndpoint::crd())?,
    ])
}

/// What the derive would write, for a kind with `spec` and `specs`.
fn policy_definition<K>(scope: &str, short_name: &str) -> Result<CustomResourceDefinition, CrdError>
where
    K: Resource<DynamicType = ()> + JsonSchema,
{
    let kind = K::kind(&());
    let mut schema = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator()
        .into_root_schema_for::<K>()
        .to_value();
    drop_closedness(&mut schema);
    if let Some(properties) = schema.get_mut("properties") {
        for field in ["spec", "specs"] {
            if let Some(field) = properties.get_mut(field) {
                preserve_unknown_fields(field);
            }
        }
    }
    schema["required"] = json!(["metadata"]);
    schema["x-kubernetes-validations"] = json!([{
        "rule": "has(self.spec) || (has(self.specs) && size(self.specs) > 0)",
        "message": "spec, or specs with at least one entry, is needed",
    }]);
    let condition = |name: &str| format!(".status.conditions[?(@.type=='{name}')].status");
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{GROUP}", K::plural(&())) },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": K::plural(&()),
                "singular": kind.to_lowercase(),
                "shortNames": [short_name],
                "categories": ["sluice"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": [
                    { "name": "Valid", "type": "string", "jsonPath": condition("Valid") },
                    { "name": "Enforced", "type": "string", "jsonPath": condition("Enforced") },
                    { "name": "Nodes", "type": "integer", "jsonPath": ".status.nodes.enforced",
                      "description": "Nodes that enforce the observed generation" },
                    { "name": "Of", "type": "integer", "jsonPath": ".status.nodes.desired",
                      "description": "Nodes that should", "priority": 1 },
                    { "name": "Why", "type": "string", "priority": 1,
                      "jsonPath": ".status.conditions[?(@.type=='Valid')].message" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": { "openAPIV3Schema": schema },
            }],
        },
    });
    Ok(serde_json::from_value(definition)?)
}

/// A derived definition, made acceptable to the API server.
fn closed(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, CrdError> {
    let mut value = serde_json::to_value(crd)?;
    drop_closedness(&mut value);
    Ok(serde_json::from_value(value)?)
}

/// `deny_unknown_fields` becomes `additionalProperties: false`, which Kubernetes' schemas forbid beside `properties`.
fn drop_closedness(schema: &mut Value) {
    walk(schema, &mut |map| {
        if map.get("additionalProperties") == Some(&Value::Bool(false)) {
            map.remove("additionalProperties");
        }
    });
}

/// Marks every object of a schema: the mark does not reach into objects that have properties of their own.
fn preserve_unknown_fields(schema: &mut Value) {
    walk(schema, &mut |map| {
        if map.get("type").is_some_and(|kind| kind == "object")
            && !map.contains_key("additionalProperties")
        {
            map.insert(
                "x-kubernetes-preserve-unknown-fields".to_owned(),
                Value::Bool(true),
            );
        }
    });
}

fn walk(value: &mut Value, visit: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            map.values_mut().for_each(|value| walk(value, visit));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| walk(value, visit)),
        _ => {}
    }
}
