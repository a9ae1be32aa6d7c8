//! What can be wrong with objects that are each well-formed: their names, addresses and numbers taken together.

use std::net::IpAddr;

/// Why objects do not make a world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An object without a name.
    #[error("{0}: metadata.name is missing")]
    Unnamed(&'static str),
    /// Two objects, or an object and a pod made for a workload, of the same name.
    #[error(
        "{0} is there twice; names of pods made for a workload are <workload>-<number> or, for a DaemonSet, <workload>-<node>"
    )]
    Duplicate(String),
    /// Two holders of one address.
    #[error("address {address} belongs to both {first} and {second}")]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// One holder.
        first: String,
        /// The other.
        second: String,
    },
    /// A field that can't be read.
    #[error("{object}: {field}: {value:?} {expected}")]
    Field {
        /// Kind and name.
        object: String,
        /// Path of the field.
        field: String,
        /// What is written there.
        value: String,
        /// What should be, as the end of the sentence.
        expected: &'static str,
    },
    /// No address is left in the range that a pod's or node's address comes from.
    #[error("no address is left in {range} for {holder}")]
    Exhausted {
        /// The range.
        range: String,
        /// Who needed one.
        holder: String,
    },
}

impl BuildError {
    pub(crate) fn field(
        object: &impl ToString,
        field: &str,
        value: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        Self::Field {
            object: object.to_string(),
            field: field.to_owned(),
            value: value.into(),
            expected,
        }
    }
}
