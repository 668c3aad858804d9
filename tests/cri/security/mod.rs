//! The security context of pods and containers, field by field, seen from inside: what was asked for is in
//! force for the first process and for every exec, and what cannot be is refused by the name of its field.

mod cdi;
mod user;

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::pods::Pod;

/// A container that waits, to be changed.
fn idle(pod: &Pod<'_>, name: &str) -> cri::ContainerConfig {
    pod.container(name, &["tail", "-f", "/dev/null"])
}

/// The refusal of a container.
fn refused(daemon: &Daemon, pod: &Pod<'_>, config: &cri::ContainerConfig) -> String {
    let answer = daemon.cri().create(&pod.id, config, &pod.config);
    answer.map(|id| panic!("{id} was made")).unwrap_err().message().to_owned()
}
