//! Leader election by a Lease. What a leader does may not enter.
//!
//! As client-go does it: whether a lease has run out is judged by when this process saw it change, never by another machine's clock.
//! A process leads once: having lost the lease it ends, and its successor starts with fresh eyes.

use std::{net::SocketAddr, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How an election is held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This process, and no other one ever.
    pub identity: String,
    /// Where this process serves agents.
    pub address: SocketAddr,
    /// How long a lease holds without being renewed.
    pub duration: Duration,
    /// A leader that could not renew for so long leads no more; shorter than `duration`.
    pub renew: Duration,
    /// The pause between attempts.
    pub retry: Duration,
}

/// Where this process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It follows; the address is the leader's, where one is known.
    Follows(Option<SocketAddr>),
    /// It leads, in this epoch, which is greater than that of every leader before.
    Leads(u64),
    /// It has led, and does no more.
    Lost,
}

/// Seconds since the start of 2020 on a lease that is made anew: epochs go on growing even where somebody deleted the lease before, as
/// long as leaders last more than a second on average. (31 bits of them last until 2088.)
fn first_term() -> i32 {
    const START: i64 = 1_577_836_800;
    let seconds = Timestamp::now().as_second() - START;
    i32::try_from(seconds).unwrap_or(i32::MAX).max(1)
}

/// Takes part until dropped, or until the lease is lost.
pub struct Election {
    api: Api<Lease>,
    settings: Settings,
    standing: watch::Sender<Standing>,
    /// The lease as last seen to change, and when.
    observed: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// An election, and where this process stands in it.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> (Self, watch::Receiver<Standing>) {
        let (standing, receiver) = watch::channel(Standing::Follows(None));
        let election = Self {
            api: Api::namespaced(client, &settings.namespace),
            settings,
            standing,
            observed: None,
        };
        (election, receiver)
    }

    /// Tries for the lease, then holds it; returns when it is lost, or when `stop` tells to go, having given the lease back.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut renewed: Option<Instant> = None;
        loop {
            let attempt = timeout(self.settings.renew / 2, self.attempt(renewed.is_some())).await;
            let held = match attempt {
                Ok(Ok(held)) => held,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease can't be taken or renewed now");
                    None
                }
                Err(_) => {
                    tracing::warn!("the API server does not answer about the lease");
                    None
                }
            };
            match (held, renewed) {
                (Some(Held::Mine(epoch)), _) => {
                    if renewed.is_none() {
                        tracing::info!(epoch, "leading");
                        self.standing.send_replace(Standing::Leads(epoch));
                    }
                    renewed = Some(Instant::now());
                }
                (Some(Held::Other), Some(_)) => {
                    tracing::error!("somebody else took the lease");
                    self.standing.send_replace(Standing::Lost);
                    return;
                }
                (_, Some(last)) if last.elapsed() >= self.settings.renew => {
                    tracing::error!("the lease could not be renewed in time");
                    self.standing.send_replace(Standing::Lost);
                    return;
                }
                _ => {}
            }
            tokio::select! {
                () = sleep(self.settings.retry) => {}
                () = told(&mut stop) => {
                    if renewed.is_some() {
                        self.release().await;
                    }
                    return;
                }
            }
        }
    }

    /// Takes or renews the lease if it can be; who holds it after.
    async fn attempt(&mut self, leading: bool) -> Result<Option<Held>, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.settings.name).await? else {
            if leading {
                return Ok(Some(Held::Other));
            }
            let term = first_term();
            let lease = self.lease(term);
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(Some(Held::Mine(epoch(term)))),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let mine = holder == self.settings.identity_with_address();
        let terms = spec.lease_transitions.unwrap_or_default();
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.observed = Some((spec.clone(), Instant::now()));
        }
        if !mine {
            if leading {
                return Ok(Some(Held::Other));
            }
            self.standing.send_if_modified(|standing| {
                let now = Standing::Follows(address_of(&holder));
                std::mem::replace(standing, now) != now
            });
            if !holder.is_empty() && !self.ran_out(&spec) {
                return Ok(Some(Held::Other));
            }
        }
        let term = if mine { terms } else { terms.saturating_add(1) };
        let mut next = self.lease(term).spec.unwrap_or_default();
        if mine {
            next.acquire_time = spec.acquire_time;
        }
        // The resource version that was read goes with it: of two that try, one fails.
        lease.spec = Some(next);
        match self
            .api
            .replace(&self.settings.name, &PostParams::default(), &lease)
            .await
        {
            Ok(_) => Ok(Some(Held::Mine(epoch(term)))),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ran_out(&self, spec: &LeaseSpec) -> bool {
        let duration = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.settings.duration, Duration::from_secs);
        self.observed
            .as_ref()
            .is_some_and(|(_, seen)| seen.elapsed() >= duration)
    }

    fn lease(&self, term: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.settings.identity_with_address()),
                lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
                lease_transitions: Some(term),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Gives the lease back, so that the next leader need not wait for it to run out.
    async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.settings.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.settings.identity_with_address()) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api
                    .replace(&self.settings.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<(), kube::Error>(())
        };
        match timeout(self.settings.retry, released).await {
            Ok(Ok(())) => tracing::info!("the lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given back"),
            Err(_) => tracing::warn!("the lease could not be given back in time"),
        }
    }
}

/// Returns when the process is to end; also where nobody is left to say so.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Who holds the lease.
enum Held {
    Mine(u64),
    Other,
}

impl Settings {
    fn identity_with_address(&self) -> String {
        format!("{}@{}", self.identity, self.address)
    }
}

fn epoch(term: i32) -> u64 {
    u64::try_from(term).unwrap_or_default()
}

/// Where a holder serves.
fn address_of(holder: &str) -> Option<SocketAddr> {
    holder.rsplit_once('@')?.1.parse().ok()
}
