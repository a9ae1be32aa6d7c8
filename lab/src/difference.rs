//! What is different between two worlds, as the index takes it. Where worlds come from may not enter.

use std::collections::BTreeMap;

use sluice_policy::ItemRef;
use sluice_world::{World, WorldItem};

/// Items to apply and items to delete, those that others refer to first.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) apply: Vec<WorldItem>,
    pub(crate) delete: Vec<ItemRef>,
}

impl Difference {
    /// What turns `old` into `new`.
    pub(crate) fn between(old: &World, new: &World) -> Self {
        let mut difference = Self::default();
        difference.of(
            &old.namespaces,
            &new.namespaces,
            WorldItem::Namespace,
            |name| ItemRef::Namespace(name.clone()),
        );
        difference.of(&old.nodes, &new.nodes, WorldItem::Node, |name| {
            ItemRef::Node(name.clone())
        });
        let group =
            |(kind, name): &(String, String)| ItemRef::CidrGroup(kind.clone(), name.clone());
        difference.of(
            &old.cidr_groups,
            &new.cidr_groups,
            WorldItem::CidrGroup,
            group,
        );
        difference.of(&old.services, &new.services, WorldItem::Service, |name| {
            ItemRef::Service(name.clone())
        });
        difference.of(&old.pods, &new.pods, WorldItem::Pod, |id| {
            ItemRef::Pod(id.clone())
        });
        difference.of(&old.policies, &new.policies, WorldItem::Policy, |origin| {
            ItemRef::Policy(origin.clone())
        });
        difference
    }

    fn of<K: Ord, V: PartialEq + Clone>(
        &mut self,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        item: fn(V) -> WorldItem,
        name: impl Fn(&K) -> ItemRef,
    ) {
        let changed = new
            .iter()
            .filter(|(key, value)| old.get(key) != Some(value));
        self.apply
            .extend(changed.map(|(_, value)| item(value.clone())));
        self.delete
            .extend(old.keys().filter(|key| !new.contains_key(key)).map(name));
    }
}

#[cfg(test)]
mod tests {
    use sluice_world::Namespace;

    use super::*;

    fn world(names: &[(&str, &str)]) -> World {
        let namespace = |(name, label): &(&str, &str)| {
            let labels = [("l".to_owned(), (*label).to_owned())].into();
            WorldItem::Namespace(Namespace {
                name: (*name).to_owned(),
                labels,
            })
        };
        names.iter().map(namespace).collect()
    }

    #[test]
    fn only_what_differs_is_named() {
        let difference = Difference::between(
            &world(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &world(&[("a", "1"), ("b", "2"), ("d", "1")]),
        );
        let applied: Vec<String> = difference
            .apply
            .iter()
            .map(|item| match item {
                WorldItem::Namespace(namespace) => namespace.name.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(applied, ["b", "d"]);
        assert_eq!(difference.delete, [ItemRef::Namespace("c".to_owned())]);
    }
}
