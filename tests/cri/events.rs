//! Events of pods and containers: everything that happens, once, in order, with the statuses of the pod as
//! it was; and nothing lost for whoever listens first and lists then.

use shim_proto::runtime_v1 as cri;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::codec::Streaming;
use wherry_tests::cri::Runtime;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;

type Events = Streaming<cri::ContainerEventResponse>;

const CREATED: cri::ContainerEventType = cri::ContainerEventType::ContainerCreatedEvent;
const STARTED: cri::ContainerEventType = cri::ContainerEventType::ContainerStartedEvent;
const STOPPED: cri::ContainerEventType = cri::ContainerEventType::ContainerStoppedEvent;
const DELETED: cri::ContainerEventType = cri::ContainerEventType::ContainerDeletedEvent;

fn listen(daemon: &Daemon) -> Events {
    let call = |mut client: Runtime| async move {
        client.get_container_events(cri::GetEventsRequest {}).await
    };
    daemon.cri().ask(call).unwrap().into_inner()
}

/// The next one; there must be one.
fn next(daemon: &Daemon, events: &mut Events) -> cri::ContainerEventResponse {
    daemon.cri().ask(|_client| events.message()).unwrap().expect("the stream goes on")
}

/// The state of a container right after it was told of.
fn shown_after(what: cri::ContainerEventType) -> Option<cri::ContainerState> {
    match what {
        CREATED => Some(cri::ContainerState::ContainerCreated),
        STARTED => Some(cri::ContainerState::ContainerRunning),
        STOPPED => Some(cri::ContainerState::ContainerExited),
        DELETED => None,
    }
}

#[test]
fn root_everything_that_happens_is_told_in_order() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let (mut events, mut second) = (listen(&daemon), listen(&daemon));
    let pod = daemon.pod("told", Network::Pod);
    let id = pod.idle("c");
    cri.stop(&id, 0).unwrap();
    cri.remove(&id).unwrap();
    let bad = pod.create(&pod.container("bad", &["/no/such/program"]));
    cri.start(&bad).unwrap_err();
    let short = pod.run_in("short", &["true"]);
    cri.ended(&short);
    let last = pod.idle("last");
    pod.remove();
    let wanted = [
        (&pod.id, CREATED),
        (&pod.id, STARTED),
        (&id, CREATED),
        (&id, STARTED),
        (&id, STOPPED),
        (&id, DELETED),
        (&bad, CREATED),
        (&bad, STOPPED),
        (&short, CREATED),
        (&short, STARTED),
        (&short, STOPPED),
        (&last, CREATED),
        (&last, STARTED),
        (&last, STOPPED),
        (&pod.id, STOPPED),
    ];
    let mut at = 0;
    for (of, what) in wanted {
        let event = next(&daemon, &mut events);
        assert_eq!((&event.container_id, event.container_event_type()), (of, what));
        assert!(event.created_at >= at, "time runs backwards");
        at = event.created_at;
        let status = event.pod_sandbox_status.clone().unwrap();
        let metadata = status.metadata.clone().unwrap();
        assert_eq!((status.id.as_str(), metadata.uid.as_str()), (&*pod.id, "uid-of-told"));
        let is_ready = status.state() == cri::PodSandboxState::SandboxReady;
        assert_eq!(is_ready, (of, what) != (&pod.id, STOPPED));
        // What is told can be seen in what comes with it.
        let own = event.containers_statuses.iter().find(|one| one.id == *of);
        let state = own.map(cri::ContainerStatus::state);
        assert_eq!(state, shown_after(what).filter(|_| *of != pod.id), "{event:?}");
        assert_eq!(next(&daemon, &mut second), event);
    }
    // What a pod still has goes with it, and the pod last.
    let gone: Vec<_> = (0..4).map(|_| next(&daemon, &mut events)).collect();
    assert!(gone.iter().all(|event| event.container_event_type() == DELETED));
    let ids: BTreeSet<&str> = gone.iter().map(|event| event.container_id.as_str()).collect();
    assert_eq!(ids, [&bad, &short, &last, &pod.id].map(String::as_str).into());
    assert_eq!(gone[3].container_id, pod.id);
    assert!(gone[3].pod_sandbox_status.is_some());
    drop((events, second));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_shortest_life_has_a_beginning() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("short", Network::Node);
    for index in 0..20 {
        let id = pod.run_in(&format!("c{index}"), &["true"]);
        let ended = daemon.cri().ended(&id);
        assert!(ended.started_at > 0 && ended.finished_at >= ended.started_at, "{ended:?}");
        daemon.cri().remove(&id).unwrap();
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_who_listens_first_and_lists_then_misses_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("busy", Network::Node);
    let enough = AtomicBool::new(false);
    let (made, listed, mut events) = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut made = Vec::new();
            while !enough.load(Ordering::Relaxed) || made.len() < 3 {
                let name = format!("c{}", made.len());
                made.push(pod.create(&pod.container(&name, &["true"])));
            }
            made
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
        let events = listen(&daemon);
        let listed: BTreeSet<String> =
            daemon.cri().containers().unwrap().into_iter().map(|one| one.id).collect();
        std::thread::sleep(std::time::Duration::from_millis(200));
        enough.store(true, Ordering::Relaxed);
        (work.join().unwrap(), listed, events)
    });
    let mut unseen: BTreeSet<&String> = made.iter().filter(|id| !listed.contains(*id)).collect();
    assert!(!unseen.is_empty() && !listed.is_empty(), "nothing was made meanwhile");
    while !unseen.is_empty() {
        let event = next(&daemon, &mut events);
        assert_eq!(event.container_event_type(), CREATED);
        // It may be in the list too, if it was made between listening and listing.
        let is_new = unseen.remove(&event.container_id);
        assert!(is_new || listed.contains(&event.container_id));
    }
    drop(events);
    pod.remove();
    leaks.assert_same_after(&daemon);
}
