//! What names were learned to resolve to, as a DNS proxy would have seen it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Addresses by DNS name. Names are lower case and without the trailing dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    names: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// Why a file of learned names can't be read.
#[derive(Debug, thiserror::Error)]
#[error("learned names: {0}; expected {{\"<name>\": [\"<address>\", …], …}}")]
pub struct LearnedError(#[from] serde_json::Error);

impl Learned {
    /// Reads `{"www.example.com": ["93.184.216.34"]}`.
    ///
    /// # Errors
    ///
    /// Where the text is not a JSON object of lists of IP addresses.
    pub fn parse(text: &str) -> Result<Self, LearnedError> {
        let written: BTreeMap<String, BTreeSet<IpAddr>> = serde_json::from_str(text)?;
        Ok(written.into_iter().collect())
    }

    /// Adds addresses to what a name is known to resolve to.
    pub fn insert(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
        self.names.entry(name).or_default().extend(addresses);
    }

    /// Every name with its addresses, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        self.names
            .iter()
            .map(|(name, addresses)| (name.as_str(), addresses))
    }

    /// The names that this address was learned for.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.iter()
            .filter(move |(_, addresses)| addresses.contains(&address))
            .map(|(name, _)| name)
    }
}

impl FromIterator<(String, BTreeSet<IpAddr>)> for Learned {
    fn from_iter<I: IntoIterator<Item = (String, BTreeSet<IpAddr>)>>(names: I) -> Self {
        let mut learned = Self::default();
        for (name, addresses) in names {
            learned.insert(&name, addresses);
        }
        learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_merged() {
        let learned =
            Learned::parse(r#"{"WWW.example.com.":["1.2.3.4"],"www.example.com":["2001:db8::1"]}"#)
                .unwrap();
        let names: Vec<_> = learned.iter().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].0, "www.example.com");
        assert_eq!(names[0].1.len(), 2);
        assert_eq!(learned.names_of("2001:db8::1".parse().unwrap()).count(), 1);
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        assert!(Learned::parse(r#"{"a.b":["nowhere"]}"#).is_err());
    }
}
