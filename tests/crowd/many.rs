//! Two hundred pods by eight clients at once, each phase by all of them: what one client does, no other
//! loses, and what a client sees is what it did.

use shim_proto::runtime_v1 as cri;
use std::collections::BTreeSet;
use wherry_tests::cri::Cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{self, Network};
use wherry_tests::weight::Weight;
use wherry_tests::{log, say, until};

const CLIENTS: usize = 8;
/// Of each client.
const PODS: usize = 25;

/// A pod and its container.
struct One {
    name: String,
    config: cri::PodSandboxConfig,
    pod: String,
    container: String,
}

fn start(cri: &Cri, daemon: &Daemon, name: &str) -> One {
    let config = requests::pod(name, Network::Pod, &daemon.logs());
    let pod = cri.run_pod(&config).unwrap();
    let script = format!("echo I am {name}; exec tail -f /dev/null");
    let wanted = requests::container("c", &["sh", "-c", &script], &config);
    let container = cri.create(&pod, &wanted, &config).unwrap();
    cri.start(&container).unwrap();
    One { name: name.to_owned(), config, pod, container }
}

/// Does something for every pod, each client with its own ones, all clients at once.
fn all<'a, T: Send>(
    clients: &'a [Cri],
    pods: &'a [Vec<One>],
    deed: impl Fn(&'a Cri, &'a One) -> T + Sync,
) -> Vec<T> {
    let deed = &deed;
    std::thread::scope(|scope| {
        let work = clients.iter().zip(pods).map(|(cri, own)| {
            scope.spawn(move || own.iter().map(|one| deed(cri, one)).collect::<Vec<T>>())
        });
        let work: Vec<_> = work.collect();
        work.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn listed(cri: &Cri, state: cri::PodSandboxState) -> usize {
    cri.pods().unwrap().iter().filter(|pod| pod.state() == state).count()
}

/// What a pod is, by everything that a client may ask.
fn is_itself(cri: &Cri, one: &One) -> String {
    let said = cri.exec(&one.container, &["hostname"], 0).unwrap();
    assert_eq!((said.stdout.trim_end(), said.code), (one.name.as_str(), 0), "{said:?}");
    let path = std::path::Path::new(&one.config.log_directory).join("c.log");
    let line = format!("I am {}\n", one.name);
    until("the container's word", || (log::said(&path) == line).then_some(()));
    assert_eq!(cri.status(&one.container).state(), cri::ContainerState::ContainerRunning);
    assert!(cri.pods().unwrap().len() >= CLIENTS * PODS);
    cri.pod_status(&one.pod).unwrap().status.unwrap().network.unwrap().ip
}

#[test]
fn root_two_hundred_pods_by_eight_clients() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let weight = || Weight::of(daemon.space(), daemon.space().named("wherry")[0]);
    let begun = std::time::Instant::now();
    let told = |what: &str| say(&format!("{what}: {} after {:.1?}", weight(), begun.elapsed()));
    told("no pod");
    let clients: Vec<Cri> = (0..CLIENTS).map(|_| daemon.new_client()).collect();
    let pods: Vec<Vec<One>> = std::thread::scope(|scope| {
        let work = clients.iter().enumerate().map(|(number, cri)| {
            let (daemon, name) = (&daemon, move |at| format!("of-{number}-{at}"));
            scope.spawn(move || (0..PODS).map(|at| start(cri, daemon, &name(at))).collect())
        });
        let work: Vec<_> = work.collect();
        work.into_iter().map(|client| client.join().unwrap()).collect()
    });
    told("200 pods");
    let addresses: BTreeSet<String> = all(&clients, &pods, is_itself).into_iter().collect();
    assert_eq!(addresses.len(), CLIENTS * PODS, "each has an address of its own");
    let (ready, not_ready) =
        (cri::PodSandboxState::SandboxReady, cri::PodSandboxState::SandboxNotready);
    assert_eq!(listed(&clients[0], ready), CLIENTS * PODS);
    assert_eq!(clients[1].containers().unwrap().len(), CLIENTS * PODS);
    told("seen");
    all(&clients, &pods, |cri, one| {
        cri.stop(&one.container, 0).unwrap();
        assert_eq!(cri.status(&one.container).exit_code, 137);
        cri.stop_pod(&one.pod).unwrap();
    });
    assert_eq!(listed(&clients[2], not_ready), CLIENTS * PODS);
    told("stopped");
    all(&clients, &pods, |cri, one| {
        cri.remove(&one.container).unwrap();
        cri.remove_pod(&one.pod).unwrap();
        std::fs::remove_dir_all(&one.config.log_directory).unwrap();
    });
    assert!(clients[3].pods().unwrap().is_empty());
    assert!(clients[4].containers().unwrap().is_empty());
    told("removed");
    drop(clients);
    leaks.assert_same_after(&daemon);
}
