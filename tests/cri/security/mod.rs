//! The security context of pods and containers, field by field, seen from inside: what was asked for is in
//! force for the first process and for every exec, and what cannot be is refused by the name of its field.

mod apparmor;
mod cdi;
mod devices;
mod ids;
mod limits;
mod mounts;
mod rights;
mod seccomp;
mod selinux;
mod user;
mod volumes;

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::pods::Pod;

/// A container that waits, to be changed.
fn idle(pod: &Pod<'_>, name: &str) -> cri::ContainerConfig {
    pod.container(name, &["tail", "-f", "/dev/null"])
}

fn number(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

/// Of a shell script in a container that must fail: what it says to that.
fn denied(daemon: &Daemon, id: &str, script: &str) -> String {
    let said = daemon.cri().exec(id, &["sh", "-c", script], 10).unwrap();
    assert_ne!(said.code, 0, "{script}: {said:?}");
    said.stderr
}

/// A line of `/proc/self/status` of an exec in a container.
fn status(daemon: &Daemon, id: &str, key: &str) -> String {
    let text = daemon.cri().shell(id, &format!("grep ^{key}: /proc/self/status"));
    text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// The refusal of a container.
fn refused(daemon: &Daemon, pod: &Pod<'_>, config: &cri::ContainerConfig) -> String {
    let answer = daemon.cri().create(&pod.id, config, &pod.config);
    answer.map(|id| panic!("{id} was made")).unwrap_err().message().to_owned()
}
