#![forbid(unsafe_code)]
//! Every Kubernetes object Sluice understands, three ways: as it is *written* ([`policy`] and its siblings: loose types
//! that serde and the API server read), as it is *meant* ([`parsed`]: types in which a wrong policy can't be expressed),
//! and the one road between them ([`validate`], used by the strict manifest reader in [`manifest`]).
//!
//! This crate is a leaf: it does no I/O, knows no cluster and does not evaluate anything. What a selector *matches* is
//! deliberately left to the two evaluators, so that they can disagree and be compared.

pub mod crd;
pub mod manifest;
pub mod parsed;
pub mod policy;
pub mod resources;
pub mod validate;
