//! An API server that answers by path, as a test tells it to. Paths that it was not told of are not there.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// What is answered to the requests of one path, in their order; the last answer is given again and again.
type Answers = BTreeMap<String, Vec<(u16, String)>>;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Server {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers the next request of this path so.
    pub(crate) fn answer(self, path: &str, code: u16, body: &Value) -> Self {
        self.text(path, code, &body.to_string())
    }

    /// Answers the next request of this path with this text.
    pub(crate) fn text(self, path: &str, code: u16, body: &str) -> Self {
        let entry = (code, body.to_owned());
        self.answers
            .lock()
            .unwrap()
            .entry(path.to_owned())
            .or_default()
            .push(entry);
        self
    }

    /// Answers with these objects as a list.
    pub(crate) fn list(self, path: &str, items: &[Value]) -> Self {
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
        self.answer(path, 200, &list)
    }

    /// What was asked: method, path and query.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = server.respond(request.method(), request.uri());
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "shop")
    }

    fn respond(&self, method: &http::Method, uri: &http::Uri) -> Response<Body> {
        self.asked.lock().unwrap().push(format!("{method} {uri}"));
        let mut answers = self.answers.lock().unwrap();
        let (code, body) = match answers.get_mut(uri.path()) {
            Some(left) if left.len() > 1 => left.remove(0),
            Some(left) => left[0].clone(),
            None => (404, refusal(404, "NotFound").to_string()),
        };
        Response::builder()
            .status(code)
            .body(Body::from(body.into_bytes()))
            .unwrap()
    }
}

/// What an API server says where it refuses.
pub(crate) fn refusal(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": reason})
}
