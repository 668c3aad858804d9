//! `stop`, `start`, `rm`: grace, codes, files that stay, and that one wrong name does not stop the
//! others.

use crate::{bare, listed};
use std::time::{Duration, Instant};
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;
use wherry_tests::until;

const POLITE: &str = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
const DEAF: &str = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn root_stop_asks_first_and_kills_then() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for (name, script) in [("polite", POLITE), ("deaf", DEAF), ("now", DEAF)] {
        daemon.ok(&["run", "-d", "--name", name, NAME, "sh", "-c", script]);
        until("a trap", || (daemon.ok(&["logs", name]) == "ready").then_some(()));
    }
    assert_eq!(daemon.ok(&["stop", "polite"]), "polite");
    let asked = Instant::now();
    assert_eq!(daemon.ok(&["stop", "-t", "1", "deaf"]), "deaf");
    assert!(asked.elapsed() >= Duration::from_secs(1));
    daemon.ok(&["stop", "--time", "0", "now"]);
    let code = |name: &str| {
        let all = listed(&daemon, &["-a"]);
        all.iter().find(|c| c["name"] == name).unwrap()["exit_code"].as_i64().unwrap()
    };
    assert_eq!([code("polite"), code("deaf"), code("now")], [3, 137, 137]);
    assert_eq!(daemon.ok(&["logs", "deaf"]), "ready\nasked");
    assert_eq!(daemon.ok(&["logs", "now"]), "ready");
    // What has ended is stopped already.
    assert_eq!(daemon.ok(&["stop", "polite"]), "polite");
    daemon.ok(&["rm", "polite", "deaf", "now"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_several_are_stopped_at_once() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    // The first process of a namespace does not hear of a signal that it has no answer to.
    for (name, command) in
        [("deaf", &["tail", "-f", "/dev/null"][..]), ("polite", &["sh", "-c", POLITE])]
    {
        daemon.ok(&[&["run", "-d", "--name", name, NAME], command].concat());
    }
    until("a trap", || (daemon.ok(&["logs", "polite"]) == "ready").then_some(()));
    // Waits for the first one for ever, and stops the second one all the same.
    let mut begun = daemon.begin(&["stop", "-t", "-1", "deaf", "polite"]);
    until("the end of the second one", || (listed(&daemon, &[]).len() == 1).then_some(()));
    assert!(begun.runs());
    daemon.ok(&["stop", "-t", "0", "deaf"]);
    // Told in the order that was asked for.
    assert_eq!(begun.end().stdout, "deaf\npolite\n");
    daemon.ok(&["rm", "deaf", "polite"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_negative_time_waits_for_ever() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let slow = "trap 'sleep 2; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    daemon.ok(&["run", "-d", "--name", "slow", NAME, "sh", "-c", slow]);
    until("a trap", || (daemon.ok(&["logs", "slow"]) == "ready").then_some(()));
    daemon.ok(&["stop", "-t", "-1", "slow"]);
    assert_eq!(listed(&daemon, &["-a"])[0]["exit_code"], 4);
    daemon.ok(&["rm", "slow"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_is_started_again_is_the_same_container() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "echo run >> /runs; wc -l < /runs; exec tail -f /dev/null";
    let run = ["run", "-d", "--name", "again", "-p", "3000:80", "-m", "64m", NAME, "sh", "-c"];
    let id = daemon.ok(&[&run[..], &[script]].concat());
    let created = listed(&daemon, &[])[0]["created_at"].clone();
    for life in 2..4 {
        daemon.ok(&["stop", "-t", "0", "again"]);
        assert!(listed(&daemon, &[]).is_empty());
        assert_eq!(daemon.ok(&["start", "again"]), "again");
        // Same id, files, log, address, limits.
        let found = &listed(&daemon, &[])[0];
        assert_eq!((&found["id"], &found["created_at"]), (&id.as_str().into(), &created));
        let log = (1..=life).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        until("its output", || (daemon.ok(&["logs", &id]) == log).then_some(()));
        assert_eq!(daemon.ok(&["exec", &id, "wc", "-l", "/runs"]), format!("{life} /runs"));
    }
    // It runs: nothing to do.
    assert_eq!(daemon.ok(&["start", "again"]), "again");
    daemon.ok(&["rm", "-f", "again"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_second_life_is_told_truly_after_a_restart_of_the_daemon() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script =
        "test -e /second && { echo second; exec tail -f /dev/null; }; touch /second; exit 6";
    assert_eq!(daemon.cli(&["run", "--name", "two", NAME, "sh", "-c", script]).code, 6);
    daemon.ok(&["start", "two"]);
    daemon.restart();
    assert_eq!(listed(&daemon, &[])[0]["state"], "running");
    until("its output", || (daemon.ok(&["logs", "two"]) == "second").then_some(()));
    daemon.kill();
    // Nobody is there to hear of the second end but the monitor.
    for process in daemon.space().named("tail") {
        daemon.space().kill(process);
    }
    daemon.start_again();
    assert_eq!(listed(&daemon, &["-a"])[0]["exit_code"], 137);
    daemon.ok(&["start", "two"]);
    daemon.ok(&["rm", "-f", "two"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_second_life_does_not_end_as_the_first_one_did() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "test -e /second && exec tail -f /dev/null; touch /second; exit 6";
    assert_eq!(daemon.cli(&["run", "--name", "two", NAME, "sh", "-c", script]).code, 6);
    daemon.ok(&["start", "two"]);
    let pod = listed(&daemon, &[])[0]["pod"].as_str().unwrap().to_owned();
    let monitor = daemon.cri().pod_info(&pod)["state"]["facts"]["monitor"]["pid"].as_u64();
    // Nobody is left who knows but the journal, and that tells of the first end.
    daemon.kill();
    daemon.space().kill(monitor.unwrap().try_into().unwrap());
    daemon.start_again();
    let ended = &listed(&daemon, &["-a"])[0];
    assert_eq!((&ended["state"], &ended["exit_code"]), (&"exited".into(), &255.into()));
    daemon.ok(&["rm", "two"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_is_started_again_may_fail() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let program = daemon.beside("program");
    std::fs::write(&program, "#!/bin/sh\nexit 2\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(&program, mode(0o755)).unwrap();
    let volume = format!("{}:/program", program.display());
    assert_eq!(daemon.cli(&["run", "--name", "p", "-v", &volume, NAME, "/program"]).code, 2);
    std::fs::set_permissions(&program, mode(0o644)).unwrap();
    for _ in 0..2 {
        let said = daemon.cli(&["start", "p"]);
        assert_eq!((said.code, said.stdout.as_str()), (126, ""), "{said:?}");
        assert!(wherry_tests::cli::sentence(&said.stderr).contains("/program"), "{said:?}");
        assert_eq!(listed(&daemon, &["-a"])[0]["exit_code"], 128);
    }
    std::fs::set_permissions(&program, mode(0o755)).unwrap();
    daemon.ok(&["start", "p"]);
    let code = || listed(&daemon, &["-a"])[0]["exit_code"].clone();
    until("an end", || (code() == 2).then_some(()));
    daemon.ok(&["rm", "-f", "p"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_runs_is_not_removed_by_mistake() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    daemon.ok(&["run", "-d", "--name", "runs", NAME, "tail", "-f", "/dev/null"]);
    let told = daemon.refused(&["rm", "runs"]);
    assert!(told.contains("\"runs\"") && told.contains("stop") && told.contains("-f"), "{told}");
    assert_eq!(listed(&daemon, &[]).len(), 1);
    assert_eq!(daemon.ok(&["rm", "-f", "runs"]), "runs");
    assert!(listed(&daemon, &["-a"]).is_empty());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_one_wrong_name_does_not_stop_the_others() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for name in ["one", "two"] {
        daemon.ok(&["run", "-d", "--name", name, NAME, "tail", "-f", "/dev/null"]);
    }
    for (verb, done) in [("stop", ["-t", "0"]), ("start", ["", ""]), ("rm", ["-f", ""])] {
        let options = done.into_iter().filter(|word| !word.is_empty());
        let words = [verb].into_iter().chain(options).chain(["one", "none", "two"]);
        let said = daemon.cli(&words.collect::<Vec<_>>());
        assert_eq!(said.stdout, "one\ntwo\n", "{verb}: {said:?}");
        let told = wherry_tests::cli::sentence(&said.stderr);
        assert!(told.contains("\"none\"") && told.contains("wherry ps -a"), "{told}");
        // Who says -f wants it to be gone, and it is.
        assert_eq!(said.code, if verb == "rm" { 0 } else { 125 }, "{verb}");
    }
    leaks.assert_same_after(&daemon);
}
