//! `logs`: both streams as the container wrote them, the last lines, times, and following to the end.

use crate::bare;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;
use wherry_tests::until;

#[test]
fn root_both_streams_come_back() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "echo one; echo two >&2; echo; printf three";
    daemon.cli(&["run", "--name", "said", NAME, "sh", "-c", script]);
    let said = daemon.cli(&["logs", "said"]);
    let found = (said.stdout.as_str(), said.stderr.as_str(), said.code);
    assert_eq!(found, ("one\n\nthree", "two\n", 0));
    // Of what has ended, following ends too.
    assert_eq!(daemon.cli(&["logs", "-f", "said"]), said);
    daemon.ok(&["rm", "said"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_last_lines_are_lines_of_the_container() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    // The second line is longer than a record of the log.
    let script = "echo first; head -c 40000 /dev/zero | tr '\\0' x; echo; seq 3";
    daemon.cli(&["run", "--name", "said", NAME, "sh", "-c", script]);
    let tail = |lines: &str| daemon.ok(&["logs", "--tail", lines, "said"]);
    assert_eq!(tail("0"), "");
    assert_eq!(tail("2"), "2\n3");
    let long = "x".repeat(40_000);
    assert_eq!(tail("4"), format!("{long}\n1\n2\n3"));
    assert_eq!(tail("5"), format!("first\n{long}\n1\n2\n3"));
    for all in ["all", "6", "1000000"] {
        assert_eq!(tail(all), tail("5"));
    }
    assert_eq!(daemon.ok(&["logs", "-n", "1", "said"]), "3");
    let told = daemon.refused(&["logs", "--tail", "some", "said"]);
    assert!(told.contains("--tail"), "{told}");
    daemon.ok(&["rm", "said"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_times_stand_before_each_line() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "echo first; head -c 40000 /dev/zero | tr '\\0' x; echo; echo last";
    daemon.cli(&["run", "--name", "said", NAME, "sh", "-c", script]);
    let said = daemon.ok(&["logs", "-t", "said"]);
    let lines: Vec<(&str, &str)> = said.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let texts: Vec<&str> = lines.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts, ["first", &"x".repeat(40_000), "last"]);
    for (time, _) in lines {
        assert!(time.len() == 30 && time.ends_with('Z') && time.contains('T'), "{time}");
    }
    daemon.ok(&["rm", "said"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_following_goes_on_until_the_end() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "for i in 1 2 3; do until test -e /tmp/$i; do sleep 0.05; done; echo $i; done";
    daemon.ok(&["run", "-d", "--name", "slow", NAME, "sh", "-c", script]);
    daemon.ok(&["exec", "slow", "touch", "/tmp/1"]);
    until("a first line", || (daemon.ok(&["logs", "slow"]) == "1").then_some(()));
    let mut all = daemon.begin(&["logs", "-f", "slow"]);
    let later = daemon.begin(&["logs", "-f", "--tail", "0", "slow"]);
    all.says("1\n");
    daemon.ok(&["exec", "slow", "touch", "/tmp/2"]);
    all.says("2\n");
    assert!(all.runs());
    // The log is a file: it goes on while no daemon runs.
    daemon.restart();
    daemon.ok(&["exec", "slow", "touch", "/tmp/3"]);
    assert_eq!(all.end().stdout, "1\n2\n3\n");
    assert_eq!(later.end().stdout, "2\n3\n");
    daemon.ok(&["rm", "slow"]);
    leaks.assert_same_after(&daemon);
}
