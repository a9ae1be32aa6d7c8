//! DNS names and patterns.

use sluice_crds::parsed::FqdnSelector;

/// Whether one of these selectors names this name, which is normalised: lower case, no trailing dot.
pub(crate) fn any_matches(selectors: &[FqdnSelector], name: &str) -> bool {
    selectors.iter().any(|selector| match selector {
        FqdnSelector::Name(wanted) => wanted.as_str() == name,
        FqdnSelector::Pattern(pattern) => pattern_matches(pattern.as_str(), name),
    })
}

/// Names compare without case, and without their trailing dot.
pub(crate) fn normalise(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_lowercase()
}

/// For selectors that come as text: a pattern where it has a star, else a name.
pub(crate) fn text_matches(selector: &str, name: &str) -> bool {
    let selector = normalise(selector);
    if selector.contains('*') {
        pattern_matches(&selector, name)
    } else {
        selector == name
    }
}

/// `*` alone is everything; `**.` in front is one or more labels; any other `*` is a run of characters within one label.
pub(crate) fn pattern_matches(pattern: &str, name: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let found: Vec<&str> = name.split('.').collect();
    match pattern.strip_prefix("**.") {
        Some(rest) => {
            let wanted: Vec<&str> = rest.split('.').collect();
            found.len() > wanted.len()
                && labels_match(&wanted, &found[found.len() - wanted.len()..])
        }
        None => labels_match(&pattern.split('.').collect::<Vec<_>>(), &found),
    }
}

fn labels_match(wanted: &[&str], found: &[&str]) -> bool {
    wanted.len() == found.len()
        && wanted
            .iter()
            .zip(found)
            .all(|(wanted, found)| label_matches(wanted, found))
}

/// Between stars stand fixed pieces: the first begins the label, the last ends it, the others follow in order.
fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == label;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = label
        .strip_prefix(first)
        .and_then(|label| label.strip_suffix(last));
    let after = middle.split('*').try_fold(inner, |left, piece| {
        let left = left?;
        Some(left.find(piece).map(|at| &left[at + piece.len()..]))
    });
    after.flatten().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fqdn_patterns() {
        for (pattern, name, expected) in [
            ("*", "a.b.c", true),
            ("*.a.b", "x.a.b", true),
            ("*.a.b", "y.x.a.b", false),
            ("*.a.b", "a.b", false),
            ("**.a.b", "x.a.b", true),
            ("**.a.b", "y.x.a.b", true),
            ("**.a.b", "a.b", false),
            ("w*.a.b", "www.a.b", true),
            ("w*.a.b", "w.a.b", true),
            ("w*.a.b", "w.x.a.b", false),
            ("a.*.b", "a.x.b", true),
            ("a.*.b", "a.x.y.b", false),
            ("a.b", "axb", false),
            ("**.a.b", "xa.b", false),
            ("**.w*.b", "y.x.www.b", true),
            ("*a*b*.c", "xaxbx.c", true),
            ("*a*b*.c", "ab.c", true),
            ("*a*b*.c", "ba.c", false),
            ("a*a.c", "a.c", false),
            ("a*a.c", "aa.c", true),
            ("x*yy*y.c", "xyy.c", false),
        ] {
            assert_eq!(
                pattern_matches(pattern, name),
                expected,
                "{pattern} on {name}"
            );
        }
    }

    #[test]
    fn text_ignores_case_and_the_trailing_dot() {
        assert!(text_matches("WWW.Example.com.", "www.example.com"));
        assert!(text_matches("*.Example.com", "www.example.com"));
    }
}
