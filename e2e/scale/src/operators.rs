//! The operator's replicas, as processes with the rights that the chart gives them. A replica that ends is started again after a second,
//! as the kubelet would. What they do is not known here.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::cluster::Server;

/// The name in operators' certificates, and the audience of tokens for them.
pub(crate) const NAME: &str = "sluice-operator";
/// Stream, webhook and health of the first replica; each next one's are 10 further on.
const PORTS: [u16; 3] = [4245, 4246, 4247];

/// What every replica is started with.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) address: IpAddr,
    pub(crate) pools: String,
}

impl Program {
    /// Writes the kubeconfig and the token that replicas run with.
    pub(crate) async fn prepare(&self, server: &Server, admin: &Path) -> Result<()> {
        let text =
            fs::read_to_string(admin).with_context(|| format!("reading {}", admin.display()))?;
        let mut config: Value =
            serde_json::from_str(&text).context("the administrator's kubeconfig")?;
        config["users"] =
            json!([{ "name": "user", "user": { "token": server.token(NAME, None, &[]).await? } }]);
        self.write("kubeconfig", &config.to_string())?;
        self.write("token", &server.token(NAME, None, &[NAME]).await?)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// One replica.
#[derive(Debug)]
struct Replica {
    number: u16,
    child: Child,
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All replicas.
#[derive(Debug)]
pub(crate) struct Operators {
    program: Program,
    replicas: Vec<Replica>,
}

/// What a replica's metrics say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges(String);

impl Gauges {
    /// The value of `sluice_operator_<name>`.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        let prefix = format!("sluice_operator_{name} ");
        let line = self.0.lines().find_map(|line| line.strip_prefix(&prefix))?;
        line.trim().parse().ok()
    }
}

impl Operators {
    /// Starts so many replicas.
    pub(crate) fn start(program: Program, count: u16) -> Result<Self> {
        let replicas = (0..count)
            .map(|number| replica(&program, number))
            .collect::<Result<_>>()?;
        Ok(Self { program, replicas })
    }

    /// Where agents reach them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let numbers = self.replicas.iter().map(|replica| replica.number);
        numbers
            .map(|number| SocketAddr::new(self.program.address, PORTS[0] + 10 * number))
            .collect()
    }

    /// Where the first one's webhook is.
    pub(crate) fn webhook(&self) -> SocketAddr {
        SocketAddr::new(self.program.address, PORTS[1])
    }

    /// Starts those again that have ended; how many.
    pub(crate) fn revive(&mut self) -> Result<usize> {
        let mut revived = 0;
        for at in &mut self.replicas {
            if at.child.try_wait()?.is_some() {
                *at = replica(&self.program, at.number)?;
                revived += 1;
            }
        }
        Ok(revived)
    }

    /// The place of the replica that leads.
    pub(crate) async fn leader(&self) -> Option<usize> {
        for (at, replica) in self.replicas.iter().enumerate() {
            if self
                .gauges(replica)
                .await
                .is_some_and(|gauges| gauges.get("leader") == Some(1))
            {
                return Some(at);
            }
        }
        None
    }

    /// Waits until one leads, other than `not`; ended ones are started again meanwhile, if `revive`.
    pub(crate) async fn new_leader(
        &mut self,
        not: Option<usize>,
        revive: bool,
        limit: Duration,
    ) -> Result<usize> {
        let begun = Instant::now();
        loop {
            if revive {
                self.revive()?;
            }
            if let Some(leader) = self.leader().await.filter(|leader| Some(*leader) != not) {
                return Ok(leader);
            }
            ensure!(
                begun.elapsed() < limit,
                "nobody leads after {limit:?}; see the logs in {}",
                self.program.folder.display()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Metrics of the one that leads.
    pub(crate) async fn leading(&self) -> Result<Gauges> {
        let leader = self.leader().await.context("nobody leads")?;
        self.gauges(&self.replicas[leader])
            .await
            .context("the leader answers no more")
    }

    async fn gauges(&self, replica: &Replica) -> Option<Gauges> {
        let port = PORTS[2] + 10 * replica.number;
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            stream
                .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
                .await
                .ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(Gauges(text))
        };
        timeout(Duration::from_secs(2), asked).await.ok()?
    }

    /// Waits until the leader has these values.
    pub(crate) async fn until(
        &self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Gauges) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.leading().await;
            if found.as_ref().is_ok_and(&holds) {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!(
                    "{what}: not after {limit:?}; see the logs in {}",
                    self.program.folder.display()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills one with SIGKILL; when.
    pub(crate) fn kill(&mut self, replica: usize) -> Result<Instant> {
        let child = &mut self.replicas[replica].child;
        child.kill().context("killing the leader")?;
        Ok(Instant::now())
    }

    /// Resident memory of one, now and at most, in MiB.
    pub(crate) fn memory(&self, replica: usize) -> Result<(u64, u64)> {
        let id = self.replicas[replica].child.id();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        Ok((
            field("VmRSS:").context("VmRSS")? / 1024,
            field("VmHWM:").context("VmHWM")? / 1024,
        ))
    }

    /// Processor time that one has used.
    pub(crate) fn processor(&self, replica: usize) -> Result<Duration> {
        let id = self.replicas[replica].child.id();
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // Fields 14 and 15, counting from 1; the second, in parentheses, may hold spaces. A tick is 10 ms.
        let (_, fields) = stat.rsplit_once(')').context("a process's stat")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|text| text.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}

fn replica(program: &Program, number: u16) -> Result<Replica> {
    let log = program.folder.join(format!("operator{number}.log"));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("opening {}", log.display()))?;
    let port = |which: usize| PORTS[which] + 10 * number;
    let child = Command::new(&program.path)
        .arg("run")
        .arg(format!("--pod-name={NAME}-{number}"))
        .arg(format!("--address={}", program.address))
        .arg(format!("--stream-listen=[::]:{}", port(0)))
        .arg(format!("--webhook-listen=[::]:{}", port(1)))
        .arg(format!("--health-listen=127.0.0.1:{}", port(2)))
        .arg(format!("--pool={}", program.pools))
        .arg("--token-file")
        .arg(program.folder.join("token"))
        .env("KUBECONFIG", program.folder.join("kubeconfig"))
        .env("RUST_LOG", "info,sluice_operator=debug")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", program.path.display()))?;
    Ok(Replica { number, child })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let gauges =
            Gauges("sluice_operator_agents_behind 3\nsluice_operator_agents 7\n".to_owned());
        assert_eq!(gauges.get("agents"), Some(7));
        assert_eq!(gauges.get("agent"), None);
    }
}
