//! The likely cause of what serde says, in words for the person who wrote the file.

/// The field's name, where the message is about an unknown one.
pub(super) fn unknown_field(message: &str) -> Option<&str> {
    message
        .strip_prefix("unknown field `")?
        .split_once('`')
        .map(|(field, _)| field)
}

/// The message to show.
pub(super) fn explain(message: &str, path: &str) -> String {
    if let Some(field) = unknown_field(message) {
        return unknown(field, message, path);
    }
    if let Some(field) = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
        .map(|(field, _)| field)
    {
        return format!("the field {field:?} is missing, and has no default");
    }
    let advice = wrong_type_advice(message);
    format!("{message}{advice}")
}

fn wrong_type_advice(message: &str) -> &'static str {
    let is = |start: &str| {
        message
            .strip_prefix("invalid type: ")
            .is_some_and(|rest| rest.starts_with(start))
    };
    if message.contains("expected a string") && (is("integer") || is("boolean") || is("floating")) {
        ": put the value in quotes (plain yes, no, on, off, true and numbers are not text in YAML)"
    } else if is("map") && message.contains("expected a sequence") {
        ": a list is expected, begin each entry with a dash"
    } else if is("sequence") {
        ": a single value or a map is expected here, remove the dash"
    } else if is("string") && message.contains("expected a sequence") {
        ": a list is expected, even of one entry"
    } else if is("string") && message.contains("expected i") {
        ": a number is expected, remove the quotes"
    } else if is("null") || is("unit") {
        ": the value is missing; what belongs to it may be indented too little"
    } else {
        ""
    }
}

fn unknown(field: &str, message: &str, path: &str) -> String {
    let under_deny = path.contains("ingressDeny[") || path.contains("egressDeny[");
    match field {
        "kafka" | "l7" | "l7proto" => {
            return format!(
                "`{field}` rules were removed from the API upstream: only `http` and `dns` rules exist now"
            );
        }
        "fromRequires" | "toRequires" => {
            return format!(
                "`{field}` was removed from the API upstream: put the requirement into the selectors of {}",
                if field == "fromRequires" {
                    "fromEndpoints"
                } else {
                    "toEndpoints"
                }
            );
        }
        "rules" | "toFQDNs" | "authentication" | "listener" | "terminatingTLS"
        | "originatingTLS" | "serverNames"
            if under_deny =>
        {
            return format!(
                "a deny rule carries no {field}: it denies peers and ports only; deny those, or allow the rest with {field}"
            );
        }
        "toFQDNs" | "toServices" if path.contains("ingress") => {
            return format!("`{field}` is for egress only");
        }
        _ => {}
    }
    let known = known_fields(message);
    match nearest(field, &known) {
        Some(near) => format!("unknown field {field:?}: did you mean {near:?}?"),
        None if known.is_empty() => {
            format!("unknown field {field:?}: check its spelling and its indentation")
        }
        None => format!(
            "unknown field {field:?}: known here are {}; check its indentation",
            known.join(", ")
        ),
    }
}

/// The names in serde's "expected one of `a`, `b`".
fn known_fields(message: &str) -> Vec<&str> {
    let Some((_, expected)) = message.split_once("expected ") else {
        return Vec::new();
    };
    expected.split('`').skip(1).step_by(2).collect()
}

/// The known name that differs by the fewest edits, if they are few.
fn nearest<'a>(field: &str, known: &[&'a str]) -> Option<&'a str> {
    let field = field.to_ascii_lowercase();
    known
        .iter()
        .map(|name| (edits(&field, &name.to_ascii_lowercase()), *name))
        .min()
        .filter(|(edits, name)| *edits <= 1 + name.len() / 5)
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
