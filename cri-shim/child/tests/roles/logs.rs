//! Logs: what is read is written, whoever dies; rotation, floods, full disks, late writers.

use crate::Test;
use crate::client::{Pod, id, shell};
use shim_model::plan::PidNamespace;
use shim_model::wire::{FromMonitor, ToMonitor};
use std::fs;

pub(crate) const TESTS: &[Test] = &[
    ("root_no_line_is_lost_when_the_daemon_dies", root_daemon_dies),
    ("root_a_rotated_log_continues_in_the_new_file", root_rotation),
    ("root_a_line_without_end_is_cut_into_fragments", root_fragments),
    ("root_a_writer_outside_the_group_does_not_delay_the_exit_for_ever", root_late_writer),
];

const LINES: usize = 200_000;

fn root_daemon_dies() {
    let mut pod = Pod::new("daemon");
    pod.start(1, shell(&format!("seq 1 {LINES}")));
    while fs::metadata(pod.log_path(1)).unwrap().len() < 1 << 20 {
        std::thread::yield_now();
    }
    pod.lose_daemon();
    pod.connect();
    // The exit may have been told to nobody; the state has it all the same.
    while pod.state()[0].exit.is_none() {
        std::thread::yield_now();
    }
    let wanted: Vec<String> = (1..=LINES).map(|number| format!("stdout F {number}")).collect();
    assert!(pod.log(1) == wanted, "{} lines", pod.log(1).len());
    assert_eq!(pod.state()[0].exit.as_ref().map(|exit| exit.code), Some(0));
    pod.quit();
}

fn root_rotation() {
    let mut pod = Pod::new("rotation");
    pod.start(1, shell(&format!("seq 1 {LINES}")));
    let (path, old) = (pod.log_path(1), pod.dir.path().join("old"));
    while fs::metadata(&path).unwrap().len() < 1 << 20 {
        std::thread::yield_now();
    }
    fs::rename(&path, &old).unwrap();
    let new = pod.open_log(1);
    assert_eq!(pod.ask(&ToMonitor::Reopen { container: id(1) }, &[new]), FromMonitor::Done);
    let complete = fs::metadata(&old).unwrap().len();
    pod.exit(1);
    assert_eq!(fs::metadata(&old).unwrap().len(), complete);
    let text = [fs::read(&old).unwrap(), fs::read(&path).unwrap()].concat();
    let text = String::from_utf8(text).unwrap();
    let numbers =
        text.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
    assert!(numbers.eq(1..=LINES));
}

fn root_fragments() {
    let mut pod = Pod::new("fragments");
    let script = "busybox dd if=/bin/busybox bs=1000 count=40 2>/tmp/err | busybox tr '\\n' x";
    let (code, _) = pod.run(1, shell(script));
    assert_eq!(code, 0);
    let bytes = fs::read(pod.log_path(1)).unwrap();
    let mut content = Vec::new();
    for record in bytes.split_inclusive(|byte| *byte == b'\n') {
        assert!(record[31..].starts_with(b"stdout P "));
        content.extend_from_slice(&record[40..record.len() - 1]);
    }
    let busybox = fs::read("/usr/bin/busybox").unwrap();
    let wanted: Vec<u8> =
        busybox[..40_000].iter().map(|byte| if *byte == b'\n' { b'x' } else { *byte }).collect();
    assert!(content == wanted);
}

fn root_late_writer() {
    let mut pod = Pod::new("late");
    let mut plan = shell("echo first; (sleep 1000 &) ; echo last");
    plan.pid = PidNamespace::Node;
    // Without the group's descriptors the monitor cannot kill what is left; it holds the pipes.
    let (code, log) = {
        pod.group = crate::client::Group::none();
        pod.run(1, plan)
    };
    assert_eq!((code, log), (0, vec!["stdout F first".to_owned(), "stdout F last".to_owned()]));
    let pid = pod.process.pid;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let left: i32 = children.trim().parse().unwrap();
    shim_sys::process::kill_number(left).unwrap();
}
