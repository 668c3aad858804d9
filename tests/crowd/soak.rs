//! Lives of pods one after another, by four clients, until a leak would show: what is left is counted at
//! the end, memory and descriptors of daemon and zygote all along. `hack/check --long` asks for more.

use wherry_tests::cri::Cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{self, Network};
use wherry_tests::weight::Weight;
use wherry_tests::{log, repetitions, say};

const CLIENTS: u32 = 4;
/// Lives in the short checks, and for each repetition of the long ones.
const LIVES: u32 = 100;
/// From so many repetitions on the checks are long ones: two thousand lives and more.
const LONG: u32 = 20;
/// Parts of a soak; each is weighed at its end.
const PARTS: u32 = 4;
/// Private memory that daemon or zygote may gain after the first part, in KiB. Allocators keep what one
/// busy moment needed; a leak of one KiB per life would be 1,500 in the long run.
const GROWTH: u64 = 1_024;
/// Descriptors likewise: namespaces made ahead come and go, and a teardown may be under way.
const DESCRIPTORS: u64 = 16;

/// Everything that a kubelet does with a pod, once, and what it sees of it.
fn live(cri: &Cri, daemon: &Daemon, name: &str, network: Network) {
    let sandbox = requests::pod(name, network, &daemon.logs());
    let pod = cri.run_pod(&sandbox).unwrap();
    let script = format!("echo {name}; exec tail -f /dev/null");
    let config = requests::container("c", &["sh", "-c", &script], &sandbox);
    let id = cri.create(&pod, &config, &sandbox).unwrap();
    cri.start(&id).unwrap();
    assert_eq!(cri.shell(&id, "echo $((6 * 7))"), "42\n");
    let wanted = requests::container("d", &["sh", "-c", "exit 3"], &sandbox);
    let second = cri.create(&pod, &wanted, &sandbox).unwrap();
    cri.start(&second).unwrap();
    assert_eq!(cri.ended(&second).exit_code, 3);
    cri.stop(&id, 0).unwrap();
    assert_eq!(cri.status(&id).exit_code, 137);
    let said = log::said(std::path::Path::new(&sandbox.log_directory).join("c.log"));
    assert_eq!(said, format!("{name}\n"));
    cri.remove(&second).unwrap();
    cri.remove(&id).unwrap();
    cri.stop_pod(&pod).unwrap();
    cri.remove_pod(&pod).unwrap();
    std::fs::remove_dir_all(&sandbox.log_directory).unwrap();
}

/// So many lives, shared by the clients.
fn part(daemon: &Daemon, clients: &[Cri], number: u32, lives: u32) {
    std::thread::scope(|scope| {
        for (client, cri) in clients.iter().enumerate() {
            scope.spawn(move || {
                for life in 0..lives / CLIENTS {
                    // A network of its own is the dearer life: every second one.
                    let network = if life % 2 == 0 { Network::Pod } else { Network::Node };
                    live(cri, daemon, &format!("soak-{number}-{client}-{life}"), network);
                }
            });
        }
    });
}

#[test]
fn root_lives_leave_nothing_and_cost_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let all = if repetitions() >= LONG { LIVES * repetitions() } else { LIVES };
    let weigh = |name: &str| Weight::of(daemon.space(), daemon.space().named(name)[0]);
    let both = || [weigh("wherry"), weigh("wherry-zygote")];
    let begun = std::time::Instant::now();
    let told = |lives: u32, [own, zygote]: [Weight; 2]| {
        say(&format!("{lives} lives, {:.1?}: daemon {own}; zygote {zygote}", begun.elapsed()));
    };
    told(0, both());
    let clients: Vec<Cri> = (0..CLIENTS).map(|_| daemon.new_client()).collect();
    let mut weights = Vec::new();
    for number in 0..PARTS {
        part(&daemon, &clients, number, all / PARTS);
        assert!(
            clients[0].pods().unwrap().is_empty() && clients[0].containers().unwrap().is_empty()
        );
        weights.push(both());
        told((number + 1) * all / PARTS, both());
    }
    let (first, last) = (weights[0], weights[weights.len() - 1]);
    for (before, after) in first.iter().zip(last) {
        assert!(after.private <= before.private + GROWTH, "{before} became {after}");
        assert!(after.descriptors <= before.descriptors + DESCRIPTORS, "{before} became {after}");
    }
    drop(clients);
    leaks.assert_same_after(&daemon);
}
