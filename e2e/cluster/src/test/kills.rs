//! Everything that can die is killed in turn while traffic is counted. However often: what policy admits loses nothing, what it
//! denies does not come through, new pods wait rather than leak, and the cluster comes back to following policy.

mod judge;
mod scene;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sluice_cluster::{Cluster, Machine};

use self::{
    judge::{Counted, Expected, faults},
    scene::{Role, Scene},
};
use super::sluice::{self, Sluice};
use crate::commands::say;

const PATIENCE: Duration = Duration::from_secs(90);
/// So long a request may wait for its answer before it counts as lost, and a little more.
const SETTLED: Duration = Duration::from_secs(5);
/// An agent is hung this long before it is killed.
const HUNG: Duration = Duration::from_secs(3);
/// What "within seconds" means for pods and relabels while a node's agent is gone: no wait of the operator for it is longer than 5 s.
const SOON: Duration = Duration::from_secs(20);
/// From so many kills on, the API server is away for a minute at the end.
const MANY: u16 = 100;

/// What is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Victim {
    Agent,
    OperatorLeader,
    Containerd,
    Kubelet,
    ApiServer,
}

const VICTIMS: [Victim; 5] = [
    Victim::Agent,
    Victim::OperatorLeader,
    Victim::Containerd,
    Victim::Kubelet,
    Victim::ApiServer,
];
/// Those that there are without Sluice.
const FOREIGN: [Victim; 3] = [Victim::Containerd, Victim::Kubelet, Victim::ApiServer];

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "the agent",
            Self::OperatorLeader => "the leading operator",
            Self::Containerd => "containerd",
            Self::Kubelet => "the kubelet",
            Self::ApiServer => "the API server",
        })
    }
}

/// The victim and the node of a turn: each victim on each node in turn.
fn turn_of(turn: u16, victims: &[Victim], nodes: u8) -> (Victim, u8) {
    let kinds = u16::try_from(victims.len()).unwrap_or(1);
    let node = turn / kinds % u16::from(nodes);
    (
        victims[usize::from(turn % kinds)],
        u8::try_from(node).unwrap_or_default() + 1,
    )
}

/// Without Sluice: the cluster comes back each time.
pub(super) fn of_the_bridge(cluster: &Cluster, count: u16) -> Result<()> {
    for turn in 0..count {
        let (victim, node) = turn_of(turn, &FOREIGN, cluster.options().nodes);
        let what = format!("kill {} of {count}: {victim} (node{node})", turn + 1);
        say(&what);
        kill_foreign(cluster, victim, node)
            .and_then(|()| came_back(cluster))
            .context(what)?;
    }
    Ok(())
}

/// With Sluice, while traffic is counted.
pub(super) fn run(sluice: &Sluice<'_>, count: u16) -> Result<()> {
    let mut scene = Scene::make(sluice)?;
    let mut run = Run {
        last: steady(&scene)?,
        scene: &mut scene,
        began: Instant::now(),
    };
    for turn in 0..count {
        run.turn(turn, count)?;
    }
    let away = Duration::from_secs(if count >= MANY { 60 } else { 15 });
    run.everything_without_the_api_server(away)?;
    run.one_agent_gone_for_good()?;
    run.upgraded_and_rolled_back()?;
    run.tell(count);
    scene.remove()
}

/// Waits until everything flows as expected; what was before does not count.
fn steady(scene: &Scene<'_>) -> Result<Counted> {
    let begin = Instant::now();
    loop {
        let before = scene.counted()?;
        thread::sleep(Duration::from_secs(2));
        let after = scene.counted()?;
        let faults = faults(&before, &after, scene.expected());
        if faults.is_empty() {
            return Ok(after);
        }
        if begin.elapsed() > PATIENCE {
            bail!("before the first kill: {}", faults.join("\n  "));
        }
    }
}

struct Run<'r, 'a> {
    scene: &'r mut Scene<'a>,
    /// The counts that were judged last.
    last: Counted,
    began: Instant,
}

impl<'a> Run<'_, 'a> {
    fn turn(&mut self, turn: u16, count: u16) -> Result<()> {
        let (victim, node) = turn_of(turn, &VICTIMS, self.cluster().options().nodes);
        let what = format!("kill {} of {count}: {victim} (node{node})", turn + 1);
        say(&what);
        let begin = Instant::now();
        let late = match victim {
            Victim::Agent => Some(
                self.kill_agent_while_pods_start(turn, node)
                    .context(what.clone())?,
            ),
            Victim::OperatorLeader => {
                kill_leader(self.cluster()).context(what.clone())?;
                None
            }
            _ => {
                kill_foreign(self.cluster(), victim, node).context(what.clone())?;
                None
            }
        };
        self.converge(turn.is_multiple_of(2))
            .context(what.clone())?;
        self.judge().context(what.clone())?;
        if let Some(late) = late {
            for pod in late {
                self.scene.end(&pod)?;
            }
            self.last = self.scene.counted()?;
        }
        say(&format!(
            "  converged and judged {:.1} s after",
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Pods that are made on a node whose agent hangs must wait; when it was killed and is back, they start, and what one of them may
    /// not send it doesn't, from its first packet on.
    fn kill_agent_while_pods_start(&mut self, turn: u16, node: u8) -> Result<Vec<String>> {
        let machine = Machine::Node(node);
        let agents = ["pkill", "-STOP", "-x", "sluice-agent"];
        self.cluster()
            .exec(machine, &agents)
            .context("hanging the agent")?;
        let late = [
            (format!("late-stranger-{turn}"), Role::Stranger),
            (format!("late-mute-{turn}"), Role::Mute),
        ];
        for (name, role) in &late {
            self.scene.start(name, *role, node)?;
        }
        thread::sleep(HUNG);
        for (name, _) in &late {
            ensure!(
                !self.scene.runs(name)?,
                "the pod {name} runs, and nobody connected it"
            );
        }
        let killed = self.cluster().kill_processes(machine, "sluice-agent")?;
        ensure!(killed > 0, "no agent ran on {machine}");
        for (name, _) in &late {
            self.scene.ready(name, PATIENCE)?;
        }
        Ok(late.into_iter().map(|(name, _)| name).collect())
    }

    /// Nodes, agents and operators are back, and a policy that is changed now is followed everywhere.
    fn converge(&self, open: bool) -> Result<()> {
        came_back(self.cluster())?;
        sluice::wait_rolled_out(self.cluster())?;
        self.scene.switch(open)?;
        self.scene.is_switched(open)
    }

    /// Holds what was counted since the last time against what must be.
    fn judge(&mut self) -> Result<()> {
        thread::sleep(SETTLED);
        let now = self.scene.counted()?;
        let faults = faults(&self.last, &now, self.scene.expected());
        ensure!(
            faults.is_empty(),
            "traffic went otherwise than policy says:\n  {}",
            faults.join("\n  ")
        );
        self.last = now;
        Ok(())
    }

    /// The API server is away; an agent and the leading operator are killed and start again without it.
    fn everything_without_the_api_server(&mut self, away: Duration) -> Result<()> {
        say(&format!(
            "the API server is away for {} s, an agent and the leading operator are killed",
            away.as_secs()
        ));
        let leader = leader(self.cluster())?;
        let cluster = self.cluster();
        let begin = Instant::now();
        cluster.stop_api_server()?;
        for (node, name) in [(1, "sluice-agent"), (leader, "sluice-operator")] {
            let killed = cluster.kill_processes(Machine::Node(node), name)?;
            ensure!(killed > 0, "no {name} ran on node{node}");
        }
        thread::sleep(away.saturating_sub(begin.elapsed()));
        self.judge().context("while the API server was away")?;
        cluster.start_api_server()?;
        self.converge(true)
            .context("after the API server was away")?;
        self.judge().context("after the API server was away")
    }

    /// The last node's agent is stopped for good: pods elsewhere start, and a pod that changes its labels is soon judged by the new
    /// ones.
    fn one_agent_gone_for_good(&mut self) -> Result<()> {
        let node = self.cluster().options().nodes;
        if node < 2 {
            return Ok(());
        }
        let machine = Machine::Node(node);
        say(&format!("the agent of {machine} is gone for good"));
        // Its kubelet would start it again.
        self.cluster().stop(machine, "kubelet")?;
        self.cluster().kill_processes(machine, "sluice-agent")?;
        let outcome = self.start_and_relabel(node);
        self.cluster().start(machine, "kubelet")?;
        outcome.with_context(|| format!("while the agent of {machine} is gone"))?;
        self.converge(false)
            .context("after an agent was gone for good")?;
        self.judge().context("after an agent was gone for good")
    }

    fn start_and_relabel(&mut self, gone: u8) -> Result<()> {
        let name = "late-relabelled";
        let begin = Instant::now();
        self.scene.start(name, Role::Stranger, 1)?;
        self.scene.ready(name, SOON)?;
        say(&format!(
            "  a pod elsewhere was ready after {:.1} s",
            begin.elapsed().as_secs_f64()
        ));
        self.judge()?;
        let begin = Instant::now();
        self.scene.relabel(name, Role::Client)?;
        while !self.scene.is_answered_except_on(gone, name)? {
            ensure!(
                begin.elapsed() < SOON,
                "{:.1} s after its labels changed a pod is still not admitted: {:?}",
                begin.elapsed().as_secs_f64(),
                self.scene.report(name)?
            );
            thread::sleep(Duration::from_millis(50));
        }
        say(&format!(
            "  a relabelled pod was admitted after {:.1} s",
            begin.elapsed().as_secs_f64()
        ));
        self.scene.end(name)?;
        self.last = self.scene.counted()?;
        Ok(())
    }

    /// Every operator and agent is replaced by one with other settings, and then by one with those of before.
    fn upgraded_and_rolled_back(&mut self) -> Result<()> {
        say("the release is upgraded, and rolled back");
        sluice::upgrade(self.cluster(), "log.level=debug")?;
        self.converge(true).context("after the upgrade")?;
        self.judge().context("after the upgrade")?;
        sluice::roll_back(self.cluster())?;
        self.converge(false).context("after the rollback")?;
        self.judge().context("after the rollback")
    }

    fn cluster(&self) -> &'a Cluster {
        self.scene.cluster()
    }

    fn tell(&self, count: u16) {
        let expected = self.scene.expected();
        let (sent, answered) = self.last.sums(expected, Expected::Passes);
        let (tried, through) = self.last.sums(expected, Expected::Nothing);
        say(&format!(
            "{} kills in {:.0} s: {answered} of {sent} admitted requests answered (the rest on their way), none lost, the slowest after \
             {} ms; {through} of {tried} denied ones came through",
            u32::from(count) + 3,
            self.began.elapsed().as_secs_f64(),
            self.last.worst_ms()
        ));
    }
}

fn kill_foreign(cluster: &Cluster, victim: Victim, node: u8) -> Result<()> {
    let (machine, service) = match victim {
        Victim::Containerd => (Machine::Node(node), "containerd"),
        Victim::Kubelet => (Machine::Node(node), "kubelet"),
        _ => (Machine::ControlPlane, "kube-apiserver"),
    };
    cluster.kill(machine, service)?;
    cluster.wait_service(machine, service, PATIENCE)?;
    if victim == Victim::ApiServer {
        cluster.wait_api_server(PATIENCE)?;
    }
    Ok(())
}

fn kill_leader(cluster: &Cluster) -> Result<()> {
    let node = leader(cluster)?;
    let killed = cluster.kill_processes(Machine::Node(node), "sluice-operator")?;
    ensure!(
        killed > 0,
        "the leading operator is said to be on node{node}, and none ran there"
    );
    Ok(())
}

/// The node of the operator that leads.
fn leader(cluster: &Cluster) -> Result<u8> {
    let kubectl = cluster.kubectl();
    let lease = kubectl.json(&["get", "lease", "sluice-operator", sluice::NAMESPACE])?;
    // `<pod>_<run>@<where it serves>`
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let pod = holder.split('_').next().unwrap_or_default();
    ensure!(!pod.is_empty(), "nobody leads: {lease}");
    let pod = kubectl.json(&["get", "pod", pod, sluice::NAMESPACE])?;
    let node = pod["spec"]["nodeName"]
        .as_str()
        .and_then(|node| node.strip_prefix("node"));
    node.and_then(|number| number.parse().ok())
        .with_context(|| format!("the leader's pod is on no node: {pod}"))
}

/// All nodes say that they are Ready; one that has just died may still say so.
fn came_back(cluster: &Cluster) -> Result<()> {
    Ok(cluster.wait_ready(PATIENCE)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_victim_dies_on_every_node() {
        let turns: BTreeSet<String> = (0..15)
            .map(|turn| format!("{:?}", turn_of(turn, &VICTIMS, 3)))
            .collect();
        assert_eq!(turns.len(), 15);
        assert_eq!(turn_of(0, &VICTIMS, 3), (Victim::Agent, 1));
        assert_eq!(turn_of(199, &VICTIMS, 3), (Victim::ApiServer, 1));
    }
}
