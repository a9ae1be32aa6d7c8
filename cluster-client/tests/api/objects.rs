//! Lists, against an API server that gives them in pages.

use crate::support::{Server, refusal};
use serde_json::{Value, json};
use sluice_client::objects::{self, Scope};

fn identity(number: u32, namespace: &str) -> Value {
    json!({"apiVersion": "sluice.io/v1", "kind": "Identity", "metadata": {"name": number.to_string()},
        "spec": {"number": number, "namespace": namespace, "labels": {"app": "web"}}, "status": {"endpoints": 2}})
}

const IDENTITIES: &str = "/apis/sluice.io/v1/identities";

#[tokio::test]
async fn every_page_is_read_and_identities_come_by_number() {
    let page = |token: &str, items: &[Value]| json!({"kind": "IdentityList", "apiVersion": "sluice.io/v1", "metadata": {"continue": token}, "items": items});
    let server = Server::default()
        .answer(IDENTITIES, 200, &page("next", &[identity(1000, "shop")]))
        .answer(
            IDENTITIES,
            200,
            &page("", &[identity(300, "shop"), identity(400, "bank")]),
        );
    let rows = objects::identities(&server.client(), &Scope::All)
        .await
        .unwrap();
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, [300, 400, 1000]);
    assert_eq!(rows[0].labels, ["app=web"]);
    assert!(
        server.asked()[1].contains("continue=next"),
        "{:?}",
        server.asked()
    );
}

#[tokio::test]
async fn identities_of_one_namespace_are_those_of_its_pods() {
    let server =
        Server::default().list(IDENTITIES, &[identity(300, "shop"), identity(400, "bank")]);
    let rows = objects::identities(&server.client(), &Scope::Namespace("bank".to_owned()))
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].number, 400);
}

#[tokio::test]
async fn endpoints_are_asked_for_where_they_are_wanted() {
    let endpoint = json!({"apiVersion": "sluice.io/v1", "kind": "SluiceEndpoint",
        "metadata": {"name": "web-0", "namespace": "shop"},
        "spec": {"podUID": "u", "node": "n1", "identity": 300, "addresses": ["10.0.0.1", "fd00::1"], "state": "ready"}});
    let server = Server::default().list(
        "/apis/sluice.io/v1/namespaces/shop/sluiceendpoints",
        &[endpoint],
    );
    let rows = objects::endpoints(&server.client(), &Scope::Namespace("shop".to_owned()))
        .await
        .unwrap();
    assert_eq!(rows[0].name, "web-0");
    assert_eq!(rows[0].addresses, ["10.0.0.1", "fd00::1"]);
}

#[tokio::test]
async fn a_refusal_says_what_was_asked() {
    let server = Server::default().answer(
        "/apis/sluice.io/v1/sluicenodes",
        403,
        &refusal(403, "Forbidden"),
    );
    let error = objects::nodes(&server.client()).await.unwrap_err();
    assert_eq!(error.code(), Some(403));
    assert!(
        error.to_string().starts_with("listing nodes of Sluice: "),
        "{error}"
    );
}
