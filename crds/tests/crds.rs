//! The generated definitions: up to date, and of the form the API server asks for.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sluice_crds::crd::{all_crds, definitions};

#[test]
fn the_yaml_is_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let definitions = all_crds().unwrap();
    for (name, yaml) in &definitions {
        let found = fs::read_to_string(directory.join(name)).unwrap_or_default();
        assert!(
            found == *yaml,
            "{name} is stale: run `cargo run -p sluice-crds --bin crdgen -- --write`"
        );
    }
    assert_eq!(
        fs::read_dir(directory).unwrap().count(),
        definitions.len(),
        "a definition that no type makes"
    );
}

/// Visits every schema below one: properties, items and additional properties.
fn visit(schema: &Value, path: &str, check: &mut impl FnMut(&Value, &str)) {
    check(schema, path);
    if let Some(properties) = schema["properties"].as_object() {
        properties
            .iter()
            .for_each(|(name, schema)| visit(schema, &format!("{path}.{name}"), check));
    }
    for field in ["items", "additionalProperties"] {
        if schema[field].is_object() {
            visit(&schema[field], &format!("{path}.{field}"), check);
        }
    }
}

fn schemas() -> Vec<(String, Value)> {
    definitions()
        .unwrap()
        .into_iter()
        .map(|crd| {
            let schema = crd.spec.versions[0]
                .schema
                .clone()
                .unwrap()
                .open_api_v3_schema;
            (crd.spec.names.kind, serde_json::to_value(schema).unwrap())
        })
        .collect()
}

#[test]
fn schemas_are_structural() {
    for (kind, schema) in schemas() {
        visit(&schema, "", &mut |schema, path| {
            let is_int_or_string = schema["x-kubernetes-int-or-string"] == true;
            assert!(
                schema["type"].is_string() || is_int_or_string,
                "{kind}{path} has no type: {schema}"
            );
            assert_ne!(schema["additionalProperties"], false, "{kind}{path}");
            assert!(schema.get("$ref").is_none(), "{kind}{path} has a reference");
        });
    }
}

#[test]
fn specs_of_policies_keep_what_they_do_not_know() {
    for (kind, schema) in schemas() {
        if !kind.ends_with("NetworkPolicy") {
            continue;
        }
        for field in ["spec", "specs"] {
            let mut objects = 0;
            visit(&schema["properties"][field], field, &mut |schema, path| {
                if schema["type"] == "object" && !schema["additionalProperties"].is_object() {
                    objects += 1;
                    assert_eq!(
                        schema["x-kubernetes-preserve-unknown-fields"], true,
                        "{kind} {path} would be pruned"
                    );
                }
            });
            assert!(objects > 20, "{kind}.{field} has its typed fields");
        }
        let rules = schema["properties"]["spec"]["x-kubernetes-validations"]
            .as_array()
            .map_or(0, Vec::len);
        assert_eq!(
            rules, 2,
            "{kind}: {:?}",
            schema["properties"]["spec"]["x-kubernetes-validations"]
        );
    }
}

#[test]
fn names_scopes_and_columns() {
    let rows: Vec<(String, String, Vec<String>, usize)> = definitions()
        .unwrap()
        .into_iter()
        .map(|crd| {
            let columns = crd.spec.versions[0]
                .additional_printer_columns
                .as_ref()
                .map_or(0, Vec::len);
            (
                crd.spec.names.kind,
                crd.spec.scope,
                crd.spec.names.short_names.unwrap_or_default(),
                columns,
            )
        })
        .collect();
    let expected = [
        ("SluiceNetworkPolicy", "Namespaced", "snp", 6),
        ("SluiceClusterwideNetworkPolicy", "Cluster", "scnp", 6),
        ("SluiceCIDRGroup", "Cluster", "scg", 3),
        ("Identity", "Cluster", "sid", 5),
    ];
    for ((kind, scope, short, columns), expected) in rows.iter().zip(expected) {
        assert_eq!(
            (kind.as_str(), scope.as_str(), short[0].as_str(), *columns),
            expected
        );
    }
}
