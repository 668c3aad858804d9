//! `ps`, `pods`, `info`, `version`, `inspect`: tables for people, JSON for programs, ids for shells; and
//! that all of them tell the same.

use crate::{bare, listed};
use serde_json::Value;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;

/// The cells of a table's line; columns are three spaces apart.
fn cells(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn root_ps_shows_what_runs_and_with_a_what_ended() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    assert_eq!(daemon.ok(&["ps"]).lines().count(), 1);
    let idle = ["tail", "-f", "/dev/null"];
    let run = ["run", "-d", "--name", "runs", "-p", "3000:80", "-p", "127.0.0.1:3001:81/udp", NAME];
    let id = daemon.ok(&[&run[..], &idle].concat());
    daemon.cli(&["run", "--name", "ended", NAME, "sh", "-c", "exit 4"]);
    let table = daemon.ok(&["ps"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(
        cells(lines[0]),
        ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "OWNER"]
    );
    let row = cells(lines[1]);
    assert_eq!([row[0], row[1], row[2]], [&id[..12], NAME, "\"tail -f /dev/null\""]);
    assert!(row[3].ends_with(" ago") && row[4].starts_with("Up "), "{row:?}");
    assert_eq!(row[5..], ["0.0.0.0:3000->80/tcp, 127.0.0.1:3001->81/udp", "runs", "wherry"]);
    let all = daemon.ok(&["ps", "-a"]);
    assert_eq!(all.lines().count(), 3);
    // The newest first, as docker has it.
    assert!(all.lines().nth(1).unwrap().contains("Exited (4) "), "{all}");

    let all = listed(&daemon, &["-a"]);
    let known: Vec<&str> = all.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(known, ["ended", "runs"]);
    let (ended, runs) = (&all[0], &all[1]);
    assert_eq!([&ended["state"], &runs["state"]], [&Value::from("exited"), &"running".into()]);
    assert_eq!((&runs["id"], &runs["image"]), (&id.as_str().into(), &NAME.into()));
    assert!(runs["created_at"].as_i64().unwrap() > 0 && runs["owner"] == "wherry");

    // For `rm -f $(wherry ps -aq)`.
    assert_eq!(daemon.ok(&["ps", "-q"]), &id[..12]);
    let both = daemon.ok(&["ps", "-aq"]);
    let both: Vec<&str> = both.lines().collect();
    assert_eq!(daemon.ok(&[&["rm", "-f"], &both[..]].concat()).lines().count(), 2);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_inspect_knows_containers_pods_and_images() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let id = daemon.ok(&["run", "-d", "--name", "seen", NAME, "tail", "-f", "/dev/null"]);
    let read = |names: &[&str]| -> Vec<Value> {
        let words = [&["inspect"], names].concat();
        serde_json::from_str(&daemon.ok(&words)).unwrap()
    };
    let one = read(&["seen"]);
    assert_eq!(one.len(), 1);
    assert!(one[0].to_string().contains(&id), "{one:?}");
    assert_eq!(read(&[&id[..8]]), one);
    let pod = listed(&daemon, &[])[0]["pod"].as_str().unwrap().to_owned();
    let all = read(&["seen", &pod, NAME]);
    assert_eq!((all.len(), &all[0]), (3, &one[0]));
    assert!(all[1].to_string().contains(&pod), "{all:?}");
    assert_eq!(all[2]["tags"][0], NAME);
    let told = daemon.cli(&["inspect", "seen", "none"]);
    assert_eq!(told.code, 125);
    assert!(told.stdout.contains(&id) && told.stderr.contains("\"none\""), "{told:?}");
    daemon.ok(&["rm", "-f", "seen"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_pods_info_and_version_tell_what_is() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    daemon.ok(&["run", "-d", "--name", "one", NAME, "tail", "-f", "/dev/null"]);
    let pods: Value = serde_json::from_str(&daemon.ok(&["pods", "--format", "json"])).unwrap();
    assert_eq!((&pods[0]["name"], &pods[0]["state"]), (&"one".into(), &"Ready".into()));
    assert!(pods[0]["ip"].as_str().unwrap().starts_with("10.89."), "{pods}");
    let table = daemon.ok(&["pods"]);
    let head = table.lines().next().unwrap();
    assert_eq!(cells(head), ["POD ID", "NAMESPACE", "NAME", "STATE", "IP", "CREATED", "OWNER"]);
    let info: Value = serde_json::from_str(&daemon.ok(&["--format", "json", "info"])).unwrap();
    assert_eq!((&info["Containers"], &info["Images"]), (&"1".into(), &"1".into()));
    assert_eq!(info["Runtime ready"], "yes");
    assert!(daemon.ok(&["info"]).lines().any(|line| line.starts_with("Kernel ")));
    let version = daemon.ok(&["version"]);
    let own = env!("CARGO_PKG_VERSION");
    assert!(version.contains(&format!("command line {own}")), "{version}");
    assert!(version.contains(&format!("daemon       {own}")), "{version}");
    daemon.ok(&["rm", "-f", "one"]);
    leaks.assert_same_after(&daemon);
}
