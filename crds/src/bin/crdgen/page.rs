//! The tables of `docs/crds.md`, from the schemas. The words around them are written by hand and stay.
//!
//! ```text
//! <!-- crdgen: kind SluiceCIDRGroup -->                                   names, scope, printed columns
//! <!-- crdgen: fields SluiceNetworkPolicy spec.egress[] only=icmps -->    a line for each field below a place
//! <!-- crdgen: end -->
//! ```
//! `only=` and `without=` choose among the fields there; what is below a field of `closed=` is not shown.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const BEGIN: &str = "<!-- crdgen: ";
const END: &str = "<!-- crdgen: end -->";

/// The page with its tables made anew.
///
/// # Errors
/// A marker that can't be understood, with its line.
pub(crate) fn renew(
    page: &str,
    definitions: &[CustomResourceDefinition],
) -> Result<String, String> {
    let mut out = String::new();
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        out.extend([line, "\n"]);
        let Some(marker) = line.strip_prefix(BEGIN) else {
            continue;
        };
        let failed = |why: &str| format!("line {number}: {line}: {why}");
        let words = marker
            .strip_suffix(" -->")
            .ok_or_else(|| failed("no end"))?;
        out.extend([
            "\n",
            &table(words, definitions).map_err(|why| failed(&why))?,
            "\n",
        ]);
        // What was between the markers is what is made anew.
        if !lines.any(|(line, _)| line == END) {
            return Err(failed("the end of the table is not marked"));
        }
        out.extend([END, "\n"]);
    }
    Ok(out)
}

fn table(words: &str, definitions: &[CustomResourceDefinition]) -> Result<String, String> {
    let mut words = words.split(' ');
    let what = words.next().unwrap_or_default();
    let kind = words.next().unwrap_or_default();
    let definition = definitions
        .iter()
        .find(|definition| definition.spec.names.kind == kind)
        .ok_or_else(|| format!("there is no kind {kind:?}"))?;
    match what {
        "kind" => Ok(names(definition)),
        "fields" => {
            let path = words.next().ok_or("a place is missing")?;
            fields(definition, path, words)
        }
        other => Err(format!("{other:?} is no table")),
    }
}

fn names(definition: &CustomResourceDefinition) -> String {
    let spec = &definition.spec;
    let columns = spec.versions.iter().flat_map(|version| {
        version
            .additional_printer_columns
            .iter()
            .flatten()
            .map(|column| match column.priority {
                Some(priority) if priority > 0 => format!("{} (wide)", column.name),
                _ => column.name.clone(),
            })
    });
    let rows = [
        (
            "resource",
            format!("`{}.{}`", spec.names.plural, spec.group),
        ),
        (
            "short name",
            format!(
                "`{}`",
                spec.names
                    .short_names
                    .iter()
                    .flatten()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("`, `")
            ),
        ),
        ("scope", spec.scope.clone()),
        ("printed columns", columns.collect::<Vec<_>>().join(", ")),
    ];
    let mut table = "| | |\n|---|---|\n".to_owned();
    for (name, value) in rows {
        table.extend(["| ", name, " | ", &value, " |\n"]);
    }
    table
}

/// Which fields of a place are shown.
#[derive(Default)]
struct Choice<'a> {
    only: Option<Vec<&'a str>>,
    without: Vec<&'a str>,
    closed: Vec<&'a str>,
}

fn fields<'a>(
    definition: &CustomResourceDefinition,
    path: &str,
    words: impl Iterator<Item = &'a str>,
) -> Result<String, String> {
    let mut choice = Choice::default();
    for word in words {
        let (name, list) = word.split_once('=').unwrap_or((word, ""));
        let list = list.split(',').collect();
        match name {
            "only" => choice.only = Some(list),
            "without" => choice.without = list,
            "closed" => choice.closed = list,
            other => return Err(format!("{other:?} is no choice of fields")),
        }
    }
    let schema = definition.spec.versions[0].schema.as_ref();
    let schema = serde_json::to_value(schema).map_err(|error| error.to_string())?;
    let mut place = &schema["openAPIV3Schema"];
    for part in path.split('.') {
        place = match part.strip_suffix("[]") {
            Some(name) => &place["properties"][name]["items"],
            None => &place["properties"][part],
        };
    }
    let mut rows = String::new();
    for (name, field) in below(place) {
        let chosen = choice.only.as_ref().is_none_or(|only| only.contains(&name));
        if chosen && !choice.without.contains(&name) {
            let closed = choice.closed.contains(&name);
            row(&mut rows, name, field, is_required(place, name), closed);
        }
    }
    if rows.is_empty() {
        return Err(format!("there is no field at {path}"));
    }
    Ok(format!("| field | type | meaning |\n|---|---|---|\n{rows}"))
}

fn below(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties = schema["properties"].as_object();
    properties
        .into_iter()
        .flatten()
        .map(|(name, field)| (name.as_str(), field))
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema["required"].as_array();
    required.is_some_and(|required| required.iter().any(|field| field == name))
}

/// A line for a field, and lines for those below it.
fn row(rows: &mut String, path: &str, field: &Value, required: bool, closed: bool) {
    let is_list = field["type"] == "array";
    let (path, inner) = if is_list {
        (format!("{path}[]"), &field["items"])
    } else {
        (path.to_owned(), field)
    };
    let kind = if is_list {
        format!("list of {}s", type_name(inner))
    } else {
        type_name(field)
    };
    let required = if required { " Required." } else { "" };
    let meaning = meaning(field);
    rows.extend([
        "| `", &path, "` | ", &kind, " | ", &meaning, required, " |\n",
    ]);
    if closed || is_selector(inner) {
        return;
    }
    for (name, deeper) in below(inner) {
        let required = is_required(inner, name);
        row(rows, &format!("{path}.{name}"), deeper, required, false);
    }
}

fn type_name(schema: &Value) -> String {
    if is_selector(schema) {
        return "label selector".to_owned();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return "number or string".to_owned();
    }
    let values = &schema["additionalProperties"];
    if values.is_object() {
        return format!("map of {}", type_name(values));
    }
    schema["type"].as_str().unwrap_or("any").to_owned()
}

fn is_selector(schema: &Value) -> bool {
    let mut names = below(schema).map(|(name, _)| name);
    (names.next(), names.next(), names.next())
        == (Some("matchExpressions"), Some("matchLabels"), None)
}

/// The description, with the limits that the API server holds the field to.
fn meaning(field: &Value) -> String {
    let text = field["description"].as_str().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let items = &field["items"];
    let limit = match (
        field["maxLength"].as_u64(),
        field["maxItems"].as_u64(),
        items["minLength"].as_u64(),
        items["maxLength"].as_u64(),
    ) {
        (Some(most), ..) => format!("; at most {most} characters"),
        (_, Some(most), ..) => format!("; at most {most}"),
        (.., Some(least), Some(most)) => format!("; each {least} to {most} characters"),
        (.., None, Some(most)) => format!("; each at most {most} characters"),
        _ => String::new(),
    };
    format!("{}{limit}.", text.trim_end_matches('.').replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_crds::crd::definitions;

    #[test]
    fn tables_are_made_anew_and_words_stay() {
        let page = "before\n<!-- crdgen: fields SluiceCIDRGroup spec -->\nold\n<!-- crdgen: end -->\nafter\n";
        let fresh = renew(page, &definitions().unwrap()).unwrap();
        assert!(
            fresh.starts_with("before\n") && fresh.ends_with("\nafter\n"),
            "{fresh}"
        );
        assert!(
            fresh.contains("| `externalCIDRs[]` | list of strings | "),
            "{fresh}"
        );
        assert!(!fresh.contains("old"), "{fresh}");
        assert_eq!(renew(&fresh, &definitions().unwrap()), Ok(fresh));
    }

    #[test]
    fn fields_are_chosen_described_and_limited() {
        let table = |words: &str| table(words, &definitions().unwrap()).unwrap();
        let log = table("fields SluiceNetworkPolicy spec only=log");
        assert!(log.contains("| `log.value` | string | Shown with every flow the rule decides; at most 32 characters. |"), "{log}");
        let rules = table("fields SluiceNetworkPolicy spec without=log closed=egress");
        assert!(
            rules.contains("| `egress[]` | list of objects |"),
            "{rules}"
        );
        assert!(
            !rules.contains("egress[].") && rules.contains("ingress[].toPorts[]"),
            "{rules}"
        );
        assert!(
            rules.contains("| `endpointSelector` | label selector |")
                && !rules.contains("endpointSelector.match"),
            "{rules}"
        );
    }

    #[test]
    fn markers_that_say_nothing_are_refused() {
        for marker in [
            "fields Nobody spec",
            "fields Identity nowhere",
            "fields Identity spec some=a",
            "words Identity",
            "fields Identity",
        ] {
            let page = format!("<!-- crdgen: {marker} -->\n<!-- crdgen: end -->\n");
            assert!(
                renew(&page, &definitions().unwrap())
                    .unwrap_err()
                    .starts_with("line 1: ")
            );
        }
        assert!(renew("<!-- crdgen: kind Identity -->\n", &definitions().unwrap()).is_err());
    }
}
