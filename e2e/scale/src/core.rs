//! The operator's core with a large cluster, in one process and without an API server: what it holds in memory, how long its first tables
//! take, and what one change costs then.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use serde_json::{Value, json};
use sluice_crds::parsed::{PolicyKind, PolicyRef};
use sluice_figures::report::Table;
use sluice_operator::core::{Cluster, Config, Input, PolicyKey, Pools, convert};
use sluice_stream::{Hub, Revision};

use crate::times::Times;

const NAMESPACES: usize = 100;
const NODES: usize = 1000;
const PODS: usize = 100_000;
const POLICIES: usize = 10_000;
/// Workloads in each namespace.
const APPS: usize = 100;
/// Changes of each kind that are timed.
const CHANGES: usize = 200;

/// Measures, and gives the section's text but for its first line.
pub(crate) async fn measure() -> Result<String> {
    let config = Config {
        namespace: "kube-system".to_owned(),
        pools: Pools::parse(&[
            "10.64.0.0/13+24".to_owned(),
            "fd00:10:244::/48+64".to_owned(),
        ])?,
        identity_grace: Duration::from_mins(10),
        ..Config::default()
    };
    let before = memory("VmRSS:")?;
    let mut operator = Operator {
        cluster: Cluster::new(config, []),
        hub: Hub::new(1),
    };
    let begun = Instant::now();
    operator.fill()?;
    let filled = begun.elapsed();
    let follower = memory("VmRSS:")?;

    let begun = Instant::now();
    operator.cluster.lead(Timestamp::now());
    operator.hub.lead(1);
    let step = operator.cluster.commit(Timestamp::now());
    let compiled = begun.elapsed();
    let batch = step.batch.context("the first batch")?;
    ensure!(step.errors.is_empty(), "{:?}", step.errors);
    let endpoints = batch.delta.endpoints.len();
    ensure!(endpoints == PODS, "{endpoints} endpoints of {PODS} pods");
    let (identities, tables) = (batch.delta.identities.len(), batch.delta.tables.len());
    let numbers = step.first.len();
    drop(step.first);
    let revision = operator.hub.publish(batch).await.revision;
    let published = begun.elapsed();
    operator.cluster.published(revision, Timestamp::now());
    let (leader, most) = (memory("VmRSS:")?, memory("VmHWM:")?);

    let policies = operator
        .changes(|number| policy(number * 7919 % POLICIES, 9000 + number))
        .await?;
    let pods = operator.changes(|number| pod(PODS + number)).await?;
    let after = memory("VmRSS:")?;

    let mut text = String::new();
    let _ = writeln!(
        text,
        "{PODS} pods, {NODES} nodes, {NAMESPACES} namespaces, {POLICIES} policies: {identities} identities, {tables} tables, \
         {numbers} numbers to store.\n"
    );
    let mut table = Table::new(&["", "time", "memory of the process"]);
    table.row(&[&"begun", &"", &format!("{before} MiB")]);
    table.row(&[
        &"everything read, as a follower (making the objects included)",
        &seconds(filled),
        &format!("{follower} MiB"),
    ]);
    table.row(&[&"leading: first tables compiled", &seconds(compiled), &""]);
    table.row(&[
        &"leading: published",
        &seconds(published),
        &format!("{leader} MiB, at most {most}"),
    ]);
    table.row(&[
        &format!(
            "a changed policy, commit and publication (of {})",
            policies.count()
        ),
        &format!(
            "p50 {:.2} ms, p99 {:.2} ms",
            policies.ms(50),
            policies.ms(99)
        ),
        &"",
    ]);
    table.row(&[
        &format!("one pod more, commit and publication (of {})", pods.count()),
        &format!("p50 {:.2} ms, p99 {:.2} ms", pods.ms(50), pods.ms(99)),
        &format!("{after} MiB"),
    ]);
    let _ = writeln!(text, "{table}");
    Ok(text)
}

struct Operator {
    cluster: Cluster,
    hub: Hub,
}

impl Operator {
    fn fill(&mut self) -> Result<()> {
        for number in 0..NAMESPACES {
            let labels = [("team".to_owned(), format!("t{}", number % 10))].into();
            self.cluster
                .apply(Input::Namespace(format!("ns{number}"), Some(labels)));
        }
        for number in 0..NODES {
            self.cluster.apply(node(number)?);
        }
        for number in 0..PODS {
            self.cluster.apply(pod(number)?);
        }
        for number in 0..POLICIES {
            self.cluster.apply(policy(number, 8080)?);
        }
        ensure!(
            self.cluster.counts().pods == PODS,
            "{:?}",
            self.cluster.counts()
        );
        ensure!(
            self.cluster.counts().invalid_policies == 0,
            "{:?}",
            self.cluster.counts()
        );
        Ok(())
    }

    async fn changes(&mut self, input: impl Fn(usize) -> Result<Input>) -> Result<Times> {
        let mut times = Times::default();
        for number in 0..CHANGES {
            let input = input(number)?;
            let begun = Instant::now();
            self.cluster.apply(input);
            let step = self.cluster.commit(Timestamp::now());
            let batch = step.batch.context("a change that changes something")?;
            let revision: Revision = self.hub.publish(batch).await.revision;
            times.add(begun.elapsed());
            self.cluster.published(revision, Timestamp::now());
        }
        Ok(times)
    }
}

fn node(number: usize) -> Result<Input> {
    let object: Node = serde_json::from_value(json!({
        "metadata": { "name": format!("node{number}"), "uid": format!("uid-node{number}") },
        "status": { "addresses": [{ "type": "InternalIP", "address": format!("172.20.{}.{}", number / 250, number % 250 + 1) }] },
    }))?;
    let (input, error) = convert::node(&object);
    ensure!(error.is_none(), "{error:?}");
    Ok(input)
}

fn pod(number: usize) -> Result<Input> {
    let (namespace, app, node) = (
        number % NAMESPACES,
        number / NAMESPACES % APPS,
        number % NODES,
    );
    let host = number / NODES + 2;
    let object: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("app{app}-7d9c5b8f6-{number:05x}"),
            "namespace": format!("ns{namespace}"),
            "uid": format!("{number:08x}-0000-4000-8000-000000000000"),
            "labels": { "app": format!("app{app}"), "pod-template-hash": "7d9c5b8f6", "tier": format!("t{}", app % 5) },
        },
        "spec": {
            "nodeName": format!("node{node}"),
            "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }],
        },
        "status": { "phase": "Running", "podIPs": [
            { "ip": format!("10.{}.{}.{host}", 64 + node / 256, node % 256) },
            { "ip": format!("fd00:10:244:{node:x}::{host:x}") },
        ] },
    }))?;
    let (input, error) = convert::pod(&object);
    ensure!(error.is_none(), "{error:?}");
    Ok(input)
}

/// A policy that selects ten pods; `port` tells its versions apart.
fn policy(number: usize, port: usize) -> Result<Input> {
    let (namespace, app) = (
        format!("ns{}", number % NAMESPACES),
        number / NAMESPACES % APPS,
    );
    let name = format!("p{number}");
    let id = PolicyRef {
        kind: PolicyKind::SluiceNetworkPolicy,
        namespace: Some(namespace.clone()),
        name: name.clone(),
    };
    let metadata: ObjectMeta = serde_json::from_value(
        json!({ "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": port }),
    )?;
    let data: Value = json!({ "spec": {
        "endpointSelector": { "matchLabels": { "app": format!("app{app}") } },
        "ingress": [{
            "fromEndpoints": [{ "matchLabels": { "app": format!("app{}", (app + 1) % APPS) } }],
            "toPorts": [{ "ports": [{ "port": "http", "protocol": "TCP" }, { "port": port.to_string(), "protocol": "TCP" }] }],
        }],
        "egress": [{
            "toEndpoints": [{ "matchLabels": { "app": format!("app{}", (app + APPS - 1) % APPS) } }],
        }, {
            "toCIDR": [format!("192.0.{}.0/24", number % 256)],
        }],
    } });
    Ok(convert::policy(
        PolicyKey::Policy(id),
        "sluice.io/v1",
        &metadata,
        data,
    ))
}

/// A field of this process's status, in MiB.
fn memory(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .context("a field of the status")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("a value")?.parse()?;
    Ok(kilobytes / 1024)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
