//! The suite played: policies made, everything tried from every pod at once until it comes out as it should or time is over, policies
//! removed. What should come out is `suite`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use futures::future::try_join_all;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::Value;
use sluice_lab::probe::{Attempt, Outcome, Transport};
use tokio::time::{Instant, sleep};

use super::{
    Failure, Options, ScenarioResult, Summary,
    place::{Place, SERVICE},
    pod::{Answer, Order},
    suite::{Aim, Check, Role, Scenario, scenarios},
};
use crate::{
    Error,
    exec::{self, Place as Container},
};

/// How long a try waits for its answer: long enough for a lost SYN to be sent again.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The program of a container, wherever its image has it.
const PROGRAMS: [&str; 3] = ["/proc/1/exe", "/sluice", "sluice"];
/// One order, however many tries, takes about as long as one of them.
const ORDER: Duration = Duration::from_secs(20);
/// Everything must come out right so often in a row.
const ROUNDS: u32 = 2;
/// With a period of one second and two failures, a kubelet that is not let in has noticed by then.
const PROBED_FOR: Duration = Duration::from_secs(4);
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);

/// Makes the place and plays every scenario. What is made stays: [`super::clean_up`] removes it.
///
/// # Errors
/// The API server refuses, pods do not start, or can't be asked to try.
pub async fn run(
    client: &Client,
    options: &Options,
    tell: &dyn Fn(&str),
) -> Result<Summary, Error> {
    let place = Place::make(client, options, tell).await?;
    let mut summary = Summary {
        nodes: place.nodes.clone(),
        families: families(&place),
        skipped: skipped(&place),
        ..Summary::default()
    };
    for scenario in scenarios(&place) {
        let result = play(client, &place, &scenario, options.settle).await?;
        tell(&line(&result));
        summary.scenarios.push(result);
    }
    summary.passed = summary.scenarios.iter().all(|scenario| scenario.passed);
    Ok(summary)
}

fn line(result: &ScenarioResult) -> String {
    if result.passed {
        format!("ok      {}: {} tries", result.name, result.tries)
    } else {
        format!(
            "FAILED  {}: {} of {} tries",
            result.name,
            result.failures.len(),
            result.tries
        )
    }
}

fn families(place: &Place) -> Vec<&'static str> {
    let all: BTreeSet<bool> = place
        .addresses(Role::Near)
        .iter()
        .map(IpAddr::is_ipv6)
        .collect();
    all.into_iter()
        .map(|six| if six { "IPv6" } else { "IPv4" })
        .collect()
}

fn skipped(place: &Place) -> Vec<String> {
    let mut skipped = Vec::new();
    if place.nodes.len() < 2 {
        skipped.push("everything between nodes: only one node takes pods".to_owned());
    }
    if !place.has_dns {
        skipped.push(
            "names: the cluster has no DNS service (label k8s-app=kube-dns in kube-system)"
                .to_owned(),
        );
    }
    let families = families(place);
    for family in ["IPv4", "IPv6"] {
        if !families.contains(&family) {
            skipped.push(format!("{family}: pods have no address of it"));
        }
    }
    skipped
}

/// One thing to try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Try {
    check: Check,
    /// Where to; `None` for a name.
    attempt: Option<Attempt>,
    /// Whose answer it must be.
    greetings: Vec<String>,
}

async fn play(
    client: &Client,
    place: &Place,
    scenario: &Scenario,
    patience: Duration,
) -> Result<ScenarioResult, Error> {
    let tries = tries(place, scenario);
    for policy in &scenario.policies {
        change(client, policy, true).await?;
    }
    let begin = Instant::now();
    let (mut right, mut settled, mut failures);
    right = 0;
    settled = None;
    loop {
        failures = round(client, place, &tries).await?;
        let now = begin.elapsed();
        if failures.is_empty() {
            right += 1;
            settled.get_or_insert(now);
        } else {
            right = 0;
            settled = None;
        }
        if right >= ROUNDS || now >= patience {
            break;
        }
        sleep(PAUSE).await;
    }
    if scenario.probed {
        sleep(PROBED_FOR.saturating_sub(begin.elapsed())).await;
        for server in place.unready_servers(client).await? {
            failures.push(Failure {
                what: format!("the kubelet's probe of {server}"),
                expected: "answered",
                found: "the pod is not ready".to_owned(),
            });
        }
    }
    for policy in &scenario.policies {
        change(client, policy, false).await?;
    }
    Ok(ScenarioResult {
        name: scenario.name,
        passed: failures.is_empty(),
        tries: tries.len() + usize::from(scenario.probed),
        settled_ms: settled.map(|settled| u64::try_from(settled.as_millis()).unwrap_or(u64::MAX)),
        failures,
    })
}

/// The checks over every family that both ends have; those from or to pods that are not there are left out.
fn tries(place: &Place, scenario: &Scenario) -> Vec<Try> {
    let present = |role: Role| !place.addresses(role).is_empty();
    let mut tries = Vec::new();
    for &check in scenario.checks.iter().filter(|check| present(check.from)) {
        let (addresses, roles) = match check.to {
            Aim::Pod(role) => (place.addresses(role), vec![role]),
            Aim::Service => (&place.service[..], vec![Role::Near, Role::Far]),
            Aim::Name => {
                if place.has_dns {
                    tries.push(Try {
                        check,
                        attempt: None,
                        greetings: Vec::new(),
                    });
                }
                continue;
            }
        };
        let greetings: Vec<String> = roles
            .into_iter()
            .filter(|role| present(*role))
            .map(|role| place.greeting(role))
            .collect();
        let own = place.addresses(check.from);
        for &address in addresses
            .iter()
            .filter(|address| own.iter().any(|own| own.is_ipv4() == address.is_ipv4()))
        {
            let attempt = Attempt {
                transport: check.transport,
                address,
                port: check.port,
            };
            tries.push(Try {
                check,
                attempt: Some(attempt),
                greetings: greetings.clone(),
            });
        }
    }
    tries
}

/// Tries everything once, all pods at once.
async fn round(client: &Client, place: &Place, tries: &[Try]) -> Result<Vec<Failure>, Error> {
    let mut by_role: BTreeMap<Role, Vec<&Try>> = BTreeMap::new();
    for one in tries {
        by_role.entry(one.check.from).or_default().push(one);
    }
    let asked = by_role
        .into_iter()
        .map(|(role, tries)| ask(client, place, role, tries));
    Ok(try_join_all(asked).await?.concat())
}

async fn ask(
    client: &Client,
    place: &Place,
    role: Role,
    tries: Vec<&Try>,
) -> Result<Vec<Failure>, Error> {
    let named = tries.iter().any(|one| one.attempt.is_none());
    let order = Order {
        attempts: tries.iter().filter_map(|one| one.attempt.clone()).collect(),
        names: if named {
            vec![service_name(place)]
        } else {
            Vec::new()
        },
        patience_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
    };
    let not_understood = |error: serde_json::Error| Error::Answer {
        what: format!("what pod {} tried", role.name()),
        why: error.to_string(),
    };
    let text = serde_json::to_string(&order).map_err(not_understood)?;
    let container = Container {
        namespace: place.namespace_of(role),
        pod: role.name().to_owned(),
        container: "sluice".to_owned(),
    };
    let printed = exec::run(
        client,
        &container,
        &PROGRAMS,
        &["connectivity", "probe", &text],
        ORDER,
    )
    .await;
    let printed = match printed {
        Ok(printed) => printed,
        // A kubelet that is restarted is asked again in the next round.
        Err(error) => {
            return Ok(vec![Failure {
                what: format!("asking {} to try", role.name()),
                expected: "an answer",
                found: error.to_string(),
            }]);
        }
    };
    let answer: Answer = serde_json::from_str(&printed).map_err(not_understood)?;
    if answer.outcomes.len() != order.attempts.len() {
        return Err(Error::Answer {
            what: format!("what pod {} tried", role.name()),
            why: format!(
                "{} outcomes of {} tries",
                answer.outcomes.len(),
                order.attempts.len()
            ),
        });
    }
    let mut outcomes = answer.outcomes.iter();
    Ok(tries
        .into_iter()
        .filter_map(|one| match &one.attempt {
            Some(attempt) => judge(one, attempt, outcomes.next()?),
            None => judge_name(place, one, answer.names.get(&service_name(place))),
        })
        .collect())
}

fn service_name(place: &Place) -> String {
    format!("{SERVICE}.{}.svc", place.namespace())
}

fn judge(one: &Try, attempt: &Attempt, outcome: &Outcome) -> Option<Failure> {
    let right = match outcome {
        Outcome::Answered(name) => one.check.answered && one.greetings.contains(name),
        // Something came back: nobody was kept out, and nobody listened either.
        Outcome::Refused => false,
        Outcome::Silence | Outcome::Failed(_) => !one.check.answered,
    };
    (!right).then(|| Failure {
        what: format!(
            "{} to {} ({}, {} {})",
            one.check.from.name(),
            aim(one.check.to),
            attempt.address,
            protocol(attempt.transport),
            attempt.port
        ),
        expected: if one.check.answered {
            "answered"
        } else {
            "silence"
        },
        found: match outcome {
            Outcome::Answered(name) => format!("answered by {name}"),
            Outcome::Refused => "refused".to_owned(),
            Outcome::Silence => "silence".to_owned(),
            Outcome::Failed(why) => why.clone(),
        },
    })
}

fn judge_name(
    place: &Place,
    one: &Try,
    found: Option<&Result<Vec<IpAddr>, String>>,
) -> Option<Failure> {
    let found = match found {
        Some(Ok(addresses))
            if !addresses.is_empty()
                && addresses
                    .iter()
                    .all(|address| place.service.contains(address)) =>
        {
            return None;
        }
        Some(Ok(addresses)) => format!("{addresses:?}, which are not all the service's"),
        Some(Err(why)) => why.clone(),
        None => "it was not looked up".to_owned(),
    };
    Some(Failure {
        what: format!("{} looks {} up", one.check.from.name(), service_name(place)),
        expected: "answered",
        found,
    })
}

const fn aim(aim: Aim) -> &'static str {
    match aim {
        Aim::Pod(role) => role.name(),
        Aim::Service => "the service",
        Aim::Name => "the name",
    }
}

const fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Icmp => "ICMP",
    }
}

/// Makes a policy, or removes it.
async fn change(client: &Client, policy: &Value, make: bool) -> Result<(), Error> {
    let object: DynamicObject =
        serde_json::from_value(policy.clone()).map_err(|error| Error::Answer {
            what: "a policy of the suite".to_owned(),
            why: error.to_string(),
        })?;
    let kind = object
        .types
        .as_ref()
        .and_then(|types| GroupVersionKind::try_from(types).ok())
        .ok_or_else(|| Error::Missing("a policy of the suite has no kind".to_owned()))?;
    let plural = if kind.group == "sluice.io" {
        "sluicenetworkpolicies"
    } else {
        "networkpolicies"
    };
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    if make {
        let answer = api.create(&PostParams::default(), &object).await;
        answer.map(drop).map_err(Error::api(format!(
            "making {} {namespace}/{name}",
            kind.kind
        )))
    } else {
        let answer = api.delete(&name, &DeleteParams::default()).await;
        answer.map(drop).map_err(Error::api(format!(
            "removing {} {namespace}/{name}",
            kind.kind
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(answered: bool) -> (Try, Attempt) {
        let check = Check {
            from: Role::Client,
            to: Aim::Pod(Role::Near),
            transport: Transport::Tcp,
            port: 8080,
            answered,
        };
        let scenario = Scenario {
            name: "s",
            policies: Vec::new(),
            checks: vec![check],
            probed: false,
        };
        let mut tries = tries(&Place::numbered(), &scenario);
        assert_eq!(tries.len(), 2, "one of each family");
        let one = tries.remove(0);
        let attempt = one.attempt.clone().unwrap();
        (one, attempt)
    }

    #[test]
    fn an_answer_must_come_from_whom_was_asked() {
        let (one, attempt) = one(true);
        assert_eq!(
            judge(
                &one,
                &attempt,
                &Outcome::Answered("t/server-near".to_owned())
            ),
            None
        );
        let wrong = judge(
            &one,
            &attempt,
            &Outcome::Answered("t/server-far".to_owned()),
        )
        .unwrap();
        assert_eq!(wrong.what, "client to server-near (10.0.0.4, TCP 8080)");
        assert_eq!(wrong.found, "answered by t/server-far");
        for none in [
            Outcome::Refused,
            Outcome::Silence,
            Outcome::Failed("x".to_owned()),
        ] {
            assert!(judge(&one, &attempt, &none).is_some());
        }
    }

    #[test]
    fn a_refusal_is_no_silence() {
        let (one, attempt) = one(false);
        assert_eq!(judge(&one, &attempt, &Outcome::Silence), None);
        assert!(judge(&one, &attempt, &Outcome::Refused).is_some());
        assert!(
            judge(
                &one,
                &attempt,
                &Outcome::Answered("t/server-near".to_owned())
            )
            .is_some()
        );
    }

    #[test]
    fn a_name_must_lead_to_the_service() {
        let mut place = Place::numbered();
        place.service = vec![IpAddr::from([10, 96, 0, 1])];
        let check = Check {
            from: Role::Client,
            to: Aim::Name,
            transport: Transport::Udp,
            port: 53,
            answered: true,
        };
        let one = Try {
            check,
            attempt: None,
            greetings: Vec::new(),
        };
        assert_eq!(
            judge_name(&place, &one, Some(&Ok(place.service.clone()))),
            None
        );
        for wrong in [
            Ok(vec![]),
            Ok(vec![IpAddr::from([1, 1, 1, 1])]),
            Err("no".to_owned()),
        ] {
            assert!(judge_name(&place, &one, Some(&wrong)).is_some());
        }
    }
}
