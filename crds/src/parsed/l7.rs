//! What a proxy has to know: HTTP and DNS rules, TLS contexts, listeners, authentication.

use super::FqdnSelector;

/// L7 rules of one port rule: of one protocol, OR'd, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum L7Rules {
    /// HTTP requests. TCP only.
    Http(Vec<HttpRule>),
    /// DNS questions. Egress only.
    Dns(Vec<FqdnSelector>),
}

/// A regular expression that compiles within the size limit. It matches the whole text (anchored at both ends), which the
/// evaluator that compiles it has to see to: see [`HttpRegex::anchored`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpRegex(pub(crate) String);

impl HttpRegex {
    /// An expression that a reader has accepted before, as another process sent it.
    #[must_use]
    pub const fn accepted(text: String) -> Self {
        Self(text)
    }

    /// As written in the policy.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The expression to compile, anchored at both ends.
    #[must_use]
    pub fn anchored(&self) -> String {
        format!("^(?:{})$", self.0)
    }
}

/// One HTTP rule: everything given must hold; the empty rule allows every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpRule {
    /// Over the path.
    pub path: Option<HttpRegex>,
    /// Over the method.
    pub method: Option<HttpRegex>,
    /// Over the host header.
    pub host: Option<HttpRegex>,
    /// Headers that must be there.
    pub headers: Vec<Header>,
    /// Headers with what to do where they don't match.
    pub header_matches: Vec<HeaderMatch>,
}

/// A header that must be present, with this value where one is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// The exact value, where one is asked for.
    pub value: Option<String>,
}

/// What to do with a request whose header does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mismatch {
    /// Let it pass, and log.
    Log,
    /// Add the header.
    Add,
    /// Remove the header.
    Delete,
    /// Replace the header, or add it.
    Replace,
}

/// One entry of `headerMatches`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The header's name.
    pub name: String,
    /// The exact value; also the fallback where the secret can't be found.
    pub value: Option<String>,
    /// A secret holding the value.
    pub secret: Option<SecretRef>,
    /// `None`: the rule does not match, so that the request is dropped unless another rule allows it.
    pub mismatch: Option<Mismatch>,
}

/// A Kubernetes secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    /// Its namespace, where written.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Keys and certificates for one side of an intercepted connection. Names are items of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsContext {
    /// The secret.
    pub secret: SecretRef,
    /// The trusted CA; `ca.crt` where not given.
    pub trusted_ca: Option<String>,
    /// The certificate chain; `tls.crt` where not given.
    pub certificate: Option<String>,
    /// The private key; `tls.key` where not given.
    pub private_key: Option<String>,
}

/// Where a custom listener is defined.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvoyConfigRef {
    /// The kind of the object, where written.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
}

/// A custom proxy listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// Where it is defined.
    pub envoy_config: EnvoyConfigRef,
    /// Its name there.
    pub name: String,
    /// 1 to 100, lower wins; `None` is after all of these.
    pub priority: Option<u8>,
}

/// Mutual authentication asked of allowed traffic. Ordered: the later is the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Authentication {
    /// None, even where another rule would ask for it by default.
    Disabled,
    /// Both ends prove who they are.
    Required,
    /// Always fails; for tests.
    TestAlwaysFail,
}
