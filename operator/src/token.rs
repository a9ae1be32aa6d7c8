//! Who a token belongs to: asked of the API server, and remembered for a moment. What they may see is the hub's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    core::v1::Pod,
};
use kube::{Api, Client, api::PostParams};
use sluice_stream::{AuthError, Authenticate, EVERY_NODE};
use sluice_world::NodeName;

use crate::metrics::Metrics;

/// The audience that tokens must be made for.
pub const AUDIENCE: &str = "sluice-operator";
/// How long an answer is good for.
const REMEMBERED: Duration = Duration::from_secs(30);
/// The most answers that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Asks the API server.
pub struct TokenReviews {
    reviews: Api<TokenReview>,
    pods: Api<Pod>,
    agent: String,
    operator: String,
    known: Mutex<HashMap<String, (NodeName, Instant)>>,
    metrics: Metrics,
}

impl TokenReviews {
    /// Lets in agents, each for its node, and operators, of these service accounts of a namespace.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        agent: &str,
        operator: &str,
        metrics: Metrics,
    ) -> Self {
        let user = |account| format!("system:serviceaccount:{namespace}:{account}");
        Self {
            reviews: Api::all(client.clone()),
            pods: Api::namespaced(client, namespace),
            agent: user(agent),
            operator: user(operator),
            known: Mutex::default(),
            metrics,
        }
    }

    async fn ask(&self, token: &str) -> Result<NodeName, AuthError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            ..TokenReview::default()
        };
        let answer = self
            .reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| AuthError::Unavailable(error.to_string()))?;
        let status = answer.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            let why = status
                .error
                .unwrap_or_else(|| "it is not authentic".to_owned());
            return Err(AuthError::Refused(why));
        }
        // An authenticator that knows nothing of audiences says nothing of them: its word is not enough.
        let audiences = status.audiences.unwrap_or_default();
        if !audiences.iter().any(|audience| audience == AUDIENCE) {
            return Err(AuthError::Refused(format!(
                "it is not for the audience {AUDIENCE}"
            )));
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.clone().unwrap_or_default();
        if name == self.operator {
            return Ok(NodeName(EVERY_NODE.to_owned()));
        }
        if name != self.agent {
            return Err(AuthError::Refused(format!("{name} is no agent")));
        }
        self.node(&user).await
    }

    /// The node of the pod that a token is bound to.
    async fn node(&self, user: &UserInfo) -> Result<NodeName, AuthError> {
        let claim = |name: &str| {
            let values = user
                .extra
                .as_ref()?
                .get(&format!("authentication.kubernetes.io/{name}"))?;
            values.first().filter(|value| !value.is_empty())
        };
        if let Some(node) = claim("node-name") {
            return Ok(NodeName(node.clone()));
        }
        // API servers before 1.32 may not name the node.
        let pod = claim("pod-name")
            .ok_or_else(|| AuthError::Refused("it is bound to no pod".to_owned()))?;
        let found = self
            .pods
            .get_opt(pod)
            .await
            .map_err(|error| AuthError::Unavailable(error.to_string()))?
            .filter(|found| found.metadata.uid.as_ref() == claim("pod-uid"));
        let node = found
            .and_then(|pod| pod.spec)
            .and_then(|spec| spec.node_name);
        node.map(NodeName)
            .ok_or_else(|| AuthError::Refused(format!("its pod {pod} is gone, or on no node")))
    }

    fn remember(&self, token: &str, node: &NodeName) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        }
        if known.len() < MAX_REMEMBERED {
            known.insert(token.to_owned(), (node.clone(), Instant::now()));
        }
    }

    fn recall(&self, token: &str) -> Option<NodeName> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, since) = known.get(token)?;
        (since.elapsed() < REMEMBERED).then(|| node.clone())
    }
}

#[sluice_stream::async_trait]
impl Authenticate for TokenReviews {
    async fn node_of(&self, token: &str) -> Result<NodeName, AuthError> {
        if let Some(node) = self.recall(token) {
            return Ok(node);
        }
        let answer = self.ask(token).await;
        match &answer {
            Ok(node) => self.remember(token, node),
            Err(AuthError::Refused(why)) => {
                self.metrics.refused_tokens.inc();
                tracing::warn!(why, "a token is refused");
            }
            Err(AuthError::Unavailable(_)) => {}
        }
        answer
    }
}
