//! Everything rules are made of, counted by use: strings, address sets, DNS selectors, selectors, and which label keys and port names
//! some policy can see. Rules and tables may not enter.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    fqdn::FqdnBook,
    identity::{IdentityBook, Names},
    intern::{Interner, Symbol},
    prefix::PrefixBook,
    registry::{Registry, SelectorId},
    selector::{AtomId, Domain, FqdnId, Key, Requirement, Reserved, Selector, Test},
};

/// Key under which every pod carries its namespace's name.
pub const NAMESPACE_KEY: &str = "io.kubernetes.pod.namespace";
/// What precedes the keys of namespace labels on the namespace's pods.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Key under which every pod carries its service account.
pub const SERVICE_ACCOUNT_KEY: &str = "io.cilium.k8s.policy.serviceaccount";
/// Key under which every pod carries its cluster's name.
pub const CLUSTER_KEY: &str = "io.cilium.k8s.policy.cluster";
/// The name of the only cluster there is.
pub const CLUSTER: &str = "default";
/// The label every namespace has: its name.
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// A label key that became visible or invisible, in one namespace or everywhere.
pub type KeyChange = (Symbol, Option<Symbol>);

#[derive(Debug, Default)]
struct KeyUse {
    everywhere: u32,
    namespaces: FxHashMap<Symbol, u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Vocabulary {
    /// Strings.
    pub interner: Interner,
    /// Prefixes and address sets.
    pub prefixes: PrefixBook,
    /// DNS selectors.
    pub fqdns: FqdnBook,
    /// Selectors and whom they select.
    pub registry: Registry,
    /// The empty string.
    pub empty: Symbol,
    namespace_key: Symbol,
    namespace_name_key: Symbol,
    pod_keys: FxHashMap<Symbol, KeyUse>,
    node_keys: FxHashMap<Symbol, u32>,
    port_names: FxHashMap<Symbol, u32>,
    api_server_users: u32,
    changed_keys: FxHashSet<KeyChange>,
    changed_node_keys: bool,
    changed_port_names: bool,
}

impl Default for Vocabulary {
    fn default() -> Self {
        let mut interner = Interner::default();
        Self {
            empty: interner.intern(""),
            namespace_key: interner.intern(NAMESPACE_KEY),
            namespace_name_key: interner.intern(&format!("{NAMESPACE_LABELS}{METADATA_NAME}")),
            interner,
            prefixes: PrefixBook::new(),
            fqdns: FqdnBook::default(),
            registry: Registry::default(),
            pod_keys: FxHashMap::default(),
            node_keys: FxHashMap::default(),
            port_names: FxHashMap::default(),
            api_server_users: 0,
            changed_keys: FxHashSet::default(),
            changed_node_keys: false,
            changed_port_names: false,
        }
    }
}

impl Vocabulary {
    /// The selector of this content; counts a user. The address sets and DNS lists in it were acquired by the caller, who gives them up.
    pub fn acquire(&mut self, selector: &Selector) -> SelectorId {
        let (id, new) = self.registry.acquire(selector);
        if new {
            self.count_keys(selector, true);
        } else {
            self.release_parts(selector);
        }
        id
    }

    /// Takes back one [`Self::acquire`].
    pub fn release(&mut self, id: SelectorId, identities: &mut IdentityBook) {
        if let Some(selector) = self.registry.release(id, identities) {
            self.count_keys(&selector, false);
            self.release_parts(&selector);
        }
    }

    /// Takes back an [`Self::acquire`] that was not the only one.
    pub fn drop_duplicate(&mut self, id: SelectorId) {
        self.registry.unshare(id);
    }

    /// A rule uses this port name, or no longer does.
    pub fn count_port_name(&mut self, name: Symbol, used: bool) {
        self.changed_port_names |= count(self.port_names.entry(name).or_default(), used);
    }

    /// The key under which pods carry their namespace's name as a label of the namespace.
    #[must_use]
    pub const fn namespace_name_key(&self) -> Symbol {
        self.namespace_name_key
    }

    /// Whether some selector can see this label key on pods of this namespace.
    #[must_use]
    pub fn sees_pod_key(&self, key: Symbol, namespace: Symbol) -> bool {
        key == self.namespace_key
            || self.pod_keys.get(&key).is_some_and(|uses| {
                uses.everywhere > 0 || uses.namespaces.get(&namespace).is_some_and(|n| *n > 0)
            })
    }

    /// Whether some selector can see this label key on nodes.
    #[must_use]
    pub fn sees_node_key(&self, key: Symbol) -> bool {
        self.node_keys.get(&key).is_some_and(|uses| *uses > 0)
    }

    /// Whether some rule uses this port name.
    #[must_use]
    pub fn sees_port_name(&self, name: Symbol) -> bool {
        self.port_names.get(&name).is_some_and(|uses| *uses > 0)
    }

    /// Whether some selector tells the API server from others.
    #[must_use]
    pub const fn sees_api_server(&self) -> bool {
        self.api_server_users > 0
    }

    /// Pod label keys whose visibility changed; forgets them.
    pub fn take_changed_keys(&mut self) -> FxHashSet<KeyChange> {
        std::mem::take(&mut self.changed_keys)
    }

    /// Whether the visibility of node label keys changed; forgets it.
    pub fn take_changed_node_keys(&mut self) -> bool {
        std::mem::take(&mut self.changed_node_keys)
    }

    /// Whether the visibility of port names changed; forgets it.
    pub fn take_changed_port_names(&mut self) -> bool {
        std::mem::take(&mut self.changed_port_names)
    }

    /// What texts of identities are made of.
    #[must_use]
    pub const fn names(&self) -> Names<'_> {
        Names {
            interner: &self.interner,
            prefixes: &self.prefixes,
            fqdns: &self.fqdns,
        }
    }

    fn release_parts(&mut self, selector: &Selector) {
        match selector {
            Selector::Atom(atom) => self.release_atom(*atom),
            Selector::Fqdn(fqdn) => self.fqdns.release(*fqdn),
            Selector::Labels(_, requirements) => {
                for requirement in requirements {
                    match requirement.key {
                        Key::Atom(atom) => self.release_atom(atom),
                        Key::Fqdn(fqdn) => self.release_fqdn(fqdn),
                        _ => {}
                    }
                }
            }
            Selector::Reserved(_) | Selector::PortName(_) => {}
        }
    }

    fn release_atom(&mut self, atom: AtomId) {
        if atom != PrefixBook::API_SERVER {
            self.prefixes.release(atom);
        }
    }

    fn release_fqdn(&mut self, fqdn: FqdnId) {
        self.fqdns.release(fqdn);
    }

    fn count_keys(&mut self, selector: &Selector, used: bool) {
        match selector {
            Selector::Reserved(Reserved::ApiServer(_)) => self.count_api_server(used),
            Selector::Labels(domain, requirements) => {
                let reach = self.reach(requirements);
                for requirement in requirements {
                    match requirement.key {
                        Key::Pod(key) | Key::Any(key, _)
                            if *domain == Domain::Pods || *domain == Domain::All =>
                        {
                            self.count_pod_key(key, reach.as_deref(), used);
                        }
                        Key::Node(key) | Key::AnyNode(key, _) => {
                            let holders = self.node_keys.entry(key).or_default();
                            self.changed_node_keys |= count(holders, used);
                        }
                        Key::Reserved(Reserved::ApiServer(_)) => self.count_api_server(used),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn count_api_server(&mut self, used: bool) {
        count(&mut self.api_server_users, used);
    }

    fn count_pod_key(&mut self, key: Symbol, reach: Option<&[Symbol]>, used: bool) {
        let key_use = self.pod_keys.entry(key).or_default();
        let Some(namespaces) = reach else {
            if count(&mut key_use.everywhere, used) {
                self.changed_keys.insert((key, None));
            }
            return;
        };
        for &namespace in namespaces {
            if count(key_use.namespaces.entry(namespace).or_default(), used) {
                self.changed_keys.insert((key, Some(namespace)));
            }
        }
    }

    /// The namespaces whose pods the requirements can hold for, where they say so by name; `None` for any.
    fn reach(&self, requirements: &[Requirement]) -> Option<Vec<Symbol>> {
        let by_name = |requirement: &Requirement| match (&requirement.key, &requirement.test) {
            (Key::Pod(key) | Key::Any(key, _), Test::In(names))
                if *key == self.namespace_key || *key == self.namespace_name_key =>
            {
                Some(names.to_vec())
            }
            _ => None,
        };
        requirements
            .iter()
            .filter_map(by_name)
            .reduce(|mut reach, names| {
                reach.retain(|name| names.contains(name));
                reach
            })
    }
}

/// Counts a use up or down; whether it went from none to some or back.
const fn count(total: &mut u32, used: bool) -> bool {
    if used {
        *total += 1;
        *total == 1
    } else {
        *total -= 1;
        *total == 0
    }
}
