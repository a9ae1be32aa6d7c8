//! The world that policy is judged in, normalised: what pods, nodes, namespaces, services and policies there are, with every address
//! and node assigned; and the questions and answers of `sluice policy eval`.
//!
//! Both evaluators and the compiler start from here, so nothing that gives policy a meaning may enter: no selector matching, no
//! namespace defaults, no precedence.
#![forbid(unsafe_code)]

pub mod answer;
pub mod builder;
pub mod learned;
pub mod model;
mod protocol;
pub mod query;
pub mod world;

pub use answer::{Answer, Mode, Reason, RuleRef, Section, Side, SideVerdict};
pub use builder::{BuildError, Inputs, Workload, build, build_after};
pub use learned::{Learned, LearnedError};
pub use model::{
    CidrGroup, ContainerPort, Labels, Namespace, Node, NodeName, Pod, PodRef, PodUid, Policy,
    Service, ServiceRef, WorldItem,
};
pub use protocol::protocol_name;
pub use query::{AddressBook, HttpRequest, QueriesError, Query, QueryError, QueryParser, Target};
pub use world::World;
