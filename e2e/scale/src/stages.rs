//! What is done to the cluster and measured of it, one function each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use kube::api::DynamicObject;
use sluice_world::PodRef;

use crate::{
    cluster::Server,
    fleet::{Fleet, LocalPod, Mark},
    harness::{self, Harness},
    operators::Operators,
    times::Times,
    world::{self, World},
};

/// A change that takes longer is no figure but a fault.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pause before a change, so that what the last one left to do does not count.
const PAUSE: Duration = Duration::from_millis(150);

/// All that stages work on.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) server: Server,
    pub(crate) operators: Operators,
    pub(crate) fleet: Fleet,
    /// Blocks of each node.
    pub(crate) blocks: Vec<Vec<IpNet>>,
    /// How many addresses each node has given out.
    pub(crate) given: Vec<usize>,
    /// The next port that a policy opens.
    pub(crate) ports: AtomicU16,
    /// The port that each policy opens now.
    pub(crate) open: BTreeMap<usize, u16>,
}

/// From a first write on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    /// Until the API server had taken the last.
    pub(crate) written: Duration,
    /// Until the last agent had acknowledged the last of it.
    pub(crate) enforced: Duration,
    /// Until every policy's status said so.
    pub(crate) told: Duration,
}

/// How long repeated changes took: until the API server had answered, and until the last agent had acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) answered: Times,
    pub(crate) enforced: Times,
}

impl Scene {
    fn port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes all pods and policies at once.
    pub(crate) async fn load(&mut self) -> Result<Loaded> {
        for namespace in self.world.namespaces() {
            let object = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
            self.server.create(&object).await?;
        }
        self.wait_for_accounts().await?;
        for policy in 0..self.world.policies {
            self.open.insert(policy, self.port());
        }
        let begun = Instant::now();
        let scene = &*self;
        let pods = Server::each(0..scene.world.pods, |pod| scene.start_pod(pod));
        let policies = Server::each(0..scene.world.policies, |policy| async move {
            let object = scene.world.policy(policy, scene.open[&policy]);
            scene.server.create(&object).await.map(drop)
        });
        futures::try_join!(pods, policies)?;
        for pod in 0..self.world.pods {
            self.given[self.world.node_of(pod)] += 1;
        }
        let written = begun.elapsed();
        let told = self.server.all_enforced(Duration::from_mins(5)).await? - begun;
        let enforced = self.quiet().await? - begun;
        self.check_ports()?;
        Ok(Loaded {
            written,
            enforced,
            told,
        })
    }

    /// Pods can't be made before their namespace has its service account.
    async fn wait_for_accounts(&self) -> Result<()> {
        let wanted = self.world.namespaces();
        let begun = Instant::now();
        loop {
            let found = harness::json(&[
                "get",
                "serviceaccounts",
                "--all-namespaces",
                "--field-selector=metadata.name=default",
            ])?;
            let have: BTreeSet<&str> = found["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| item["metadata"]["namespace"].as_str())
                .collect();
            if wanted
                .iter()
                .all(|namespace| have.contains(namespace.as_str()))
            {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "namespaces have no service accounts"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn start_pod(&self, pod: usize) -> Result<()> {
        let node = self.world.node_of(pod);
        let object = world::pod(pod, &world::node_name(node));
        let made = self.server.create(&object).await?;
        // Places on a node are given out in the order of its pods.
        let addresses = world::addresses(&self.blocks[node], 2 + pod / self.world.nodes);
        let (namespace, name) = world::pod_name(pod);
        self.fleet
            .add_pod(node, local(namespace, name, &made, addresses.clone()));
        self.server
            .set_status(&object, &world::running(&addresses))
            .await
    }

    /// Waits until nothing moves any more; when the last agent acknowledged the last of it.
    pub(crate) async fn quiet(&self) -> Result<Instant> {
        self.operators
            .until(
                "nothing is pending and no agent is behind",
                PATIENCE,
                |gauges| {
                    gauges.get("pending_policies") == Some(0)
                        && gauges.get("writes_waiting") == Some(0)
                },
            )
            .await?;
        let mut last = self.fleet.last_acknowledgement();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.fleet.last_acknowledgement();
            if now == last {
                return now.context("no agent has acknowledged anything");
            }
            last = now;
        }
    }

    /// Every policy's port is open at every agent that it concerns: nothing is lost.
    pub(crate) fn check_ports(&self) -> Result<()> {
        let mut held: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
        for (policy, port) in &self.open {
            for agent in self.world.nodes_of(*policy) {
                let ports = held.entry(agent).or_insert_with(|| self.fleet.ports(agent));
                ensure!(
                    ports.contains(port),
                    "policy {policy} with its port {port} has not come to {}",
                    world::node_name(agent)
                );
            }
        }
        Ok(())
    }

    /// Changes one policy after another, each of some pods.
    pub(crate) async fn change_policies(&mut self, count: usize) -> Result<Changes> {
        let mut changes = Changes::default();
        for number in 0..count {
            // Far apart, so that neighbours don't share what a change touches.
            let policy = number * 7919 % self.world.policies;
            let port = self.port();
            let object = self.world.policy(policy, port);
            self.open.insert(policy, port);
            let concerned = self.world.nodes_of(policy);
            self.change(&object, Mark::Port(port), &concerned, &mut changes)
                .await?;
        }
        Ok(changes)
    }

    /// Changes the policy of all pods, again and again.
    pub(crate) async fn change_fleet_policy(&mut self, count: usize) -> Result<Changes> {
        self.server.apply(&world::fleet_policy(self.port())).await?;
        self.quiet().await?;
        let mut changes = Changes::default();
        let everyone = self.fleet.all();
        for _ in 0..count {
            let port = self.port();
            let object = world::fleet_policy(port);
            self.change(&object, Mark::Port(port), &everyone, &mut changes)
                .await?;
        }
        Ok(changes)
    }

    /// Makes and deletes policies that divide identities: tables first, then pods move, each acknowledged by everyone.
    pub(crate) async fn relabel(&mut self, count: usize) -> Result<Changes> {
        let moved = (0..self.world.pods)
            .find(|pod| pod % 2 == 1)
            .context("a pod that moves")?;
        let address = world::addresses(
            &self.blocks[self.world.node_of(moved)],
            2 + moved / self.world.nodes,
        )[0];
        let everyone = self.fleet.all();
        let mut changes = Changes::default();
        for number in 0..count {
            let object = world::dividing_policy(number);
            self.change(&object, Mark::Address(address), &everyone, &mut changes)
                .await?;
            let gone = self.fleet.watch_for(Mark::Address(address));
            self.server.delete(&object).await?;
            self.fleet.seen(gone, &everyone, PATIENCE).await?;
        }
        Ok(changes)
    }

    async fn change(
        &mut self,
        object: &serde_json::Value,
        mark: Mark,
        concerned: &BTreeSet<usize>,
        changes: &mut Changes,
    ) -> Result<()> {
        tokio::time::sleep(PAUSE).await;
        let mark = self.fleet.watch_for(mark);
        let begun = Instant::now();
        self.server.apply(object).await?;
        changes.answered.add(begun.elapsed());
        let last = self.fleet.seen(mark, concerned, PATIENCE).await?;
        changes.enforced.add(last.saturating_duration_since(begun));
        Ok(())
    }

    /// Starts pods whose identities are new: when every agent knows the identity, and when the address.
    pub(crate) async fn new_identities(&mut self, count: usize) -> Result<(Times, Times)> {
        let (mut identities, mut addresses) = (Times::default(), Times::default());
        let everyone = self.fleet.all();
        for number in 0..count {
            tokio::time::sleep(PAUSE).await;
            let node = number % self.world.nodes;
            let place = 2 + self.given[node];
            self.given[node] += 1;
            let given = world::addresses(&self.blocks[node], place);
            let (name, object) = world::fresh_pod(number, &world::node_name(node));
            let identity = self
                .fleet
                .watch_for(Mark::Identity(format!("={}", world::fresh_label(number))));
            let begun = Instant::now();
            let made = self.server.create(&object).await?;
            let last = self.fleet.seen(identity, &everyone, PATIENCE).await?;
            identities.add(last.saturating_duration_since(begun));
            // Its interface is there now, and its agent says so.
            let address = self.fleet.watch_for(Mark::Address(given[0]));
            let begun = Instant::now();
            let namespace = object["metadata"]["namespace"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            self.fleet
                .add_pod(node, local(namespace, name, &made, given.clone()));
            let last = self.fleet.seen(address, &everyone, PATIENCE).await?;
            addresses.add(last.saturating_duration_since(begun));
            self.server
                .set_status(&object, &world::running(&given))
                .await?;
        }
        Ok((identities, addresses))
    }

    /// Agents that start anew are given what those before them had gathered.
    pub(crate) async fn compare(&mut self, count: usize) -> Result<usize> {
        self.quiet().await?;
        let step = (self.world.nodes / count.max(1)).max(1);
        let mut compared = 0;
        for agent in (0..self.world.nodes).step_by(step) {
            self.fleet.replace(agent).await?;
            compared += 1;
        }
        Ok(compared)
    }
}

/// What a leader's death cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeOver {
    /// Policies that had been written when it died.
    pub(crate) written_before: usize,
    /// Until another one led.
    pub(crate) leads: Duration,
    /// Until every agent had the last change.
    pub(crate) enforced: Duration,
    /// Until every policy's status said so.
    pub(crate) told: Duration,
}

impl Scene {
    /// Changes all policies, kills the leader on the way, and waits until everything has come through all the same.
    pub(crate) async fn kill_leader(&mut self) -> Result<TakeOver> {
        self.quiet().await?;
        let leader = self.operators.leader().await.context("nobody leads")?;
        for policy in 0..self.world.policies {
            let port = self.port();
            self.open.insert(policy, port);
        }
        let third = self.world.policies / 3;
        self.apply_policies(0..third).await?;
        let died = self.operators.kill(leader)?;
        self.apply_policies(third..self.world.policies).await?;
        self.operators
            .new_leader(Some(leader), false, PATIENCE)
            .await?;
        let leads = died.elapsed();
        self.operators.revive()?;
        let told = self.server.all_enforced(Duration::from_mins(5)).await? - died;
        let enforced = self.quiet().await? - died;
        self.check_ports()?;
        Ok(TakeOver {
            written_before: third,
            leads,
            enforced,
            told,
        })
    }

    async fn apply_policies(&self, policies: std::ops::Range<usize>) -> Result<()> {
        Server::each(policies, |policy| async move {
            self.server
                .apply(&self.world.policy(policy, self.open[&policy]))
                .await
                .map(drop)
        })
        .await
    }
}

/// What an outage of the API server cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) lasted: Duration,
    /// From the server's return until an operator led.
    pub(crate) leads: Duration,
    /// From the first change after it until it was in force everywhere.
    pub(crate) enforced: Duration,
    /// How often agents connected because of it.
    pub(crate) connections: usize,
}

impl Scene {
    /// Takes the API server away for a while.
    pub(crate) async fn outage(&mut self, harness: &Harness, lasts: Duration) -> Result<Outage> {
        self.quiet().await?;
        let connections = self.fleet.connections();
        tokio::task::block_in_place(|| harness.stop_api_server())?;
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            self.operators.revive()?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Operators that came back without an API server must not have told anybody anything.
        self.check_ports().context("during the outage")?;
        tokio::task::block_in_place(|| harness.start_api_server())?;
        let back = Instant::now();
        let lasted = begun.elapsed();
        self.operators
            .new_leader(None, true, Duration::from_mins(2))
            .await?;
        let leads = back.elapsed();
        let port = self.port();
        self.open.insert(0, port);
        let object = self.world.policy(0, port);
        let mut changes = Changes::default();
        let concerned = self.world.nodes_of(0);
        self.change(&object, Mark::Port(port), &concerned, &mut changes)
            .await?;
        self.server.all_enforced(Duration::from_mins(2)).await?;
        self.check_ports()?;
        Ok(Outage {
            lasted,
            leads,
            enforced: Duration::from_secs_f64(changes.enforced.ms(50) / 1e3),
            connections: self.fleet.connections() - connections,
        })
    }
}

fn local(
    namespace: String,
    name: String,
    made: &DynamicObject,
    addresses: Vec<std::net::IpAddr>,
) -> LocalPod {
    LocalPod {
        pod: PodRef { namespace, name },
        uid: made.metadata.uid.clone().unwrap_or_default(),
        addresses,
    }
}
