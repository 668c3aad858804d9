//! Execs: exit codes and output, timeouts that end everything, what is left behind, bounds.

use crate::Test;
use crate::client::{Pod, command, id, shell};
use shim_model::limits;
use shim_model::plan::{ExecPlan, Step};
use shim_model::wire::{Exec, ExecEnd, FromMonitor, ToMonitor};
use shim_sys::fd;
use std::os::fd::OwnedFd;

pub(crate) const TESTS: &[Test] = &[
    ("root_an_exec_runs_in_its_container", root_an_exec_runs_in_its_container),
    ("root_a_timeout_ends_all_that_an_exec_started_and_nothing_else", root_timeout),
    ("root_what_an_exec_leaves_behind_is_killed", root_left_behind),
    ("root_an_exec_ends_with_its_container", root_ends_with_container),
    ("root_an_exec_ends_with_its_connection", root_ends_with_connection),
    ("root_too_many_execs_are_refused", root_too_many),
    ("root_a_command_that_is_not_there_is_told", root_missing_command),
];

struct Pipes {
    output: OwnedFd,
    error: OwnedFd,
}

impl Pipes {
    /// Everything that was printed, once the last writer is gone.
    fn text(&self) -> (String, String) {
        let read = |fd| String::from_utf8(fd::read_to_end(fd, 1 << 20).unwrap()).unwrap();
        (read(&self.output), read(&self.error))
    }
}

fn exec(pod: &mut Pod, argv: &[&str], timeout: u64) -> (u64, Pipes) {
    let (output, theirs) = fd::pipe().unwrap();
    let (error, errors) = fd::pipe().unwrap();
    let plan = ExecPlan { process: vec![Step::Session], program: command(argv) };
    let exec = Exec { container: id(1), plan, timeout, stdin: false };
    let number = pod.send(&ToMonitor::Exec(Box::new(exec)), &[theirs, errors]);
    (number, Pipes { output, error })
}

fn ended(code: i32, timed_out: bool) -> FromMonitor {
    FromMonitor::ExecEnded(ExecEnd { code, timed_out })
}

fn groups_gone(pod: &Pod) {
    while pod.group.folders() > 0 {
        std::thread::yield_now();
    }
}

fn root_an_exec_runs_in_its_container() {
    let mut pod = Pod::new("exec");
    pod.start(1, shell("sleep 1000"));
    let script = "ls /bin/busybox; cat /proc/1/cmdline >&2; exit 5";
    let (number, pipes) = exec(&mut pod, &["/bin/sh", "-c", script], 0);
    assert_eq!(pod.reply(number), ended(5, false));
    let (output, error) = pipes.text();
    assert_eq!(output, "/bin/busybox\n");
    assert!(error.contains("sleep"), "{error}");
    groups_gone(&pod);
}

fn root_timeout() {
    let mut pod = Pod::new("timeout");
    let first = pod.start(1, shell("sleep 1000"));
    let script = "sleep 1001 & sleep 1002 & echo begun; wait";
    let (number, pipes) = exec(&mut pod, &["/bin/sh", "-c", script], 50_000_000);
    assert_eq!(pod.reply(number), ended(137, true));
    // The end of the pipes is the end of all that held them.
    assert_eq!(pipes.text().0, "begun\n");
    assert_eq!(pod.state()[0].process, first);
    assert_eq!(pod.state()[0].exit, None);
    groups_gone(&pod);
}

fn root_left_behind() {
    let mut pod = Pod::new("left");
    pod.start(1, shell("sleep 1000"));
    let (number, pipes) = exec(&mut pod, &["/bin/sh", "-c", "sleep 1001 & echo done"], 0);
    assert_eq!(pod.reply(number), ended(0, false));
    assert_eq!(pipes.text().0, "done\n");
    groups_gone(&pod);
}

fn root_ends_with_container() {
    let mut pod = Pod::new("together");
    pod.start(1, shell("sleep 1000"));
    // It runs: one that is killed before that could not be executed, which is another answer.
    let (number, pipes) = exec(&mut pod, &["/bin/sh", "-c", "echo begun; exec sleep 1001"], 0);
    fd::wait_readable(&pipes.output).unwrap();
    let (other, pipes) = exec(&mut pod, &["/bin/echo", "begun"], 0);
    assert_eq!(pod.reply(other), ended(0, false));
    assert_eq!(pipes.text().0, "begun\n");
    assert_eq!(pod.ask(&ToMonitor::Kill { container: id(1) }, &[]), FromMonitor::Done);
    assert_eq!(pod.exit(1).code, 137);
    assert_eq!(pod.reply(number), ended(137, false));
    let (late, _pipes) = exec(&mut pod, &["/bin/echo"], 0);
    assert!(matches!(pod.reply(late), FromMonitor::Failed(_)));
}

fn root_ends_with_connection() {
    let mut pod = Pod::new("connection");
    pod.start(1, shell("sleep 1000"));
    let (_, pipes) = exec(&mut pod, &["/bin/sh", "-c", "echo begun; sleep 1001"], 0);
    fd::wait_readable(&pipes.output).unwrap();
    pod.connect();
    assert_eq!(pipes.text().0, "begun\n");
    groups_gone(&pod);
    assert_eq!(pod.state()[0].exit, None);
    let (number, pipes) = exec(&mut pod, &["/bin/sh", "-c", "echo begun; sleep 1001"], 0);
    fd::wait_readable(&pipes.output).unwrap();
    assert_eq!(pod.ask(&ToMonitor::KillExec { number }, &[]), FromMonitor::Done);
    assert_eq!(pod.reply(number), ended(137, false));
}

fn root_too_many() {
    let mut pod = Pod::new("many");
    pod.start(1, shell("sleep 1000"));
    let mut held = Vec::new();
    for _ in 0..limits::EXECS_PER_CONTAINER {
        held.push(exec(&mut pod, &["/bin/sleep", "1001"], 0));
    }
    let (number, _pipes) = exec(&mut pod, &["/bin/true"], 0);
    match pod.reply(number) {
        FromMonitor::Failed(failure) => assert_eq!(failure.errno, 11),
        other => panic!("{other:?}"),
    }
    pod.quit();
    groups_gone(&pod);
}

fn root_missing_command() {
    let mut pod = Pod::new("nocommand");
    pod.start(1, shell("sleep 1000"));
    let (number, _pipes) = exec(&mut pod, &["/bin/nope"], 0);
    match pod.reply(number) {
        FromMonitor::Failed(failure) => {
            assert_eq!((failure.step.as_str(), failure.exec), ("execve(/bin/nope)", true));
        }
        other => panic!("{other:?}"),
    }
    groups_gone(&pod);
}
