//! The archive: what is in it, and what never is.

use std::{
    collections::BTreeMap, fs::File, io::Read as _, os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use crate::support::{Server, refusal};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sluice_client::sysdump::{self, Options};

const SECRET: &str = "hunter2";

/// A path that is free, and again when the value is gone.
struct Archive(PathBuf);

impl Archive {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("sluice-dump-{name}-{}.tar.gz", std::process::id())))
    }

    fn files(&self) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(&self.0).unwrap()));
        let read = |entry: std::io::Result<tar::Entry<_>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (name.split_once('/').unwrap().1.to_owned(), text)
        };
        archive.entries().unwrap().map(read).collect()
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "sluice-operator-1", "namespace": "net", "managedFields": [{"manager": "x"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": SECRET, "kept": "yes"}},
        "spec": {"containers": [{"name": "operator", "env": [{"name": "TOKEN", "value": SECRET}]}]},
        "status": {"containerStatuses": [{"name": "operator", "restartCount": 1, "ready": true, "image": "", "imageID": ""}]}})
}

fn policy() -> Value {
    let rules = json!({"http": [{"headerMatches": [{"name": "Authorization", "value": SECRET}], "headers": [format!("X-Key {SECRET}")]}]});
    let spec = json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"rules": rules}]}]});
    json!({"apiVersion": "sluice.io/v1", "kind": "SluiceNetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec, "status": {"lastValid": json!({"spec": spec}).to_string()}})
}

fn server() -> Server {
    Server::default()
        .list("/api/v1/namespaces/net/pods", &[pod()])
        .list("/apis/sluice.io/v1/sluicenetworkpolicies", &[policy()])
        .answer("/apis/sluice.io/v1/identities", 403, &refusal(403, "Forbidden"))
        .text("/api/v1/namespaces/net/pods/sluice-operator-1/log", 200, "the log\n")
        .answer("/version", 200, &json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}))
}

async fn dump(server: &Server, archive: &Archive) -> sysdump::Written {
    let options = Options { log_lines: 10 };
    sysdump::write(&server.client(), Some("net"), &archive.0, options, &|_| {})
        .await
        .unwrap()
}

#[tokio::test]
async fn objects_and_logs_are_there_and_secrets_are_not() {
    let (server, archive) = (server(), Archive::new("whole"));
    let written = dump(&server, &archive).await;
    let files = archive.files();
    assert_eq!(written.files, files.len());
    assert_eq!(files["logs/sluice-operator-1/operator.log"], "the log\n");
    assert!(files.contains_key("logs/sluice-operator-1/operator.previous.log"));
    assert!(files["objects/pods.json"].contains("\"kept\": \"yes\""));
    assert!(files["objects/sluicenetworkpolicies.json"].contains("Authorization"));
    assert!(files["version.json"].contains("v1.37.0"));
    for (name, text) in &files {
        assert!(!text.contains(SECRET), "{name}: {text}");
        assert!(!text.contains("managedFields"), "{name}");
    }
    // Nothing that holds secrets is even asked for.
    assert!(server.asked().iter().all(|path| !path.contains("/secrets")));
    let mode = std::fs::metadata(&archive.0).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_could_not_be_had_is_told_and_noted() {
    let (server, archive) = (server(), Archive::new("partial"));
    let written = dump(&server, &archive).await;
    let identities = written
        .missing
        .iter()
        .find(|missing| missing.starts_with("objects/identities.json"));
    assert!(
        identities.is_some_and(|missing| missing.contains("Forbidden")),
        "{:?}",
        written.missing
    );
    let files = archive.files();
    assert!(files["missing.txt"].contains("objects/identities.json"));
    // A kind that the cluster lacks is nothing to speak of.
    assert!(!files["missing.txt"].contains("ciliumnetworkpolicies"));
}

#[tokio::test]
async fn no_file_is_written_over() {
    let (server, archive) = (server(), Archive::new("taken"));
    std::fs::write(&archive.0, "mine").unwrap();
    let options = Options { log_lines: 10 };
    let result = sysdump::write(&server.client(), Some("net"), &archive.0, options, &|_| {}).await;
    assert!(result.unwrap_err().to_string().contains("creating"));
    assert_eq!(std::fs::read_to_string(&archive.0).unwrap(), "mine");
}
