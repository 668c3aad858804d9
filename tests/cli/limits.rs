//! `--memory` and `--cpus`: in force in the kernel, and told when they end a container.

use crate::{bare, listed};
use wherry_tests::daemon::Daemon;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;

/// The first of these files that a container's group has.
fn file(daemon: &Daemon, id: &str, names: [&str; 2]) -> String {
    let group = format!("/wherry/pods/{id}");
    let found = names.into_iter().find_map(|name| daemon.cgroups().file(&group, name));
    std::fs::read_to_string(found.unwrap()).unwrap().trim().to_owned()
}

#[test]
fn root_limits_are_in_force() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let options = ["run", "-d", "--name", "small", "--memory", "64m", "--cpus", "0.5"];
    let id = daemon.ok(&[&options[..], &[NAME, "tail", "-f", "/dev/null"]].concat());
    let memory = file(&daemon, &id, ["memory.max", "memory.limit_in_bytes"]);
    assert_eq!(memory, (64 << 20).to_string());
    let cpus = file(&daemon, &id, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(["50000 100000", "50000"].contains(&cpus.as_str()), "{cpus}");
    daemon.ok(&["rm", "-f", "small"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_who_takes_too_much_memory_is_told_as_such() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let run = ["run", "--name", "big", "-m", "16m", NAME, "sh", "-c"];
    let said = daemon.cli(&[&run[..], &["exec tail -c 200m /dev/zero"]].concat());
    assert_eq!((said.code, said.stdout.as_str()), (137, ""), "{said:?}");
    let status = listed(&daemon, &["-a"])[0]["status"].as_str().unwrap().to_owned();
    assert!(status.starts_with("Exited (137) OOMKilled"), "{status}");
    daemon.ok(&["rm", "big"]);
    leaks.assert_same_after(&daemon);
}
