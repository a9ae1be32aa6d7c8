//! What this program does in a pod of the test: answering, and trying when asked to. What is tried, and why, may not enter.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use sluice_lab::{
    probe::{self, Attempt, Outcome, Transport},
    responder,
};

use crate::Error;

/// Tries to make from a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Connections and datagrams.
    pub attempts: Vec<Attempt>,
    /// Names to look up as any program in the pod would.
    pub names: Vec<String>,
    /// How long to wait for each answer, in milliseconds.
    pub patience_ms: u64,
}

/// What came of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// In the order of the attempts.
    pub outcomes: Vec<Outcome>,
    /// By name: its addresses, or why there are none.
    pub names: BTreeMap<String, Result<Vec<IpAddr>, String>>,
}

/// Answers on these ports, over both families, for as long as it is polled; each answer begins with `name`.
///
/// # Errors
/// A port can't be listened on.
pub async fn serve(name: String, ports: &[(Transport, u16)]) -> Result<(), Error> {
    let ports = ports
        .iter()
        .filter_map(|(transport, port)| Some((number(*transport)?, *port)))
        .collect();
    let listeners = responder::listen(&ports).map_err(Error::io("listening"))?;
    responder::serve(name, listeners).await;
    Ok(())
}

const fn number(transport: Transport) -> Option<u8> {
    match transport {
        Transport::Tcp => Some(6),
        Transport::Udp => Some(17),
        Transport::Icmp => None,
    }
}

/// Carries an order out.
pub async fn carry_out(order: &Order) -> Answer {
    let patience = Duration::from_millis(order.patience_ms);
    let mut names = BTreeMap::new();
    let (outcomes, ()) = tokio::join!(probe::run_here(&order.attempts, patience), async {
        for name in &order.names {
            names.insert(name.clone(), look_up(name, patience).await);
        }
    });
    Answer { outcomes, names }
}

/// With the system's resolver, search list included.
async fn look_up(name: &str, patience: Duration) -> Result<Vec<IpAddr>, String> {
    // A resolver asks again after five seconds; one lost datagram is no failure.
    let patience = patience.max(Duration::from_secs(6));
    match tokio::time::timeout(patience, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            Ok(addresses)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[tokio::test]
    async fn an_order_is_carried_out_over_both_families_and_survives_its_journey() {
        let port = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let attempts: Vec<Attempt> = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ]
        .into_iter()
        .flat_map(|address| {
            [Transport::Tcp, Transport::Udp].map(|transport| Attempt {
                transport,
                address,
                port,
            })
        })
        .collect();
        let order = Order {
            attempts,
            names: vec!["localhost".to_owned()],
            patience_ms: 5000,
        };
        let order: Order = serde_json::from_str(&serde_json::to_string(&order).unwrap()).unwrap();
        let ports = [(Transport::Tcp, port), (Transport::Udp, port)];
        let answer = tokio::select! {
            ended = serve("ns/pod".to_owned(), &ports) => panic!("{ended:?}"),
            answer = carry_out(&order) => answer,
        };
        let answer: Answer =
            serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
        assert_eq!(
            answer.outcomes,
            vec![Outcome::Answered("ns/pod".to_owned()); 4]
        );
        assert!(
            answer.names["localhost"]
                .as_ref()
                .unwrap()
                .iter()
                .all(IpAddr::is_loopback)
        );
    }
}
