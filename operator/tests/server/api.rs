//! An API server in memory, as far as the operator uses one: objects by path, resource versions, watches that start where a list ended.
//! It streams no lists, as servers before 1.32 do not.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Where an object is: `group/version`, plural, namespace, name.
type Place = (String, String, Option<String>, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Place, Value>,
    version: u64,
    /// All that happened: version, group/version and plural, event.
    history: Vec<(u64, (String, String), Value)>,
    down: bool,
    /// Kinds of others that are installed: by `group/version`.
    guests: BTreeMap<String, Vec<String>>,
    /// What is said of tokens.
    reviews: BTreeMap<String, Value>,
    /// Requests: method and path.
    log: Vec<String>,
}

/// See the module. Clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    pub(crate) fn review(&self, token: &str, status: Value) {
        self.state().reviews.insert(token.to_owned(), status);
    }

    pub(crate) fn install(&self, group: &str, kinds: &[&str]) {
        let kinds = kinds.iter().map(ToString::to_string).collect();
        self.state().guests.insert(group.to_owned(), kinds);
    }

    pub(crate) fn requests(&self, with: &str) -> usize {
        self.state()
            .log
            .iter()
            .filter(|line| line.contains(with))
            .count()
    }

    /// Puts an object in, as a user or another controller would.
    pub(crate) fn put(&self, api: &str, plural: &str, object: Value) {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().map(str::to_owned);
        let name = metadata["name"].as_str().unwrap().to_owned();
        let place = (api.to_owned(), plural.to_owned(), namespace, name);
        self.state().put(&place, object);
    }

    pub(crate) fn get(
        &self,
        api: &str,
        plural: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Value> {
        let place = (
            api.to_owned(),
            plural.to_owned(),
            namespace.map(str::to_owned),
            name.to_owned(),
        );
        self.state().objects.get(&place).cloned()
    }

    pub(crate) fn all(&self, api: &str, plural: &str) -> Vec<Value> {
        let state = self.state();
        let of = state
            .objects
            .iter()
            .filter(|(place, _)| place.0 == api && place.1 == plural);
        of.map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn remove(&self, api: &str, plural: &str, namespace: Option<&str>, name: &str) {
        let place = (
            api.to_owned(),
            plural.to_owned(),
            namespace.map(str::to_owned),
            name.to_owned(),
        );
        self.state().remove(&place);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> Result<Answer, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().trim_start_matches('/').to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        self.state().log.push(format!("{} /{path}", parts.method));
        if self.state().down {
            return Ok(status(503, "ServiceUnavailable", "down"));
        }
        let segments: Vec<&str> = path.split('/').collect();
        let (api, rest) = match segments[..] {
            ["api", version, ..] => (version.to_owned(), &segments[2..]),
            ["apis", group, version, ..] => (format!("{group}/{version}"), &segments[3..]),
            _ => return Ok(status(404, "NotFound", "no such path")),
        };
        if rest.is_empty() {
            return Ok(self.resources(&api));
        }
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, ..] if !plural.is_empty() => {
                (Some((*namespace).to_owned()), &rest[2..])
            }
            _ => (None, rest),
        };
        let plural = rest[0].to_owned();
        let Some(name) = rest.get(1) else {
            return Ok(match parts.method {
                Method::POST if plural == "tokenreviews" => self.token(body),
                Method::POST => self.create((api, plural, namespace, String::new()), body),
                _ if query.contains("watch=") => self.watch(api, plural, namespace, &query),
                _ => self.list(&api, &plural, namespace.as_deref()),
            });
        };
        let place = (api, plural, namespace, (*name).to_owned());
        let subresource = rest.get(2).copied();
        Ok(self.one(&parts.method, &place, subresource, body))
    }

    fn resources(&self, api: &str) -> Answer {
        let state = self.state();
        let Some(kinds) = state.guests.get(api) else {
            return status(404, "NotFound", "no such group");
        };
        let resources: Vec<Value> = kinds
            .iter()
            .map(|kind| {
                json!({ "name": format!("{}s", kind.to_lowercase()), "singularName": "", "kind": kind, "namespaced": true, "verbs": [] })
            })
            .collect();
        reply(
            200,
            &json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": resources }),
        )
    }

    fn token(&self, mut review: Value) -> Answer {
        let token = review["spec"]["token"].as_str().unwrap().to_owned();
        let unknown = json!({ "authenticated": false, "error": "unknown token" });
        review["status"] = self.state().reviews.get(&token).cloned().unwrap_or(unknown);
        reply(201, &review)
    }

    fn create(&self, mut place: Place, object: Value) -> Answer {
        let mut state = self.state();
        object["metadata"]["name"]
            .as_str()
            .unwrap()
            .clone_into(&mut place.3);
        if state.objects.contains_key(&place) {
            return status(409, "AlreadyExists", "it is there");
        }
        reply(201, &state.put(&place, object))
    }

    fn one(
        &self,
        method: &Method,
        place: &Place,
        subresource: Option<&str>,
        body: Value,
    ) -> Answer {
        let mut state = self.state();
        let found = state.objects.get(place).cloned();
        match (method.as_str(), found) {
            ("GET", Some(object)) => reply(200, &object),
            ("DELETE", Some(object)) => {
                state.remove(place);
                reply(200, &object)
            }
            ("PUT", Some(object)) => {
                let given = &body["metadata"]["resourceVersion"];
                if !given.is_null() && *given != object["metadata"]["resourceVersion"] {
                    return status(409, "Conflict", "changed meanwhile");
                }
                reply(200, &state.put(place, body))
            }
            ("PATCH", found) => {
                if found.is_none() && subresource.is_some() {
                    return status(404, "NotFound", "not there");
                }
                let mut object = found.unwrap_or_else(|| json!({}));
                let patch = match subresource {
                    Some(name) => json!({ name: body[name].clone() }),
                    None => body,
                };
                merge(&mut object, patch);
                reply(200, &state.put(place, object))
            }
            _ => status(404, "NotFound", "not there"),
        }
    }

    fn list(&self, api: &str, plural: &str, namespace: Option<&str>) -> Answer {
        let state = self.state();
        let of = |place: &Place| {
            place.0 == api
                && place.1 == plural
                && (namespace.is_none() || place.2.as_deref() == namespace)
        };
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(place, _)| of(place))
            .map(|(_, object)| object)
            .collect();
        reply(
            200,
            &json!({ "kind": "List", "apiVersion": api, "metadata": { "resourceVersion": state.version.to_string() }, "items": items }),
        )
    }

    fn watch(&self, api: String, plural: String, namespace: Option<String>, query: &str) -> Answer {
        if query.contains("sendInitialEvents") {
            return status(422, "Invalid", "sendInitialEvents is forbidden");
        }
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .map_or(0, |version| version.parse().unwrap());
        let server = self.clone();
        let what = (api, plural);
        let frames = stream::unfold((from, server, what), move |(from, server, what)| {
            let namespace = namespace.clone();
            async move {
                loop {
                    let next = {
                        let state = server.state();
                        let of = |event: &&(u64, (String, String), Value)| {
                            let place = event.2["object"]["metadata"]["namespace"].as_str();
                            event.0 > from
                                && event.1 == what
                                && (namespace.is_none() || place == namespace.as_deref())
                        };
                        state
                            .history
                            .iter()
                            .find(of)
                            .map(|event| (event.0, event.2.to_string()))
                    };
                    if let Some((version, line)) = next {
                        let frame = http_body::Frame::data(Bytes::from(line + "\n"));
                        return Some((Ok::<_, Infallible>(frame), (version, server, what)));
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames.boxed())))
    }
}

impl State {
    fn put(&mut self, place: &Place, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(place);
        let generation = before.map_or(1, |before| {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
            generation + i64::from(before["spec"] != object["spec"])
        });
        let uid = before.map_or_else(
            || json!(format!("uid-{}", self.version)),
            |before| before["metadata"]["uid"].clone(),
        );
        let event = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["generation"] = json!(generation);
        if metadata["uid"].is_null() {
            metadata["uid"] = uid;
        }
        self.objects.insert(place.clone(), object.clone());
        self.tell(place, event, &object);
        object
    }

    fn remove(&mut self, place: &Place) {
        if let Some(object) = self.objects.remove(place) {
            self.version += 1;
            self.tell(place, "DELETED", &object);
        }
    }

    fn tell(&mut self, place: &Place, event: &str, object: &Value) {
        let what = (place.0.clone(), place.1.clone());
        self.history.push((
            self.version,
            what,
            json!({ "type": event, "object": object }),
        ));
    }
}

/// As JSON merge patches have it, which is what server-side apply comes to for objects with one owner.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

fn reply(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string()));
    Response::builder()
        .status(code)
        .body(UnsyncBoxBody::new(body))
        .unwrap()
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    reply(
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message }),
    )
}
