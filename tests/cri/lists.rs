//! Lists that come in several messages: the same as the lists in one message, whole, without doubles, in
//! messages that a client takes, and no message at all where there is nothing.

use shim_proto::runtime_v1 as cri;
use std::collections::BTreeSet;
use tonic::Code;
use wherry_tests::cri::{Images, Runtime, all_of};
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network};

/// What one message may have: far below the 16 MiB of the client.
const MESSAGE_BYTES: usize = 4 << 20;

/// The items of all messages; each message has some.
fn items<M, T>(messages: Vec<M>, of: impl Fn(M) -> Vec<T>) -> Vec<T> {
    let mut all = Vec::new();
    for message in messages {
        let part = of(message);
        assert!(!part.is_empty(), "an empty message");
        all.extend(part);
    }
    all
}

fn pods(daemon: &Daemon, filter: Option<cri::PodSandboxFilter>) -> Vec<cri::PodSandbox> {
    let request = cri::StreamPodSandboxesRequest { filter };
    let call = |client: Runtime| async move {
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES);
        all_of(client.stream_pod_sandboxes(request).await).await
    };
    items(daemon.cri().ask(call).unwrap(), |m| m.pod_sandboxes)
}

fn containers(daemon: &Daemon, filter: Option<cri::ContainerFilter>) -> Vec<cri::Container> {
    let request = cri::StreamContainersRequest { filter };
    let call = |client: Runtime| async move {
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES);
        all_of(client.stream_containers(request).await).await
    };
    items(daemon.cri().ask(call).unwrap(), |m| m.containers)
}

fn images(daemon: &Daemon) -> Vec<cri::Image> {
    let call = |client: Images| async move {
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES);
        all_of(client.stream_images(cri::StreamImagesRequest::default()).await).await
    };
    items(daemon.cri().ask_images(call).unwrap(), |m| m.images)
}

#[test]
fn root_streamed_lists_are_the_lists() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    assert!(pods(&daemon, None).is_empty() && containers(&daemon, None).is_empty());
    let (one, two) = (daemon.pod("one", Network::Node), daemon.pod("two", Network::Node));
    let ids = [one.idle("a"), one.create(&one.container("b", &["true"])), two.idle("c")];
    assert_eq!(pods(&daemon, None), cri.pods().unwrap());
    assert_eq!(containers(&daemon, None), cri.containers().unwrap());
    assert_eq!(images(&daemon), cri.images().unwrap());
    let found: BTreeSet<String> = containers(&daemon, None).into_iter().map(|c| c.id).collect();
    assert_eq!(found, ids.iter().cloned().collect());
    // Filters are those of the lists.
    let filter = cri::ContainerFilter { pod_sandbox_id: two.id.clone(), ..Default::default() };
    let only: Vec<_> = containers(&daemon, Some(filter)).into_iter().map(|c| c.id).collect();
    assert_eq!(only, ids[2..]);
    let filter = cri::PodSandboxFilter { id: "ffff".repeat(16), ..Default::default() };
    assert!(pods(&daemon, Some(filter)).is_empty());
    one.remove();
    two.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_list_that_is_too_large_for_one_message_can_be_streamed() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let large = |index: usize| {
        let mut config = requests::pod(&format!("large-{index}"), Network::Node, &daemon.logs());
        config.annotations.insert("large".into(), "x".repeat(480 << 10));
        Pod::run(&daemon, config)
    };
    // 40 of them are more than a client takes in one message.
    let made: Vec<Pod<'_>> = (0..40).map(large).collect();
    let refused = daemon.cri().pods().unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let streamed = pods(&daemon, None);
    let found: BTreeSet<&str> = streamed.iter().map(|pod| pod.id.as_str()).collect();
    assert_eq!((streamed.len(), found.len()), (made.len(), made.len()));
    assert!(made.iter().all(|pod| found.contains(pod.id.as_str())));
    for pod in made {
        pod.remove();
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_streamed_statistics_are_those_of_what_runs() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let containers = || {
        let call = |client: Runtime| async move {
            let mut client = client.max_decoding_message_size(MESSAGE_BYTES);
            let request = cri::StreamContainerStatsRequest::default();
            all_of(client.stream_container_stats(request).await).await
        };
        items(cri.ask(call).unwrap(), |m| m.container_stats)
    };
    let pods = || {
        let call = |client: Runtime| async move {
            let mut client = client.max_decoding_message_size(MESSAGE_BYTES);
            let request = cri::StreamPodSandboxStatsRequest::default();
            all_of(client.stream_pod_sandbox_stats(request).await).await
        };
        items(cri.ask(call).unwrap(), |m| m.pod_sandbox_stats)
    };
    assert!(containers().is_empty() && pods().is_empty());
    let pod = daemon.pod("measured", Network::Node);
    let running = pod.idle("a");
    pod.create(&pod.container("b", &["true"]));
    let of = |stats: cri::ContainerStats| stats.attributes.unwrap().id;
    assert_eq!(containers().into_iter().map(of).collect::<Vec<_>>(), [running]);
    let of = |stats: cri::PodSandboxStats| stats.attributes.unwrap().id;
    assert_eq!(pods().into_iter().map(of).collect::<Vec<_>>(), [pod.id.as_str()]);
    pod.remove();
    leaks.assert_same_after(&daemon);
}
