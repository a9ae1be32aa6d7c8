//! What one commit changes, typed as the kernel's maps are. Plain data: how it was found is the index's, how it is written is the
//! datapath's.

use std::sync::Arc;

use sluice_abi::{
    Cookie, Identity, Range, Scope,
    ipcache::{Address, AddressInfo, PrefixKey},
    policy::{AttributionKey, PeerCell, PeerKey},
    program::{Cell, Program, RangeKey},
};
use sluice_crds::parsed::PolicyRef;
use sluice_world::{NodeName, PodRef, PodUid, RuleRef};

use crate::rule::ProxyRule;

/// One commit's changes. **Fields are to be applied in their order**: whatever is referred to is written before what refers to it, new
/// identities have their entries in every table before any address moves to them, and what is no longer referred to goes last.
/// Ids that a delta drops are not given out again before the next delta, so a consumer that ends the old delta's grace period first
/// never sees an id with two meanings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New programs.
    pub programs: Vec<(u32, Program)>,
    /// Trie entries of new programs that are too long to be inline.
    pub ranges: Vec<(RangeKey, Cell)>,
    /// New attributions, slot by slot.
    pub attributions: Vec<(AttributionKey, Cookie)>,
    /// New redirects: what the proxy has to see to.
    pub redirects: Vec<(u32, Arc<RedirectSet>)>,
    /// New rules by cookie.
    pub cookies: Vec<(Cookie, RuleRef)>,
    /// New identities with their labels.
    pub identities: Vec<(Identity, Vec<String>)>,
    /// New and changed tables. Each is one atomic change.
    pub tables: Vec<TableDelta>,
    /// The greatest number of each range that all tables hold now; only ranges in which it grew.
    pub watermarks: Vec<(Range, Identity)>,
    /// Numbers of nodes that are new. A node keeps its number for the life of the index.
    pub nodes: Vec<(NodeName, u32)>,
    /// Prefixes; `None` takes one out.
    pub prefixes: Vec<(PrefixKey, Option<AddressInfo>)>,
    /// Exact addresses; `None` takes one out.
    pub addresses: Vec<(Address, Option<AddressInfo>)>,
    /// Pods; `None` for one that is gone.
    pub endpoints: Vec<(PodRef, Option<Endpoint>)>,
    /// Entries of identities that nobody has any more. Only now, since addresses had them until the lines above.
    pub retired_peers: Vec<PeerKey>,
    /// Tables that no endpoint uses any more; their entries go with them.
    pub dropped_tables: Vec<u32>,
    /// Programs that no entry uses any more.
    pub dropped_programs: Vec<u32>,
    /// Their trie entries.
    pub dropped_ranges: Vec<RangeKey>,
    /// Attributions that no entry uses any more.
    pub dropped_attributions: Vec<AttributionKey>,
    /// Redirects that no program uses any more.
    pub dropped_redirects: Vec<u32>,
    /// Rules that are gone. Their numbers are not reused.
    pub dropped_cookies: Vec<Cookie>,
    /// Identities that nobody has any more. Their numbers are not reused.
    pub dropped_identities: Vec<Identity>,
    /// What authors should know, for every policy that was read (again) by this commit; an empty list clears.
    pub warnings: Vec<(PolicyRef, Vec<Warning>)>,
    /// Objects that could not be taken in, with the reason. They fail closed: their addresses are unknown.
    pub errors: Vec<String>,
}

/// A change of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDelta {
    /// The table.
    pub id: u32,
    /// No endpoint has seen the table before: there is nothing to be atomic with.
    pub new: bool,
    /// The defaults, all of them, if any changed.
    pub defaults: Option<[PeerCell; Scope::COUNT]>,
    /// Entries that are new or different.
    pub set: Vec<(Identity, PeerCell)>,
    /// Entries that are gone, of identities still in use: the default holds for them from now on.
    pub removed: Vec<Identity>,
    /// Some traffic that passed is denied (or sees another proxy) from now on: such a change must not be lost to a full map.
    pub takes_access_away: bool,
}

impl TableDelta {
    /// Whether anything is different.
    #[must_use]
    pub const fn changes(&self) -> bool {
        self.defaults.is_some() || !self.set.is_empty() || !self.removed.is_empty()
    }
}

/// A pod as policy subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its identity, by its first address. Where policies by address block tell its addresses apart, `addresses` has each one's own.
    pub identity: Identity,
    /// Peer table for what it sends.
    pub egress: u32,
    /// Peer table for what it receives.
    pub ingress: u32,
    /// The number of its node.
    pub node: u32,
    /// Which of the pods that have had this name, where whoever publishes the delta knows: the compiler does not.
    pub uid: Option<PodUid>,
}

/// What a proxy has to do for one redirect: any of the rules lets a request pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedirectSet {
    /// The rules, the first of which is shown for the redirect itself.
    pub rules: Vec<(Cookie, Arc<ProxyRule>)>,
    /// Requests that no rule names pass: no policy makes the subject default-deny.
    pub pass_unmatched: bool,
}

/// What an author should know about a policy that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Warning {
    /// `fromGroups` or `toGroups`.
    #[error("cloud groups are not supported yet: the rule selects nothing")]
    CloudGroups,
    /// L7 rules, TLS, server names or a listener.
    #[error("no proxy serves L7, TLS or listener rules yet: traffic they redirect is dropped")]
    ProxyNotServed,
    /// `toFQDNs` or `domainNames`.
    #[error(
        "addresses of DNS names are not learned yet: the rule selects only addresses given by hand"
    )]
    FqdnNotLearned,
    /// `nodeSelector`.
    #[error("host policies are compiled but not enforced yet")]
    HostPolicy,
    /// `authentication.mode` other than `disabled`.
    #[error("mutual authentication is not supported yet: traffic that needs it is denied")]
    AuthenticationNotServed,
    /// A tier policy's peer without a known field.
    #[error(
        "a peer has no known field: an Accept rule matches nothing, a Deny or Pass rule denies all"
    )]
    PeerNotUnderstood,
    /// Another policy of the same tier has the same priority.
    #[error("another policy of this tier has the same priority: they are ordered by kind and name")]
    EqualPriority,
}
