//! Traffic that is counted: what the program `sluice-traffic` does in pods, and what it tells of it. Each flow is either meant to
//! pass or meant not to; which, only the reader of the counts knows. Judging may not enter.
//!
//! ```text
//! Hold      one TCP connection, a request in it at every beat
//! Dial      a new TCP connection with one request at every beat
//! Datagram  a UDP datagram at every beat, a new socket every 64
//! ```

mod board;
mod datagram;
mod dial;
mod hold;
mod serve;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use board::Board;

/// An answer that takes longer is none. Long enough for a busy machine; a lost datagram never comes.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often the report is written.
const REPORTED: Duration = Duration::from_millis(200);

/// How a flow speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Requests in one TCP connection that must live.
    Hold,
    /// A TCP connection for each request.
    Dial,
    /// A UDP datagram for each request.
    Datagram,
}

/// Requests to one server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// What its counts are called, at both ends; no line break.
    pub name: String,
    /// How it speaks.
    pub kind: Kind,
    /// The server.
    pub to: SocketAddr,
    /// Milliseconds from one request to the next.
    pub beat: u64,
}

/// What one program does.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Ports it answers on, over TCP and UDP and both families.
    pub ports: Vec<u16>,
    /// Flows it makes.
    pub flows: Vec<Flow>,
    /// The file that its report replaces, several times a second.
    pub report: PathBuf,
}

/// What became of a flow's requests so far.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Requests made.
    pub sent: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those whose answer did not come in time.
    pub lost: u64,
    /// Those that came to a host which then refused them.
    pub refused: u64,
    /// Those that this host could not even send.
    pub failed: u64,
    /// Established connections that ended before their time.
    pub broken: u64,
    /// The slowest answer, in milliseconds.
    pub worst_ms: u64,
    /// What went wrong last, and when.
    pub last_trouble: Option<Trouble>,
}

/// Something that went wrong.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trouble {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What one program counted.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// When this was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// By the name of a flow that this program makes.
    pub flows: BTreeMap<String, Counts>,
    /// By the name of a flow that another makes: connections and datagrams that came here.
    pub arrived: BTreeMap<String, u64>,
}

/// Carries an order out for as long as the program lives.
///
/// # Errors
///
/// If a port can't be listened on, or the report can't be written.
pub fn run(order: &Order) -> Result<std::convert::Infallible> {
    let board = Board::default();
    for &port in &order.ports {
        serve::serve(port, &board)?;
    }
    for flow in order.flows.iter().cloned() {
        let board = board.clone();
        thread::spawn(move || match flow.kind {
            Kind::Hold => hold::run(&flow, &board),
            Kind::Dial => dial::run(&flow, &board),
            Kind::Datagram => datagram::run(&flow, &board),
        });
    }
    loop {
        write(&order.report, &board.report())?;
        thread::sleep(REPORTED);
    }
}

/// Reads what [`run`] wrote.
///
/// # Errors
///
/// If it is no report.
pub fn parse(text: &str) -> Result<Report> {
    serde_json::from_str(text).map_err(|error| Error::Unreadable {
        what: "a report of traffic".to_owned(),
        why: error.to_string(),
    })
}

/// Renamed into place: a reader finds a whole one.
fn write(path: &Path, report: &Report) -> Result<()> {
    let partial = path.with_extension("partial");
    let text = serde_json::to_vec(report).map_err(|error| Error::Unreadable {
        what: "a report of traffic".to_owned(),
        why: error.to_string(),
    })?;
    fs::write(&partial, text).map_err(Error::at("writing", &partial))?;
    fs::rename(&partial, path).map_err(Error::at("writing", path))
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
        time::Instant,
    };

    use super::*;

    fn free_port() -> u16 {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    fn flows(port: u16) -> Vec<Flow> {
        let families: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let kinds = [Kind::Hold, Kind::Dial, Kind::Datagram];
        let flow = |kind, address: IpAddr| Flow {
            name: format!("{kind:?} {address} {port}"),
            kind,
            to: (address, port).into(),
            beat: 5,
        };
        kinds
            .into_iter()
            .flat_map(|kind| families.map(|address| flow(kind, address)))
            .collect()
    }

    /// The first report that is as wanted.
    fn until(path: &Path, mut wanted: impl FnMut(&Report) -> bool) -> Report {
        let begin = Instant::now();
        loop {
            let report = fs::read_to_string(path)
                .ok()
                .map(|text| parse(&text).unwrap());
            match report {
                Some(report) if wanted(&report) => return report,
                report if begin.elapsed() > Duration::from_secs(20) => panic!("{report:?}"),
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    #[test]
    fn every_kind_is_answered_over_both_families_and_counted_at_both_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (served, closed) = (free_port(), free_port());
        let report = folder.path().join("report.json");
        let order = Order {
            ports: vec![served],
            flows: [flows(served), flows(closed)].concat(),
            report: report.clone(),
        };
        thread::spawn(move || run(&order).map(drop));
        let seen = until(&report, |report| {
            let open = report
                .flows
                .iter()
                .filter(|(name, _)| name.ends_with(&served.to_string()));
            open.clone().count() == 6 && open.clone().all(|(_, counts)| counts.answered >= 100)
        });
        for (name, counts) in &seen.flows {
            assert_eq!(
                counts.broken + counts.lost + counts.failed,
                0,
                "{name}: {counts:?}"
            );
            if name.ends_with(&served.to_string()) {
                assert_eq!(counts.refused, 0, "{name}: {counts:?}");
                assert!(
                    seen.arrived[name] >= if name.starts_with("Hold") { 1 } else { 100 },
                    "{seen:?}"
                );
            } else {
                assert_eq!(counts.answered, 0, "{name}: {counts:?}");
                assert!(
                    name.starts_with("Hold") || counts.refused > 0,
                    "{name}: {counts:?}"
                );
                assert!(!seen.arrived.contains_key(name), "{seen:?}");
            }
        }
    }
}
