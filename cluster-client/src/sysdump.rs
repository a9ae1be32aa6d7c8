//! Everything that helps to find a fault, in one archive: objects, logs, what agents say. Never secrets: kinds that hold them are not
//! asked for, and fields that may hold them are blanked.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, LogParams},
};
use serde_json::{Value, json};
use tar::{Builder, Header};

use crate::{Error, agent, facts, objects::list_all, status};

/// Pods of Sluice.
const SELECTOR: &str = "app.kubernetes.io/name=sluice";
/// What stands in place of what may be secret.
const BLANK: &str = "(left out)";

/// What is taken up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lines of each log, counted from its end.
    pub log_lines: i64,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files in the archive.
    pub files: usize,
    /// What could not be had, and why. It is in the archive as well.
    pub missing: Vec<String>,
}

/// A kind of objects, and where its objects are taken from.
struct Kind {
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    from: From,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// The whole cluster; a cluster without the kind is fine.
    Cluster,
    /// Sluice's namespace, those with its label.
    Own,
    /// Sluice's namespace, all.
    Namespace,
}

const fn kind(
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    from: From,
) -> Kind {
    Kind {
        api_version,
        name,
        plural,
        from,
    }
}

/// No kind here is meant to hold secrets. Secrets are not here, and neither are `ConfigMap`s, which people put everything into.
const KINDS: &[Kind] = &[
    kind("v1", "Node", "nodes", From::Cluster),
    kind("v1", "Namespace", "namespaces", From::Cluster),
    kind("v1", "Pod", "pods", From::Own),
    kind("v1", "Service", "services", From::Own),
    kind("v1", "Event", "events", From::Namespace),
    kind("apps/v1", "Deployment", "deployments", From::Own),
    kind("apps/v1", "DaemonSet", "daemonsets", From::Own),
    kind("coordination.k8s.io/v1", "Lease", "leases", From::Namespace),
    kind(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "endpointslices",
        From::Own,
    ),
    kind(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "networkpolicies",
        From::Cluster,
    ),
    kind("sluice.io/v1", "Identity", "identities", From::Cluster),
    kind("sluice.io/v1", "SluiceNode", "sluicenodes", From::Cluster),
    kind(
        "sluice.io/v1",
        "SluiceEndpoint",
        "sluiceendpoints",
        From::Cluster,
    ),
    kind(
        "sluice.io/v1",
        "SluiceNetworkPolicy",
        "sluicenetworkpolicies",
        From::Cluster,
    ),
    kind(
        "sluice.io/v1",
        "SluiceClusterwideNetworkPolicy",
        "sluiceclusterwidenetworkpolicies",
        From::Cluster,
    ),
    kind(
        "sluice.io/v1",
        "SluiceCIDRGroup",
        "sluicecidrgroups",
        From::Cluster,
    ),
    kind(
        "cilium.io/v2",
        "CiliumNetworkPolicy",
        "ciliumnetworkpolicies",
        From::Cluster,
    ),
    kind(
        "cilium.io/v2",
        "CiliumClusterwideNetworkPolicy",
        "ciliumclusterwidenetworkpolicies",
        From::Cluster,
    ),
    kind(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "clusternetworkpolicies",
        From::Cluster,
    ),
    kind(
        "policy.networking.k8s.io/v1alpha1",
        "AdminNetworkPolicy",
        "adminnetworkpolicies",
        From::Cluster,
    ),
    kind(
        "policy.networking.k8s.io/v1alpha1",
        "BaselineAdminNetworkPolicy",
        "baselineadminnetworkpolicies",
        From::Cluster,
    ),
];

/// Writes the archive to `path`, a `.tar.gz` that only its owner may read. What can't be had is noted in it; a cluster that is ill must
/// still give what it can.
///
/// # Errors
/// The file can't be written, or is there already.
pub async fn write(
    client: &Client,
    namespace: Option<&str>,
    path: &Path,
    options: Options,
    tell: &dyn Fn(&str),
) -> Result<Written, Error> {
    let namespace = match namespace {
        Some(namespace) => namespace.to_owned(),
        None => facts::find_namespace(client).await,
    };
    let now = Timestamp::now();
    let folder = path.file_name().map_or_else(
        || "sluice-sysdump".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let folder = folder
        .trim_end_matches(".tar.gz")
        .trim_end_matches(".tgz")
        .to_owned();
    let mut dump = Dump::create(path, folder, now)?;
    tell("objects");
    objects(client, &namespace, &mut dump).await?;
    tell("status");
    let report = status::status(client, Some(&namespace), false).await;
    dump.json("status.json", report.map(|report| json!(report)))?;
    let version = client
        .apiserver_version()
        .await
        .map_err(Error::api("asking for the version"));
    dump.json(
        "version.json",
        version.map(|version| json!({"server": version, "sluice": env!("CARGO_PKG_VERSION")})),
    )?;
    tell("logs");
    logs(client, &namespace, options, &mut dump).await?;
    tell("agents");
    agents(client, &namespace, &mut dump).await?;
    dump.finish(path)
}

async fn objects(client: &Client, namespace: &str, dump: &mut Dump) -> Result<(), Error> {
    for kind in KINDS {
        let (group, version) = kind
            .api_version
            .rsplit_once('/')
            .unwrap_or(("", kind.api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: kind.api_version.to_owned(),
            kind: kind.name.to_owned(),
            plural: kind.plural.to_owned(),
        };
        let api: Api<DynamicObject> = match kind.from {
            From::Cluster => Api::all_with(client.clone(), &resource),
            From::Own | From::Namespace => {
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
        };
        let parameters = match kind.from {
            From::Own => ListParams::default().labels(SELECTOR),
            From::Cluster | From::Namespace => ListParams::default(),
        };
        let listed = list_all(&api, &parameters, &format!("listing {}", kind.plural)).await;
        if listed
            .as_ref()
            .is_err_and(|error| error.code() == Some(404))
        {
            continue;
        }
        let cleaned = listed.map(|list| {
            let objects = list
                .into_iter()
                .filter_map(|object| serde_json::to_value(object).ok());
            Value::Array(objects.map(cleaned).collect())
        });
        dump.json(&format!("objects/{}.json", kind.plural), cleaned)?;
    }
    Ok(())
}

async fn logs(
    client: &Client,
    namespace: &str,
    options: Options,
    dump: &mut Dump,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = list_all(
        &api,
        &ListParams::default().labels(SELECTOR),
        "listing Sluice's pods",
    )
    .await;
    let pods = match pods {
        Ok(pods) => pods,
        Err(error) => return dump.text("logs", Err(error)),
    };
    for pod in pods {
        let name = pod.name_any();
        let containers = pod.spec.iter().flat_map(|spec| {
            spec.init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
        });
        for container in containers {
            for previous in [false, true] {
                if previous && !has_restarted(&pod, &container.name) {
                    continue;
                }
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(options.log_lines),
                    timestamps: true,
                    ..LogParams::default()
                };
                let file = format!(
                    "logs/{name}/{}{}.log",
                    container.name,
                    if previous { ".previous" } else { "" }
                );
                let log = api.logs(&name, &parameters).await;
                dump.text(
                    &file,
                    log.map_err(Error::api(format!("reading the log of {name}"))),
                )?;
            }
        }
    }
    Ok(())
}

fn has_restarted(pod: &Pod, container: &str) -> bool {
    let statuses = pod.status.iter().flat_map(|status| {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
    });
    statuses
        .into_iter()
        .any(|status| status.name == container && status.restart_count > 0)
}

async fn agents(client: &Client, namespace: &str, dump: &mut Dump) -> Result<(), Error> {
    let pods = match agent::pods(client, namespace).await {
        Ok(pods) => pods,
        Err(error) => return dump.text("agents", Err(error)),
    };
    for (node, pod) in pods {
        for (what, file) in [
            ("status", "status.json"),
            ("endpoints", "endpoints.json"),
            ("nodes", "nodes.json"),
            ("metrics", "metrics.txt"),
        ] {
            let said = agent::show(client, &pod, what).await;
            let unreachable = said.is_err();
            dump.text(&format!("agents/{node}/{file}"), said)?;
            if unreachable {
                break;
            }
        }
    }
    Ok(())
}

/// An object without what nobody reads and without what may be secret.
fn cleaned(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            // The whole object once more, what is blanked below included.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    if let Some(last) = object.pointer_mut("/status/lastValid") {
        let blanked = last
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
            .map(|mut spec: Value| {
                blank(&mut spec);
                spec
            });
        *last = blanked.unwrap_or_else(|| json!(BLANK));
    }
    blank(&mut object);
    object
}

/// Blanks values of HTTP headers, which may be tokens, and of variables of containers.
fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &mut *field) {
                    ("headerMatches" | "env", Value::Array(entries)) => {
                        for entry in entries {
                            if let Some(value) = entry.get_mut("value") {
                                *value = json!(BLANK);
                            }
                        }
                    }
                    ("headers", Value::Array(entries)) => {
                        for entry in entries {
                            *entry = json!(BLANK);
                        }
                    }
                    _ => blank(field),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(blank),
        _ => {}
    }
}

/// The archive on its way.
struct Dump {
    archive: Builder<GzEncoder<File>>,
    folder: String,
    at: u64,
    written: Written,
}

impl Dump {
    fn create(path: &Path, folder: String, now: Timestamp) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io(format!("creating {}", path.display())))?;
        Ok(Self {
            archive: Builder::new(GzEncoder::new(file, Compression::default())),
            folder,
            at: u64::try_from(now.as_second()).unwrap_or(0),
            written: Written::default(),
        })
    }

    fn json(&mut self, name: &str, content: Result<Value, Error>) -> Result<(), Error> {
        self.text(name, content.map(|value| format!("{value:#}\n")))
    }

    fn text(&mut self, name: &str, content: Result<String, Error>) -> Result<(), Error> {
        match content {
            Ok(text) => self
                .append(name, text.as_bytes())
                .map_err(Error::io(format!("writing {name}"))),
            Err(error) => {
                self.written.missing.push(format!("{name}: {error}"));
                Ok(())
            }
        }
    }

    fn append(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(self.at);
        self.written.files += 1;
        self.archive
            .append_data(&mut header, format!("{}/{name}", self.folder), content)
    }

    fn finish(mut self, path: &Path) -> Result<Written, Error> {
        let doing = || format!("writing {}", path.display());
        if !self.written.missing.is_empty() {
            let missing = self.written.missing.join("\n") + "\n";
            self.append("missing.txt", missing.as_bytes())
                .map_err(Error::io(doing()))?;
        }
        let encoder = self.archive.into_inner().map_err(Error::io(doing()))?;
        let mut file = encoder.finish().map_err(Error::io(doing()))?;
        file.flush().map_err(Error::io(doing()))?;
        Ok(self.written)
    }
}
