//! A life of a pod, interrupted at many moments by the death of the daemon, of a monitor, of the zygote
//! or of all three. Whatever was half done: lists agree with what runs, the same calls can be made again,
//! and when all is removed, nothing is left.

use shim_proto::runtime_v1 as cri;
use std::time::{Duration, Instant};
use tonic::Status;
use wherry_tests::cri::Cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::repetitions;
use wherry_tests::requests::{self, Network};

/// Moments of a life that are tried per repetition.
const MOMENTS: u32 = 8;

/// Everything that a kubelet does with a pod, once.
fn live(daemon: &Daemon) -> Result<(), Status> {
    let cri = daemon.cri();
    let sandbox = requests::pod("moment", Network::Pod, &daemon.logs());
    let config = requests::container("c", &["tail", "-f", "/dev/null"], &sandbox);
    let pod = named(cri, cri.run_pod(&sandbox))?;
    let id = cri.create(&pod, &config, &sandbox)?;
    cri.start(&id)?;
    cri.exec(&id, &["true"], 0)?;
    cri.stop(&id, 0)?;
    cri.remove(&id)?;
    cri.stop_pod(&pod)?;
    cri.remove_pod(&pod)
}

/// The pod that was made, also if it was an earlier call that made it.
fn named(cri: &Cri, made: Result<String, Status>) -> Result<String, Status> {
    match made {
        Err(status) if status.code() == tonic::Code::AlreadyExists => {
            let pods = cri.pods()?;
            let owner = pods.iter().find(|pod| status.message().contains(&pod.id));
            owner.map(|pod| pod.id.clone()).ok_or(status)
        }
        other => other,
    }
}

/// What is listed as running runs, and nothing else does.
fn lists_are_true(daemon: &Daemon) {
    let cri = daemon.cri();
    let running = cri::ContainerState::ContainerRunning;
    let listed = cri.containers().unwrap();
    let listed = listed.iter().filter(|container| container.state() == running).count();
    let found = daemon.space().named("tail").len();
    assert_eq!(found, listed, "listed as running and found to run");
    for pod in cri.pods().unwrap() {
        cri.pod_status(&pod.id).unwrap();
    }
}

fn remove_everything(daemon: &Daemon) {
    for pod in daemon.cri().pods().unwrap() {
        daemon.cri().stop_pod(&pod.id).unwrap();
        daemon.cri().remove_pod(&pod.id).unwrap();
    }
    assert!(daemon.cri().containers().unwrap().is_empty());
    drop(std::fs::remove_dir_all(daemon.logs().join("moment")));
}

/// Lives, and meanwhile does `fault`, at many moments from the begin to the end of a life.
fn at_many_moments(daemon: &Daemon, fault: impl Fn(&Daemon) + Sync) {
    let begun = Instant::now();
    live(daemon).unwrap();
    let whole = begun.elapsed();
    drop(std::fs::remove_dir_all(daemon.logs().join("moment")));
    let leaks = Leaks::before(daemon);
    let tries = MOMENTS * repetitions();
    for number in 0..tries {
        let moment = whole * number / tries;
        std::thread::scope(|scope| {
            let fault = &fault;
            let done = scope.spawn(move || {
                std::thread::sleep(moment);
                fault(daemon);
            });
            // A call may end in an error, which says what it met; what counts is what is true then.
            while !done.is_finished() {
                if live(daemon).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        settle(daemon);
        lists_are_true(daemon);
        remove_everything(daemon);
        live(daemon).unwrap_or_else(|status| panic!("at {moment:?}, again: {status:?}"));
        drop(std::fs::remove_dir_all(daemon.logs().join("moment")));
        leaks.assert_same_after(daemon);
    }
}

/// Until what is told of monitors that died has been told.
fn settle(daemon: &Daemon) {
    let count = |name| daemon.space().named(name).len();
    wherry_tests::until("as many monitors as pods that are ready", || {
        let pods = daemon.cri().pods().unwrap();
        let ready = cri::PodSandboxState::SandboxReady;
        let ready = pods.iter().filter(|pod| pod.state() == ready).count();
        (ready == count("wherry-monitor")).then_some(())
    });
}

fn kill_all_named(daemon: &Daemon, name: &str) {
    for pid in daemon.space().named(name) {
        daemon.space().kill(pid);
    }
}

#[test]
fn root_the_daemon_may_die_at_any_moment() {
    let Some(daemon) = Daemon::start() else { return };
    at_many_moments(&daemon, Daemon::restart);
}

#[test]
fn root_a_monitor_may_die_at_any_moment() {
    let Some(daemon) = Daemon::start() else { return };
    at_many_moments(&daemon, |daemon| kill_all_named(daemon, "wherry-monitor"));
}

#[test]
fn root_the_zygote_may_die_at_any_moment() {
    let Some(daemon) = Daemon::start() else { return };
    at_many_moments(&daemon, |daemon| kill_all_named(daemon, "wherry-zygote"));
}

#[test]
fn root_daemon_and_monitors_may_die_together() {
    let Some(daemon) = Daemon::start() else { return };
    at_many_moments(&daemon, |daemon| {
        daemon.kill();
        kill_all_named(daemon, "wherry-monitor");
        daemon.start_again();
    });
}
