//! The words of the commands that speak to a cluster, and their help. Nothing is done here.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use sluice_client::{objects::Scope, policy::Kind};
use sluice_lab::probe::Transport;

use crate::arguments::{AnyFormat, TableOrJson};

/// Which cluster.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArguments {
    /// The kubeconfig, in place of `$KUBECONFIG`, `~/.kube/config` and, in a pod, its service account.
    #[arg(
        long,
        value_name = "FILE",
        help = "The kubeconfig, in place of $KUBECONFIG, ~/.kube/config and, in a pod, its service account"
    )]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, in place of its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace that Sluice is installed in; by default that of the one `DaemonSet` called sluice-agent, or kube-system.
    #[arg(
        long,
        value_name = "NAME",
        help = "The namespace that Sluice is installed in; by default that of the only DaemonSet called sluice-agent, or kube-system"
    )]
    pub(crate) sluice_namespace: Option<String>,
}

/// Which namespaces.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ScopeArguments {
    /// The namespace; by default that of the context.
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

impl ScopeArguments {
    /// What is asked for; `usual` where nothing is said.
    pub(crate) fn scope(&self, usual: Scope) -> Scope {
        match &self.namespace {
            _ if self.all_namespaces => Scope::All,
            Some(namespace) => Scope::Namespace(namespace.clone()),
            None => usual,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Wait until all is well.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) wait_duration: Duration,
    /// Do not ask the agents themselves, which takes the right to run programs in their pods: how full their maps are stays unknown.
    #[arg(long)]
    pub(crate) without_agents: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: AnyFormat,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EndpointsArguments {
    #[command(flatten)]
    pub(crate) scope: ScopeArguments,
    /// Those of this node alone.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: AnyFormat,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct NodesArguments {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: AnyFormat,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArguments {
    /// The policy's name.
    pub(crate) name: String,
    /// Its namespace; by default that of the context.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Its kind; needed where policies of several kinds have the name.
    #[arg(
        long,
        value_parser = kind,
        help = "Its kind: snp, scnp, cnp (ClusterNetworkPolicy), anp or banp, or the kind's full name; needed where policies of several kinds have the name"
    )]
    pub(crate) kind: Option<Kind>,
    /// How long to wait at most.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: TableOrJson,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectivityCommand {
    /// Deploy pods on two nodes, try who reaches whom without policies and with each of several, report, remove all. Exits 1 where
    /// anything is not as it should be.
    #[command(after_help = TEST_EXAMPLES)]
    Test(TestArguments),
    /// What pods of the test do. Started by `test`, not by people.
    #[command(hide = true)]
    Serve(ServeArguments),
    /// What pods of the test try. Started by `test`, not by people.
    #[command(hide = true)]
    Probe {
        /// What to try, as JSON.
        order: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// The image of the pods, whose program must be this one; by default sluice-cli, of the registry and tag of the agents' image.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// The namespace to make; a second one is called so with -other at its end. Both are removed.
    #[arg(short, long, value_name = "NAME", default_value = "sluice-test")]
    pub(crate) namespace: String,
    /// Leave everything there.
    #[arg(long)]
    pub(crate) keep: bool,
    /// The port on the nodes that pods of the host network listen on.
    #[arg(long, value_name = "PORT", default_value_t = 34_080)]
    pub(crate) host_port: u16,
    /// How long pods may take to be ready.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub(crate) start_timeout: Duration,
    /// How long everything may take to be as a policy says.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(crate) settle_timeout: Duration,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: AnyFormat,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// What to answer with.
    #[arg(long)]
    pub(crate) name: String,
    /// Where to listen, as TCP:80.
    #[arg(value_parser = port)]
    pub(crate) ports: Vec<(Transport, u16)>,
}

#[derive(Debug, Args)]
pub(crate) struct SysdumpArguments {
    /// The archive to write; by default sluice-sysdump-TIME.tar.gz in this folder.
    #[arg(short, long = "output-file", value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
    /// Lines of each log, counted from its end.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    pub(crate) log_lines: u32,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

/// `90s`, `5m`, `1h30m`; no unit means seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 90s, 5m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..]
            .find(|letter: char| letter.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let milliseconds = match &rest[digits..unit_end] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = Duration::from_millis(number.checked_mul(milliseconds).ok_or_else(wrong)?);
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(total)
    }
}

/// A kind with a status, by short or full name.
fn kind(text: &str) -> Result<Kind, String> {
    let text = text.to_lowercase();
    let short = match text.as_str() {
        "snp" => Some(Kind::SluiceNetworkPolicy),
        "scnp" => Some(Kind::SluiceClusterwideNetworkPolicy),
        "cnp" => Some(Kind::ClusterNetworkPolicy),
        "anp" => Some(Kind::AdminNetworkPolicy),
        "banp" => Some(Kind::BaselineAdminNetworkPolicy),
        _ => None,
    };
    if let Some(kind) = short.or_else(|| {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str().to_lowercase() == text)
    }) {
        return Ok(kind);
    }
    if [
        "networkpolicy",
        "netpol",
        "ciliumnetworkpolicy",
        "ciliumclusterwidenetworkpolicy",
        "ccnp",
    ]
    .contains(&text.as_str())
    {
        return Err(
            "this kind has no status that Sluice writes, so that nobody outside can tell when it is enforced; `sluice status` tells whether \
             every node follows the operator"
                .to_owned(),
        );
    }
    Err("no such kind: snp, scnp, cnp (ClusterNetworkPolicy), anp or banp".to_owned())
}

fn port(text: &str) -> Result<(Transport, u16), String> {
    let (protocol, port) = text.split_once(':').ok_or("write TCP:80")?;
    let protocol = match protocol {
        "TCP" => Transport::Tcp,
        "UDP" => Transport::Udp,
        _ => return Err("the protocol is TCP or UDP".to_owned()),
    };
    Ok((protocol, port.parse().map_err(|_| "no such port")?))
}

const TEST_EXAMPLES: &str = "\
Examples:
  sluice connectivity test
  sluice connectivity test --image registry.example.com/sluice-cli:0.1.0
  sluice connectivity test --keep -o json | jq '.scenarios[] | select(.passed | not)'

The test needs the right to make namespaces, pods, services and policies, and to run programs in pods (exec).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "m", "5 m", "5d", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_go_by_either_name_and_those_without_status_are_explained() {
        assert_eq!(kind("SNP"), Ok(Kind::SluiceNetworkPolicy));
        assert_eq!(kind("ClusterNetworkPolicy"), Ok(Kind::ClusterNetworkPolicy));
        assert!(kind("NetworkPolicy").unwrap_err().contains("no status"));
        assert!(kind("x").unwrap_err().contains("no such kind"));
    }

    #[test]
    fn ports_are_of_tcp_or_udp() {
        assert_eq!(port("UDP:53"), Ok((Transport::Udp, 53)));
        for wrong in ["53", "ICMP:1", "TCP:70000"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }
}
