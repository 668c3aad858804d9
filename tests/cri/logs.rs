//! The log files that the kubelet reads: form, both streams, long lines, rotation without a gap.

use shim_proto::runtime_v1::ContainerState;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;
use wherry_tests::{log, until};

#[test]
fn root_both_streams_are_in_the_log() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("streams", Network::Node);
    let script = "echo one; echo two >&2; echo; printf 'no end'";
    let id = pod.run_in("c", &["sh", "-c", script]);
    let status = daemon.cri().ended(&id);
    assert_eq!(status.log_path, pod.log("c").to_string_lossy());
    // Everything was written before the end was told.
    let lines = log::read(pod.log("c"));
    let of = |is_error: bool| -> Vec<&str> {
        let own = lines.iter().filter(|line| line.is_error == is_error);
        own.map(|line| line.text.as_str()).collect()
    };
    assert_eq!(of(false), ["one", "", "no end"]);
    assert_eq!(of(true), ["two"]);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_long_line_comes_in_parts() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("long", Network::Node);
    let script =
        "i=0; while [ $i -lt 5000 ]; do printf '%04d-' $i; i=$((i+1)); done; echo; echo short";
    let id = pod.run_in("c", &["sh", "-c", script]);
    daemon.cri().ended(&id);
    let numbers: Vec<String> = (0..5000).map(|i| format!("{i:04}-")).collect();
    let long = numbers.concat();
    assert_eq!(log::said(pod.log("c")), format!("{long}\nshort\n"));
    let lines = log::read(pod.log("c"));
    assert!(lines.iter().all(|line| line.text.len() <= 16 << 10), "a part is too long");
    let parts: Vec<bool> = lines.iter().map(|line| line.is_partial).collect();
    assert!(parts.starts_with(&[true]) && parts.ends_with(&[false, false]), "{parts:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_log_is_rotated_without_a_gap() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("rotation", Network::Node);
    let script = "i=0; while :; do echo $i; i=$((i+1)); usleep 500; done";
    let id = pod.run_in("c", &["sh", "-c", script]);
    let count = |name: &str| log::read(pod.log(name)).len();
    for old in ["old-1", "old-2"] {
        until("some lines", || (count("c") > 100).then_some(()));
        std::fs::rename(pod.log("c"), pod.log(old)).unwrap();
        cri.reopen_log(&id).unwrap();
        assert!(pod.log("c").exists());
    }
    until("some lines", || (count("c") > 100).then_some(()));
    cri.stop(&id, 0).unwrap();
    let all: String = ["old-1", "old-2", "c"].map(|name| log::said(pod.log(name))).concat();
    let numbers: Vec<usize> = all.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    let ended = cri.reopen_log(&id).unwrap_err();
    assert_eq!(ended.code(), tonic::Code::FailedPrecondition, "{ended:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_every_attempt_has_its_own_log() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("attempts", Network::Node);
    for attempt in 0..2 {
        let mut config = pod.container("c", &["echo", &format!("attempt {attempt}")]);
        config.metadata.as_mut().unwrap().attempt = attempt;
        config.log_path = format!("c/{attempt}.log");
        let id = pod.start(&config);
        daemon.cri().ended(&id);
        daemon.cri().remove(&id).unwrap();
    }
    // The kubelet reads logs of containers that it had removed.
    for attempt in 0..2 {
        let text = format!("attempt {attempt}\n");
        assert_eq!(log::said(pod.log(&format!("c/{attempt}"))), text);
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_million_lines_are_a_million_lines() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("many", Network::Node);
    let id = pod.run_in("c", &["seq", "1", "1000000"]);
    // The daemon has no part in it: it answers while they come.
    while cri.status(&id).state() != ContainerState::ContainerExited {
        assert_eq!(cri.containers().unwrap().len(), 1);
    }
    let said = log::said(pod.log("c"));
    let mut lines = said.lines();
    for number in 1..=1_000_000 {
        assert_eq!(lines.next(), Some(number.to_string().as_str()));
    }
    assert_eq!(lines.next(), None);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_bytes_that_are_no_text_are_kept() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("bytes", Network::Node);
    // Every byte but the line's end, three times in a row, then the same without an end.
    let script = "i=0; while [ $i -lt 256 ]; do [ $i = 10 ] || printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done >/all
cat /all /all /all; echo; cat /all";
    let id = pod.run_in("c", &["sh", "-c", script]);
    daemon.cri().ended(&id);
    let all: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let log = std::fs::read(pod.log("c")).unwrap();
    let mut records = log.split(|byte| *byte == b'\n');
    let texts: Vec<&[u8]> = records.by_ref().take(2).map(|record| &record[40..]).collect();
    assert_eq!(texts, [[&all[..]; 3].concat(), all]);
    assert_eq!(records.next(), Some(&b""[..]));
    pod.remove();
    leaks.assert_same_after(&daemon);
}
