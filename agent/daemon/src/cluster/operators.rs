//! Where operators are and how they are recognised: as last heard, also by an earlier process, so that an agent finds its operator while the
//! API server is down. Who tells may not enter.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};
use sluice_stream::client::Source;
use tracing::{info, warn};

/// What is known of the operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heard {
    addresses: Vec<SocketAddr>,
    /// The certificates of their authority, as PEM.
    authority: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Operators {
    heard: Arc<RwLock<Heard>>,
    /// Where it is written down; nowhere for what was given by hand.
    path: Option<PathBuf>,
}

impl Operators {
    /// Operators that are looked for, beginning with those of an earlier process.
    #[must_use]
    pub fn remembered(path: PathBuf) -> Self {
        let heard = match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(heard)) => heard,
            Ok(Err(error)) => {
                warn!(path = %path.display(), %error, "where operators were can't be read: looking for them");
                Heard::default()
            }
            Err(_) => Heard::default(),
        };
        Self {
            heard: Arc::new(RwLock::new(heard)),
            path: Some(path),
        }
    }

    /// Operators given by hand.
    #[must_use]
    pub fn given(addresses: Vec<SocketAddr>, authority: String) -> Self {
        Self {
            heard: Arc::new(RwLock::new(Heard {
                addresses,
                authority,
            })),
            path: None,
        }
    }

    /// They are here now.
    pub fn set_addresses(&self, mut addresses: Vec<SocketAddr>) {
        addresses.sort();
        // While all are away the last ones known may come back.
        if !addresses.is_empty() {
            self.change(|heard| heard.addresses = addresses);
        }
    }

    /// Their authority's certificates are these now.
    pub fn set_authority(&self, authority: String) {
        if !authority.is_empty() {
            self.change(|heard| heard.authority = authority);
        }
    }

    /// For the subscription.
    #[must_use]
    pub fn addresses(&self) -> Source<Vec<SocketAddr>> {
        let heard = Arc::clone(&self.heard);
        Arc::new(move || {
            let known = read(&heard).addresses;
            if known.is_empty() {
                Err("no operator is known: service sluice-operator has no ready endpoint, or the API server can't be reached".to_owned())
            } else {
                Ok(known)
            }
        })
    }

    /// For the subscription.
    #[must_use]
    pub fn authority(&self) -> Source<String> {
        let heard = Arc::clone(&self.heard);
        Arc::new(move || {
            let known = read(&heard).authority;
            if known.is_empty() {
                Err("the operators' authority is not known: ConfigMap sluice-ca is missing, or the API server can't be reached".to_owned())
            } else {
                Ok(known)
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        let mut heard = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        let before = heard.clone();
        change(&mut heard);
        if *heard == before {
            return;
        }
        info!(addresses = ?heard.addresses, "operators");
        if let Some(path) = &self.path
            && let Err(error) = keep(path, &heard)
        {
            warn!(path = %path.display(), %error, "where operators are can't be written down");
        }
    }
}

fn read(heard: &RwLock<Heard>) -> Heard {
    heard.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn keep(path: &Path, heard: &Heard) -> io::Result<()> {
    let half = path.with_extension("new");
    fs::write(&half, serde_json::to_vec(heard)?)?;
    fs::rename(half, path)
}

/// The token that says which node this is. The kubelet renews it in its file, so it is read each time.
#[derive(Clone, Debug)]
pub struct Tokens(pub PathBuf);

impl Tokens {
    /// For the subscription.
    #[must_use]
    pub fn source(&self) -> Source<String> {
        let path = self.0.clone();
        Arc::new(move || {
            fs::read_to_string(&path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("the token at {}: {error}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_known_to_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators.json");
        let operators = Operators::remembered(path.clone());
        assert!(operators.addresses()().is_err());
        let address: SocketAddr = "192.0.2.1:4245".parse().unwrap();
        operators.set_addresses(vec![address]);
        operators.set_authority("PEM".to_owned());
        // Nobody there, for a moment: the last ones stay.
        operators.set_addresses(vec![]);
        let next = Operators::remembered(path);
        assert_eq!(next.addresses()(), Ok(vec![address]));
        assert_eq!(next.authority()(), Ok("PEM".to_owned()));
    }

    #[test]
    fn a_token_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = Tokens(path.clone()).source();
        assert!(source().is_err());
        for token in ["one", "two"] {
            fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(source(), Ok(token.to_owned()));
        }
    }
}
