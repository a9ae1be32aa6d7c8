//! Label selectors, as the API's text of `LabelSelector` defines them.

use std::fmt;

use sluice_crds::parsed::{KubeSelector, Operator, Selector};
use sluice_world::Labels;

/// A requirement of a selector that does not hold.
#[derive(Clone)]
pub(crate) struct Unmet<'w> {
    pub(crate) key: &'w dyn fmt::Display,
    pub(crate) wanted: Wanted<'w>,
    /// The values there; empty where the label is absent.
    pub(crate) found: Vec<&'w str>,
}

/// What a requirement asks of a label.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'w> {
    Value(&'w str),
    Operator(&'w Operator),
}

/// Every requirement of the selector that does not hold, `values` giving the values under a key. None: it matches.
pub(crate) fn unmet<'w, K: Ord + fmt::Display>(
    selector: &'w Selector<K>,
    values: impl Fn(&'w K) -> Vec<&'w str>,
) -> Vec<Unmet<'w>> {
    let mut unmet = Vec::new();
    for (key, value) in &selector.match_labels {
        let found = values(key);
        if !found.contains(&value.as_str()) {
            unmet.push(Unmet {
                key,
                wanted: Wanted::Value(value),
                found,
            });
        }
    }
    for expression in &selector.match_expressions {
        let found = values(&expression.key);
        if !holds(&expression.operator, &found) {
            unmet.push(Unmet {
                key: &expression.key,
                wanted: Wanted::Operator(&expression.operator),
                found,
            });
        }
    }
    unmet
}

/// [`unmet`] over plain labels.
pub(crate) fn unmet_by<'w>(selector: &'w KubeSelector, labels: &'w Labels) -> Vec<Unmet<'w>> {
    unmet(selector, |key| {
        labels.get(key).map(String::as_str).into_iter().collect()
    })
}

/// Whether a selector matches plain labels.
pub(crate) fn matches(selector: &KubeSelector, labels: &Labels) -> bool {
    unmet_by(selector, labels).is_empty()
}

/// `NotIn` and `DoesNotExist` also hold where the label is absent.
fn holds(operator: &Operator, found: &[&str]) -> bool {
    match operator {
        Operator::In(wanted) => found
            .iter()
            .any(|value| wanted.iter().any(|wanted| wanted == value)),
        Operator::NotIn(unwanted) => !found
            .iter()
            .any(|value| unwanted.iter().any(|unwanted| unwanted == value)),
        Operator::Exists => !found.is_empty(),
        Operator::DoesNotExist => found.is_empty(),
    }
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key;
        match self.wanted {
            Wanted::Value(value) => write!(f, "label {key} should be {value:?}")?,
            Wanted::Operator(Operator::In(values)) => {
                write!(f, "label {key} should be one of {values:?}")?;
            }
            Wanted::Operator(Operator::NotIn(values)) => {
                write!(f, "label {key} should be none of {values:?}")?;
            }
            Wanted::Operator(Operator::Exists) => write!(f, "label {key} should be there")?,
            Wanted::Operator(Operator::DoesNotExist) => write!(f, "label {key} should be absent")?,
        }
        match self.found[..] {
            [] => f.write_str(", but there is none"),
            [value] => write!(f, ", but is {value:?}"),
            _ => write!(f, ", but is {:?}", self.found),
        }
    }
}

impl fmt::Debug for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unmet({self})")
    }
}
