//! Operators and agents over real sockets.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{
    Agent, Authority, Operator, address, addresses, change_entry, cluster, constant, eventually,
    new_address, node, options, pod, relabel,
};
use sluice_abi::Identity;
use sluice_stream::{
    EVERY_NODE, Event, Hub, Report, Revision,
    wire::proto::{self, stream_client::StreamClient, up},
};
use sluice_world::NodeName;
use tonic::Code;

const FIRST: u32 = Identity::FIRST_ALLOCATED;

fn revision(epoch: u64, number: u64) -> Revision {
    Revision { epoch, number }
}

#[tokio::test]
async fn an_agent_gets_what_its_node_needs_and_nothing_before_the_first_publication() {
    let operator = Operator::start(Hub::new(1), None).await;
    let mut agent = Agent::start(options(&node(1), &addresses(&[&operator])));
    assert!(matches!(agent.step().await, Event::Connected { .. }));
    let early = tokio::time::timeout(Duration::from_millis(300), agent.step()).await;
    assert!(early.is_err(), "an empty state replaces nothing: {early:?}");
    let published = operator.hub.publish(cluster(3, 2, 6, 4)).await;
    assert_eq!((published.revision, published.steps), (revision(1, 1), 1));
    agent.until(published.revision).await;
    let sizes = agent.catalog.sizes();
    assert_eq!(sizes[0], 3, "tables of two pods: 3, 4 and 5");
    assert_eq!(
        (sizes[3], sizes[4], sizes[6]),
        (4, 6, 2),
        "all identities, all addresses, own pods"
    );
    assert!(agent.catalog.endpoint(&pod(2)).is_some() && agent.catalog.endpoint(&pod(0)).is_none());
    let first = published.revision;
    eventually(&operator.hub, "acknowledged", |hub| {
        hub.enforced(first) == (1, 1)
    })
    .await;
    // A change of a table that the node does not hold is no message; its revision follows by itself.
    let other = operator.hub.publish(change_entry(1, FIRST, 0)).await;
    assert_eq!(operator.hub.enforced(other.revision), (1, 1));
    let own = operator.hub.publish(change_entry(4, FIRST, 0)).await;
    agent.until(own.revision).await;
    assert_eq!(agent.updates, [revision(1, 1), revision(1, 3)]);
    eventually(&operator.hub, "acknowledged", |hub| {
        hub.enforced(own.revision) == (1, 1)
    })
    .await;
    operator.stop().await;
}

#[tokio::test]
async fn identities_move_in_three_steps_each_acknowledged_first() {
    let operator = Operator::start(Hub::new(1), None).await;
    operator.hub.publish(cluster(2, 2, 2, 2)).await;
    let known = addresses(&[&operator]);
    let quick = Agent::start(options(&node(0), &known)).run();
    let mut slow = Agent::start(options(&node(1), &known));
    slow.until(revision(1, 1)).await;
    eventually(&operator.hub, "both", |hub| {
        hub.enforced(revision(1, 1)) == (2, 2)
    })
    .await;
    slow.acks = false;
    let hub = operator.hub.clone();
    let publication = tokio::spawn(async move { hub.publish(relabel(0, FIRST, FIRST + 9)).await });
    slow.until(revision(1, 2)).await;
    assert!(
        slow.catalog.labels(Identity(FIRST + 9)).is_some(),
        "the new identity is there"
    );
    let moved = tokio::time::timeout(Duration::from_millis(500), slow.step()).await;
    assert!(moved.is_err(), "nobody moves before all know: {moved:?}");
    assert!(!publication.is_finished());
    slow.subscription.ack(revision(1, 2));
    slow.until(revision(1, 3)).await;
    let info = slow.catalog.address(address(0)).expect("an address");
    assert_eq!(info.identity, Identity(FIRST + 9));
    assert!(
        slow.catalog.labels(Identity(FIRST)).is_some(),
        "the old one is still known"
    );
    slow.subscription.ack(revision(1, 3));
    let published = publication.await.expect("published");
    assert_eq!(
        (published.steps, published.acknowledged, published.of),
        (3, 2, 2)
    );
    slow.until(revision(1, 4)).await;
    assert!(slow.catalog.labels(Identity(FIRST)).is_none());
    quick.abort();
}

#[tokio::test]
async fn an_agent_that_never_acknowledges_stops_nobody_for_longer_than_five_seconds() {
    let operator = Operator::start(Hub::new(1), None).await;
    operator.hub.publish(cluster(2, 2, 2, 2)).await;
    let known = addresses(&[&operator]);
    let well = Agent::start(options(&node(0), &known)).run();
    let mut stuck = Agent::start(options(&node(1), &known));
    stuck.acks = false;
    stuck.until(revision(1, 1)).await;
    eventually(&operator.hub, "both", |hub| hub.sessions().len() == 2).await;
    let begun = Instant::now();
    let published = operator.hub.publish(relabel(0, FIRST, FIRST + 9)).await;
    let took = begun.elapsed();
    assert_eq!((published.steps, published.of), (3, 2));
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_millis(5_800),
        "{took:?}"
    );
    // A connection that breaks is not waited for at all.
    drop(stuck);
    eventually(&operator.hub, "one left", |hub| hub.sessions().len() == 1).await;
    let published = operator
        .hub
        .publish(relabel(0, FIRST + 9, FIRST + 10))
        .await;
    assert_eq!((published.acknowledged, published.of), (1, 1));
    assert!(
        published.waited < Duration::from_secs(2),
        "{:?}",
        published.waited
    );
    well.abort();
}

/// A process that is stopped keeps its connection open and says nothing.
#[tokio::test]
async fn a_silent_agent_does_not_count_after_its_lease() {
    let operator = Operator::start(Hub::new(1), None).await;
    operator.hub.publish(cluster(2, 2, 2, 2)).await;
    let (silent, _keep) = raw(&operator, hello(1, &node(1)), "token of node-1").await;
    let _silent = silent.expect("taken in");
    eventually(&operator.hub, "there", |hub| {
        hub.enforced(revision(0, 0)).1 == 1
    })
    .await;
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    assert_eq!(
        operator.hub.enforced(revision(0, 0)).1,
        0,
        "its lease ran out"
    );
    let published = operator.hub.publish(relabel(0, FIRST, FIRST + 9)).await;
    assert_eq!((published.steps, published.of), (3, 0));
    assert!(published.waited < Duration::from_secs(1));
}

#[tokio::test]
async fn a_slow_agent_gets_a_snapshot_instead_of_an_endless_queue() {
    let operator = Operator::start(Hub::new(1), None).await;
    operator.hub.publish(cluster(2, 2, 2, 2)).await;
    let mut agent = Agent::start(options(&node(0), &addresses(&[&operator])));
    agent.until(revision(1, 1)).await;
    // Nobody takes the events: windows fill, then the queue.
    let mut last = revision(1, 1);
    for round in 0..600_usize {
        let mut batch = new_address(0, FIRST);
        batch.delta.addresses.clear();
        for number in 0..2_000 {
            let identity = FIRST + u32::try_from(round % 2).unwrap();
            let mut one = new_address(100 + number, identity);
            batch.delta.addresses.append(&mut one.delta.addresses);
        }
        last = operator.hub.publish(batch).await.revision;
    }
    agent.until(last).await;
    assert_eq!(
        agent.snapshots, 2,
        "one at first, one after the queue was dropped"
    );
    assert!(agent.updates.len() < 500, "{} updates", agent.updates.len());
    assert_eq!(agent.catalog.sizes()[4], 2_004);
    assert_eq!(
        agent.catalog.address(address(100)).unwrap().identity,
        Identity(FIRST + 1)
    );
    eventually(&operator.hub, "acknowledged", |hub| {
        hub.enforced(last) == (1, 1)
    })
    .await;
}

#[tokio::test]
async fn agents_of_a_replica_that_dies_go_on_at_another_without_a_snapshot() {
    let leader = Operator::start(Hub::new(1), None).await;
    leader.hub.publish(cluster(4, 2, 6, 4)).await;
    let follower = Operator::start(Hub::new(0), None).await;
    let upstream = addresses(&[&leader]);
    let following = follower
        .hub
        .follow(options(&NodeName(EVERY_NODE.into()), &upstream));
    let known = addresses(&[&follower]);
    let mut agents: Vec<Agent> = (0..4)
        .map(|at| Agent::start(options(&node(at), &known)))
        .collect();
    for agent in &mut agents {
        agent.until(revision(1, 1)).await;
    }
    // The leader counts those whom the follower serves, and waits for them.
    eventually(&leader.hub, "all", |hub| {
        hub.enforced(revision(1, 1)) == (4, 4)
    })
    .await;
    assert!(leader.hub.sessions().iter().all(|info| info.remote));
    let hub = leader.hub.clone();
    let publication = tokio::spawn(async move { hub.publish(relabel(0, FIRST, FIRST + 9)).await });
    // All at once: each step waits for all of them.
    let agents = agents.into_iter().map(|mut agent| {
        tokio::spawn(async move {
            agent.until(revision(1, 4)).await;
            agent
        })
    });
    let mut agents: Vec<Agent> = join(agents.collect()).await;
    let published = publication.await.expect("published");
    assert_eq!(
        (published.steps, published.acknowledged, published.of),
        (3, 4, 4)
    );
    // The follower dies; its agents find the leader. What happened meanwhile reaches them as a change.
    *known.lock().unwrap() = vec![leader.address];
    drop(following);
    follower.stop().await;
    leader.hub.publish(change_entry(3, FIRST + 1, 0)).await;
    let last = leader
        .hub
        .publish(new_address(500, FIRST + 1))
        .await
        .revision;
    for agent in &mut agents {
        agent.until(last).await;
        assert_eq!(agent.connected.len(), 2);
        assert_eq!(agent.snapshots, 1, "only at first");
        assert!(agent.catalog.address(address(500)).is_some());
    }
    eventually(&leader.hub, "all", |hub| hub.enforced(last) == (4, 4)).await;
    // Now the leader dies, and another follower that has mirrored it takes the agents, then leads.
    let heir = Operator::start(Hub::new(0), None).await;
    let following = heir
        .hub
        .follow(options(&NodeName(EVERY_NODE.into()), &upstream));
    eventually(&heir.hub, "mirrored", |hub| hub.revision() == last).await;
    *known.lock().unwrap() = vec![heir.address];
    leader.stop().await;
    eventually(&heir.hub, "moved", |hub| hub.sessions().len() == 4).await;
    drop(following);
    let begin = |agent: &Agent| (agent.snapshots, agent.connected.len());
    heir.hub.lead(2);
    let published = heir.hub.publish(cluster(4, 2, 6, 4)).await;
    assert_eq!(published.revision, revision(2, 1));
    for agent in &mut agents {
        agent.until(published.revision).await;
        assert_eq!(begin(agent), (2, 3), "a new epoch is a new whole state");
        assert!(agent.catalog.address(address(500)).is_none());
    }
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_from_where_it_was() {
    let first = Operator::start(Hub::new(1), None).await;
    first.hub.publish(cluster(2, 2, 3, 3)).await;
    let known = addresses(&[&first]);
    let mut agent = Agent::start(options(&node(0), &known));
    agent.until(revision(1, 1)).await;
    let second = Operator::start(first.hub.clone(), None).await;
    known.lock().unwrap().clear();
    first.stop().await;
    // What changed while it was away comes as one change, without what it holds already.
    second.hub.publish(change_entry(1, FIRST, 0)).await;
    second.hub.publish(change_entry(1, FIRST + 1, 0)).await;
    second.hub.publish(new_address(700, FIRST)).await;
    *known.lock().unwrap() = vec![second.address];
    let event = loop {
        if let Event::Update(update) = agent.step().await {
            break update;
        }
    };
    assert_eq!((event.revision, event.snapshot), (revision(1, 4), false));
    assert_eq!(
        (event.delta.tables.len(), event.delta.addresses.len()),
        (1, 1)
    );
    assert_eq!(event.delta.tables[0].set.len(), 2);
    assert!(
        event.delta.programs.is_empty() && event.delta.identities.is_empty(),
        "held already"
    );
    eventually(&second.hub, "acknowledged", |hub| {
        hub.enforced(revision(1, 4)) == (1, 1)
    })
    .await;
    // A restarted agent that kept its catalog does the same.
    let held = agent.catalog.held();
    drop(agent);
    let last = second.hub.publish(new_address(701, FIRST)).await.revision;
    let mut resumed = options(&node(0), &known);
    resumed.resume = Some(held);
    let mut agent = Agent::start(resumed);
    agent.until(last).await;
    assert_eq!(agent.snapshots, 0);
}

#[tokio::test]
async fn reports_reach_whoever_leads() {
    let leader = Operator::start(Hub::new(1), None).await;
    leader.hub.publish(cluster(2, 1, 2, 2)).await;
    let follower = Operator::start(Hub::new(0), None).await;
    let _following = follower.hub.follow(options(
        &NodeName(EVERY_NODE.into()),
        &addresses(&[&leader]),
    ));
    let mut reports = leader.hub.reports();
    let mut agent = Agent::start(options(&node(1), &addresses(&[&follower])));
    agent.until(revision(1, 1)).await;
    let report = Report::EndpointUp {
        pod: pod(1),
        uid: "uid".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        container: "container".into(),
    };
    agent.subscription.report(&report);
    assert_eq!(reports.recv().await, Some((node(1), report)));
    // One who begins to lead asks for everything again.
    follower.hub.lead(2);
    loop {
        if agent.step().await == Event::ReportAgain {
            break;
        }
    }
    let mut reports = follower.hub.reports();
    let down = Report::EndpointDown {
        pod: pod(1),
        uid: "uid".into(),
    };
    agent.subscription.report(&down);
    assert_eq!(reports.recv().await, Some((node(1), down)));
}

/// More reports than any queue on the way holds wait, and none is lost.
#[tokio::test]
async fn a_flood_of_reports_waits_its_turn() {
    const EACH: usize = 3_000;
    let leader = Operator::start(Hub::new(1), None).await;
    leader.hub.publish(cluster(4, 1, 2, 2)).await;
    let follower = Operator::start(Hub::new(0), None).await;
    let _following = follower.hub.follow(options(
        &NodeName(EVERY_NODE.into()),
        &addresses(&[&leader]),
    ));
    let mut reports = leader.hub.reports();
    let known = addresses(&[&follower]);
    let mut agents: Vec<Agent> = (0..4)
        .map(|at| Agent::start(options(&node(at), &known)))
        .collect();
    for agent in &mut agents {
        agent.until(revision(1, 1)).await;
    }
    eventually(&leader.hub, "all", |hub| {
        hub.enforced(revision(1, 1)) == (4, 4)
    })
    .await;
    for agent in &agents {
        for number in 0..EACH {
            agent.subscription.report(&Report::EndpointDown {
                pod: pod(number),
                uid: "uid".into(),
            });
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for taken in 0..4 * EACH {
        let report = tokio::time::timeout(Duration::from_secs(10), reports.recv()).await;
        assert!(
            report.is_ok_and(|report| report.is_some()),
            "only {taken} came"
        );
    }
    assert_eq!(
        leader.hub.enforced(revision(1, 1)),
        (4, 4),
        "and nobody lost the connection"
    );
    for agent in &agents {
        assert_eq!(agent.connected.len(), 1);
    }
}

#[tokio::test]
async fn only_the_nodes_own_agent_with_a_good_token_of_the_same_wire_is_let_in() {
    let operator = Operator::start(Hub::new(1), None).await;
    operator.hub.publish(cluster(2, 1, 2, 2)).await;
    for (hello, token, code, text) in [
        (
            hello(1, &node(0)),
            "rubbish",
            Code::Unauthenticated,
            "refused",
        ),
        (
            hello(1, &node(1)),
            "token of node-0",
            Code::PermissionDenied,
            "node-1",
        ),
        (
            hello(1, &NodeName(EVERY_NODE.into())),
            "token of node-0",
            Code::PermissionDenied,
            "*",
        ),
        (
            hello(7, &node(0)),
            "token of node-0",
            Code::FailedPrecondition,
            "wire versions 7 to 7",
        ),
        (
            up::Message::Beat(proto::Beat {}),
            "token of node-0",
            Code::InvalidArgument,
            "hello",
        ),
    ] {
        let status = raw(&operator, hello, token).await.0.expect_err("refused");
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    // An agent speaks for no other node.
    let (stream, sender) = raw(&operator, hello(1, &node(0)), "token of node-0").await;
    let mut stream = stream.expect("taken in");
    let peers = up::Message::Peers(proto::Peers::default());
    sender.send(message(peers)).await.expect("sent");
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end.expect_err("refused").code(), Code::PermissionDenied);
    // A newer token of another node ends the session.
    let (stream, sender) = raw(&operator, hello(1, &node(0)), "token of node-0").await;
    let mut stream = stream.expect("taken in");
    let token = up::Message::Token("token of node-1".into());
    sender.send(message(token)).await.expect("sent");
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end.expect_err("refused").code(), Code::PermissionDenied);
    eventually(&operator.hub, "nobody left", |hub| {
        hub.sessions().is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_newer_session_of_a_node_counts() {
    let operator = Operator::start(Hub::new(1), None).await;
    operator.hub.publish(cluster(2, 1, 2, 2)).await;
    let (old, _sender) = raw(&operator, hello(1, &node(0)), "token of node-0").await;
    let mut old = old.expect("taken in");
    let (new, _sender) = raw(&operator, hello(1, &node(0)), "token of node-0").await;
    let _new = new.expect("taken in");
    let end = loop {
        match old.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end.expect_err("ended").code(), Code::Aborted);
    eventually(&operator.hub, "one", |hub| hub.sessions().len() == 1).await;
}

#[tokio::test]
async fn tls_is_checked_against_the_ca_and_the_name() {
    let authority = Authority::new();
    let operator = Operator::start(Hub::new(1), Some(authority.tls.clone())).await;
    operator.hub.publish(cluster(2, 1, 2, 2)).await;
    let known = addresses(&[&operator]);
    let mut good = options(&node(0), &known);
    // The CA may change between attempts.
    let ca = Arc::new(Mutex::new(Authority::new().ca));
    let read = Arc::clone(&ca);
    good.ca = Some(Arc::new(move || Ok(read.lock().unwrap().clone())));
    let mut agent = Agent::start(good);
    let Event::Disconnected { why } = agent.step().await else {
        panic!("connected to a server of another CA")
    };
    assert!(why.contains("certificate"), "{why}");
    ca.lock().unwrap().clone_from(&authority.ca);
    agent.until(revision(1, 1)).await;
    let mut wrong = options(&node(1), &known);
    wrong.ca = Some(constant(authority.ca.clone()));
    wrong.server_name = "somebody-else".into();
    let mut agent = Agent::start(wrong);
    let Event::Disconnected { why } = agent.step().await else {
        panic!("connected to a server of another name")
    };
    assert!(why.contains("certificate"), "{why}");
}

async fn join<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.expect("a task"));
    }
    all
}

fn hello(wire: u32, node: &NodeName) -> up::Message {
    up::Message::Hello(proto::Hello {
        oldest_wire: wire,
        newest_wire: wire,
        release: "test".into(),
        node: node.0.clone(),
        held: None,
    })
}

fn message(message: up::Message) -> proto::Up {
    proto::Up {
        message: Some(message),
    }
}

type Raw = Result<tonic::Streaming<proto::Down>, tonic::Status>;

/// A stream by hand.
async fn raw(
    operator: &Operator,
    first: up::Message,
    token: &str,
) -> (Raw, tokio::sync::mpsc::Sender<proto::Up>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    sender.send(message(first)).await.expect("room");
    let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let bearer = format!("Bearer {token}").parse().expect("a value");
    request.metadata_mut().insert("authorization", bearer);
    let mut client = StreamClient::connect(format!("http://{}", operator.address))
        .await
        .expect("connected");
    let answer = client.subscribe(request).await;
    (answer.map(tonic::Response::into_inner), sender)
}
