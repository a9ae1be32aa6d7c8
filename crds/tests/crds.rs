//! The generated definitions: up to date, and of the form the API server asks for.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluice_crds::crd::{all_crds, definitions};

#[test]
fn the_yaml_and_the_tables_of_the_documentation_are_what_the_types_say() {
    let crdgen = Command::new(env!("CARGO_BIN_EXE_crdgen"))
        .arg("--check")
        .output()
        .unwrap();
    assert!(
        crdgen.status.success(),
        "{}",
        String::from_utf8_lossy(&crdgen.stderr)
    );
}

#[test]
fn there_is_no_yaml_that_no_type_makes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let definitions = all_crds().unwrap();
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
        ("SluiceNode", "Cluster", "sn", 7),
        ("SluiceEndpoint", "Namespaced", "sep", 6),
    ];
    for ((kind, scope, short, columns), expected) in rows.iter().zip(expected) {
        assert_eq!(
            (kind.as_str(), scope.as_str(), short[0].as_str(), *columns),
            expected
        );
    }
}

/// What structural schemas forbid everywhere, and what forbids pruning or defaulting
/// (apiextensions-apiserver, `pkg/apiserver/schema/structural.go` and `convert.go`).
const FORBIDDEN: [&str; 14] = [
    "$ref",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "id",
    "patternProperties",
    "additionalItems",
    "uniqueItems",
    "readOnly",
    "writeOnly",
    "xml",
    "oneOf",
    "$schema",
];

#[test]
fn schemas_hold_nothing_that_the_api_server_refuses() {
    for (kind, schema) in schemas() {
        visit(&schema, "", &mut |schema, path| {
            let at = format!("{kind}{path}");
            for word in FORBIDDEN {
                assert!(schema.get(word).is_none(), "{at} has {word}");
            }
            assert!(
                !(schema["properties"].is_object() && schema["additionalProperties"].is_object()),
                "{at}: properties and additionalProperties exclude each other"
            );
            if schema["type"] == "array" {
                assert!(schema["items"].is_object(), "{at}: a list of what?");
            }
            if schema["x-kubernetes-int-or-string"] == true {
                assert!(
                    schema.get("type").is_none(),
                    "{at}: a type beside int-or-string"
                );
            }
            for required in schema["required"].as_array().into_iter().flatten() {
                let name = required.as_str().unwrap();
                // The root's metadata is the API server's own.
                assert!(
                    schema["properties"].get(name).is_some()
                        || (path.is_empty() && name == "metadata"),
                    "{at} requires {name}, which it does not have"
                );
            }
            if schema["x-kubernetes-list-type"] == "map" {
                let item = &schema["items"];
                for key in schema["x-kubernetes-list-map-keys"].as_array().unwrap() {
                    assert!(
                        item["properties"][key.as_str().unwrap()]["type"].is_string()
                            && item["required"].as_array().unwrap().contains(key),
                        "{at}: the key {key} has to be a required scalar"
                    );
                }
            }
        });
        assert_eq!(schema["type"], "object", "{kind}: the root");
        let metadata = &schema["properties"]["metadata"];
        assert!(
            metadata.get("properties").is_none(),
            "{kind}: of metadata only name and generateName may be restricted"
        );
    }
}

/// `a.b` of every `self.a.b` in a rule.
fn fields_of(rule: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let rule = rule.replace(".?", ".").replace(".orValue(", "(");
    let ends = rule
        .match_indices("self.")
        .map(|(at, found)| at + found.len());
    ends.map(|from| rule[from..].split(|c| !word(c)).next().unwrap().to_owned())
        .collect()
}

#[test]
fn validation_rules_name_fields_that_there_are() {
    let mut seen = 0;
    for (kind, schema) in schemas() {
        visit(&schema, "", &mut |schema, path| {
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let text = rule["rule"].as_str().unwrap();
                assert!(
                    rule["message"]
                        .as_str()
                        .is_some_and(|message| !message.is_empty()),
                    "{kind}{path}: `{text}` says nothing"
                );
                for field in fields_of(text) {
                    seen += 1;
                    let mut at = schema;
                    for part in field.split('.') {
                        at = &at["properties"][part];
                        assert!(
                            at.is_object(),
                            "{kind}{path}: `{text}` names {field}, which is not there"
                        );
                    }
                }
            }
        });
    }
    assert!(seen > 10, "only {seen} fields are named by rules");
    assert_eq!(
        fields_of("has(self.a.b) || self.?c.orValue(0) == oldSelf"),
        ["a.b", "c"]
    );
}

#[test]
fn printed_columns_show_fields_that_there_are() {
    for crd in definitions().unwrap() {
        let version = &crd.spec.versions[0];
        let schema = version.schema.clone().unwrap().open_api_v3_schema;
        let schema = serde_json::to_value(schema).unwrap();
        assert_eq!(
            crd.metadata.name.as_deref(),
            Some(format!("{}.{}", crd.spec.names.plural, crd.spec.group).as_str())
        );
        for column in version.additional_printer_columns.iter().flatten() {
            // A filter (`[?(@.type=='Valid')]`) chooses among items.
            let parts = column.json_path.split('[');
            let path: Vec<&str> = parts
                .map(|part| part.split_once(']').map_or(part, |(_, rest)| rest))
                .collect();
            let path = path.join("[]");
            let mut at = &schema;
            for part in path.trim_start_matches('.').split('.') {
                if part == "metadata" {
                    break;
                }
                let (name, is_list) = part
                    .strip_suffix("[]")
                    .map_or((part, false), |name| (name, true));
                at = &at["properties"][name];
                at = if is_list { &at["items"] } else { at };
                assert!(
                    at.is_object(),
                    "{}: column {} shows {path}",
                    crd.spec.names.kind,
                    column.name
                );
            }
        }
    }
}
