//! Terminals of containers and execs, and execs whose streams the asker has.

use crate::Test;
use crate::client::{Pod, Stdio, command, id, shell, text};
use shim_model::limits;
use shim_model::plan::{Attributes, ExecPlan, InitPlan, Step};
use shim_model::wire::{Attach, ExecEnd, ExecStreamed, FromMonitor, ToMonitor};
use shim_sys::error::Errno;
use shim_sys::{fd, tty};
use std::os::fd::OwnedFd;

pub(crate) const TESTS: &[Test] = &[
    ("root_a_containers_terminal_is_its_own", root_own_terminal),
    ("root_what_is_typed_and_sized_arrives", root_typed),
    ("root_a_terminal_that_nobody_has_open_is_not_its_end", root_reopened),
    ("root_a_terminal_belongs_to_the_user", root_user),
    ("root_a_devpts_that_is_none_is_refused", root_false_devpts),
    ("root_an_exec_begins_and_ends_apart", root_exec),
    ("root_an_exec_in_a_terminal", root_exec_terminal),
    ("root_what_a_streamed_exec_leaves_behind_lives_on", root_left_behind),
    ("root_a_streamed_exec_ends_with_its_asker", root_exec_asker),
];

fn new_fs(fstype: &str, target: &str, options: &[(&str, Option<&str>)]) -> Step {
    let option = |(key, value): &(&str, Option<&str>)| (text(key), value.map(text));
    Step::NewFs {
        fstype: text(fstype),
        source: text(fstype),
        options: options.iter().map(option).collect(),
        attributes: Attributes::default(),
        target: text(target),
    }
}

/// A plan with a /dev of its own; `terminal` is what makes the terminal.
fn with_dev(script: &str, terminal: &[Step]) -> InitPlan {
    let mut plan = shell(script);
    let null = plan.mounts.remove(2);
    let gid = [("newinstance", None), ("mode", Some("0620")), ("gid", Some("5"))];
    let dev = [
        new_fs("tmpfs", "/dev", &[]),
        new_fs("devpts", "/dev/pts", &gid),
        null,
        Step::Device {
            path: text("/dev/tty"),
            block: false,
            major: 5,
            minor: 0,
            mode: 0o666,
            uid: 0,
            gid: 0,
        },
    ];
    plan.mounts.splice(2..2, dev);
    let pivot = plan.mounts.len() - 1;
    plan.mounts.splice(pivot..pivot, terminal.iter().cloned());
    plan
}

const TERMINAL: Step = Step::Terminal { columns: 90, rows: 30 };

fn terminal(script: &str) -> InitPlan {
    with_dev(script, &[TERMINAL, Step::Console])
}

fn root_own_terminal() {
    let mut pod = Pod::new("terminal");
    pod.stdio = Stdio::Terminal;
    let script = "busybox tty; busybox stty size; echo err >&2; echo tty > /dev/tty; \
                  echo console > /dev/console; busybox stat -c '%t:%T %a %g' /dev/pts/0; \
                  ls /proc/self/fd; cut -d' ' -f7 /proc/self/stat; exit 6";
    std::os::unix::fs::symlink("busybox", pod.rootfs.0.path().join("bin/cut")).unwrap();
    let (code, log) = pod.run(1, terminal(script));
    let wanted =
        ["/dev/pts/0", "30 90", "err", "tty", "console", "88:0 620 5", "0  1  2  3", "34816"];
    let wanted = wanted.map(|line| format!("stdout F {line}"));
    assert_eq!((code, log), (6, wanted.to_vec()));
    let raw = std::fs::read_to_string(pod.log_path(1)).unwrap();
    assert!(raw.split_inclusive('\n').all(|line| line.ends_with("\r\n")), "{raw:?}");
    pod.quit();
}

fn attach(pod: &mut Pod) -> (OwnedFd, OwnedFd) {
    let (theirs, input) = fd::pipe().unwrap();
    let (output, out) = fd::pipe().unwrap();
    let request = Attach {
        container: id(1),
        stdin: true,
        stdout: true,
        stderr: false,
        early: false,
        hold: true,
    };
    assert_eq!(pod.ask(&ToMonitor::Attach(request), &[theirs, out]), FromMonitor::Done);
    (input, output)
}

/// Reads until this is the end of what was printed.
fn hears(output: &OwnedFd, wanted: &str) {
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.ends_with(wanted) {
        fd::wait_readable(output).unwrap();
        let count = fd::read(output, &mut buffer).unwrap_or(0);
        assert!(count > 0, "{wanted:?} is not the end of {heard:?}");
        heard.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
}

fn root_typed() {
    let mut pod = Pod::new("typed");
    pod.stdio = Stdio::Terminal;
    let script = "trap 'busybox stty size' WINCH; trap 'echo stopped; exit 5' INT; \
                  while :; do read line && echo got $line; done";
    pod.start(1, terminal(script));
    let (input, output) = attach(&mut pod);
    fd::write_all(&input, b"hello\n").unwrap();
    hears(&output, "hello\r\ngot hello\r\n");
    let resize = |columns, rows| ToMonitor::Resize { container: id(1), columns, rows };
    assert_eq!(pod.ask(&resize(0, 0), &[]), FromMonitor::Done);
    assert_eq!(pod.ask(&resize(132, 50), &[]), FromMonitor::Done);
    hears(&output, "50 132\r\n");
    // A key makes a signal, for the terminal is the controlling one.
    fd::write_all(&input, b"\x03").unwrap();
    hears(&output, "stopped\r\n");
    assert_eq!(pod.exit(1).code, 5);
    assert_eq!(fd::read(&output, &mut [0; 8]).unwrap(), 0);
    assert_eq!(pod.ask(&resize(10, 10), &[]), FromMonitor::Done);
    let other = ToMonitor::Resize { container: id(2), columns: 1, rows: 1 };
    assert_eq!(pod.ask(&other, &[]), FromMonitor::Unknown);
    pod.quit();
}

fn root_reopened() {
    let mut pod = Pod::new("reopened");
    pod.stdio = Stdio::Terminal;
    let script = "exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back > /dev/console; exit 2";
    let (code, log) = pod.run(1, terminal(script));
    assert_eq!((code, log), (2, vec!["stdout F back".to_owned()]));
}

fn root_user() {
    let mut pod = Pod::new("owner");
    pod.stdio = Stdio::Terminal;
    let root = pod.rootfs.0.path();
    std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = "busybox stat -c '%u:%g' /dev/pts/0 /dev/console; echo again > /dev/pts/0";
    let mut plan = terminal(script);
    plan.process.push(Step::User { uid: 1000, gid: 1001, groups: vec![] });
    let (code, log) = pod.run(1, plan);
    let wanted = ["1000:5", "1000:5", "again"].map(|line| format!("stdout F {line}"));
    assert_eq!((code, log), (0, wanted.to_vec()));
}

fn root_false_devpts() {
    let mut pod = Pod::new("false");
    pod.stdio = Stdio::Terminal;
    let link = Step::Link { path: text("/dev/pts/ptmx"), to: text("/dev/null") };
    let mut plan = with_dev("", &[new_fs("tmpfs", "/dev/pts", &[]), link, TERMINAL]);
    let request = pod.begin(1, plan.clone(), vec![]);
    match pod.reply(request) {
        FromMonitor::Failed(failure) => {
            assert!(failure.step.starts_with("make a terminal of /dev/pts"), "{failure}");
            assert_eq!(failure.errno, Errno::ENOTTY as i32);
        }
        other => panic!("{other:?}"),
    }
    // A plan that does not fit what is asked for is refused before anything is made.
    plan.mounts.retain(|step| *step != TERMINAL);
    let request = pod.begin(1, plan, vec![]);
    assert!(
        matches!(pod.reply(request), FromMonitor::Failed(failure) if failure.errno == Errno::EPROTO as i32)
    );
}

/// Asks for an exec with all streams, or a terminal.
fn exec(pod: &mut Pod, script: &str, tty: bool) -> (u64, Vec<OwnedFd>) {
    let mut process = vec![Step::Session];
    let (mut ours, mut theirs) = (vec![], vec![]);
    if tty {
        process.insert(0, Step::Terminal { columns: 70, rows: 20 });
    } else {
        let (read, write) = fd::pipe().unwrap();
        ours.push(write);
        theirs.push(read);
        for _ in 0..2 {
            let (read, write) = fd::pipe().unwrap();
            ours.push(read);
            theirs.push(write);
        }
    }
    let plan = ExecPlan { process, program: command(&["/bin/sh", "-c", script]) };
    let container = id(1);
    let request = ExecStreamed { container, plan, stdin: true, stdout: true, stderr: !tty, tty };
    (pod.send(&ToMonitor::ExecStreamed(Box::new(request)), &theirs), ours)
}

fn begun(pod: &mut Pod, script: &str, tty: bool) -> (u64, Vec<OwnedFd>) {
    let (number, mut ours) = exec(pod, script, tty);
    assert_eq!(pod.reply(number), FromMonitor::ExecBegan);
    ours.extend(pod.came.drain(..));
    (number, ours)
}

fn over(pod: &mut Pod, number: u64) -> i32 {
    pod.hear(|frame| match &frame.body {
        FromMonitor::ExecOver { number: of, end: ExecEnd { code, timed_out: false } }
            if *of == number =>
        {
            Some(*code)
        }
        _ => None,
    })
}

fn groups_gone(pod: &Pod) {
    while pod.group.folders() > 0 {
        std::thread::yield_now();
    }
}

fn root_exec() {
    let mut pod = Pod::new("streamed");
    pod.start(1, shell("sleep 1000"));
    let (number, mut ours) = begun(&mut pod, "cat; echo err >&2; exit 5", false);
    fd::write_all(&ours[0], b"through").unwrap();
    drop(ours.remove(0));
    assert_eq!(over(&mut pod, number), 5);
    let read = |fd: OwnedFd| fd::read_to_end(fd, 1 << 20).unwrap();
    let error = read(ours.remove(1));
    assert_eq!((read(ours.remove(0)), error), (b"through".to_vec(), b"err\n".to_vec()));
    groups_gone(&pod);
    let (number, _ours) = exec(&mut pod, "", false);
    assert_eq!(pod.reply(number), FromMonitor::ExecBegan);
    assert_eq!(over(&mut pod, number), 0);
    let plan = ExecPlan { process: vec![], program: command(&["/bin/nope"]) };
    let (stdin, stdout, stderr, tty) = (false, false, false, false);
    let request = ExecStreamed { container: id(1), plan, stdin, stdout, stderr, tty };
    let reply = pod.ask(&ToMonitor::ExecStreamed(Box::new(request)), &[]);
    assert!(matches!(reply, FromMonitor::Failed(failure) if failure.exec));
    groups_gone(&pod);
}

fn root_exec_terminal() {
    let mut pod = Pod::new("exectty");
    pod.start(1, with_dev("sleep 1000", &[]));
    let script = "busybox tty; busybox stty size; read line; echo got $line; exit 9";
    let (number, ours) = begun(&mut pod, script, true);
    let master = &ours[0];
    hears(master, "/dev/pts/0\r\n20 70\r\n");
    fd::write_all(master, b"typed\n").unwrap();
    hears(master, "typed\r\ngot typed\r\n");
    assert_eq!(over(&mut pod, number), 9);
    drop(ours);
    // The asker is gone: the terminal hangs up, and what ran in it is killed.
    let (_, ours) = begun(&mut pod, "trap '' HUP; echo begun; sleep 1000", true);
    hears(&ours[0], "begun\r\n");
    tty::set_size(&ours[0], tty::Size { columns: 5, rows: 5 }).unwrap();
    pod.connect();
    groups_gone(&pod);
    assert_eq!(pod.state()[0].exit, None);
    // Without a devpts there is no terminal, and it is said which.
    let mut bare = Pod::new("bare");
    bare.start(1, shell("sleep 1000"));
    let (number, _) = exec(&mut bare, "", true);
    match bare.reply(number) {
        FromMonitor::Failed(failure) => assert_eq!(failure.errno, Errno::ENOENT as i32),
        other => panic!("{other:?}"),
    }
}

fn root_left_behind() {
    let mut pod = Pod::new("behind");
    pod.start(1, shell("sleep 1000"));
    let leave = "sleep 1001 </dev/null >/dev/null 2>&1 & echo $!";
    let (number, ours) = begun(&mut pod, leave, false);
    assert_eq!(over(&mut pod, number), 0);
    hears(&ours[1], "\n");
    assert_eq!(pod.group.folders(), 1);
    for _ in 1..limits::EXECS_LEFT_BEHIND + 2 {
        let (number, _ours) = begun(&mut pod, leave, false);
        assert_eq!(over(&mut pod, number), 0);
    }
    // Beyond the bound they are killed.
    while pod.group.folders() > limits::EXECS_LEFT_BEHIND {
        std::thread::yield_now();
    }
    assert_eq!(pod.group.folders(), limits::EXECS_LEFT_BEHIND);
    // A group goes after its last process, at the end of a later exec. The first process is not killed by
    // one of its own namespace.
    let (number, _ours) = begun(&mut pod, "busybox killall sleep", false);
    assert_eq!(over(&mut pod, number), 0);
    while pod.group.folders() > 0 {
        let (number, _ours) = begun(&mut pod, "", false);
        assert_eq!(over(&mut pod, number), 0);
    }
    // What is left behind ends with the container.
    let (number, _ours) = begun(&mut pod, leave, false);
    assert_eq!(over(&mut pod, number), 0);
    assert_eq!(pod.ask(&ToMonitor::Kill { container: id(1) }, &[]), FromMonitor::Done);
    assert_eq!(pod.exit(1).code, 137);
    groups_gone(&pod);
}

fn root_exec_asker() {
    let mut pod = Pod::new("asker");
    pod.start(1, shell("sleep 1000"));
    let script = "sleep 1001 & echo begun; sleep 1002";
    let (number, ours) = begun(&mut pod, script, false);
    hears(&ours[1], "begun\n");
    assert_eq!(pod.ask(&ToMonitor::KillExec { number }, &[]), FromMonitor::Done);
    assert_eq!(over(&mut pod, number), 137);
    groups_gone(&pod);
    let (_, ours) = begun(&mut pod, script, false);
    hears(&ours[1], "begun\n");
    pod.connect();
    groups_gone(&pod);
    assert_eq!(pod.state()[0].exit, None);
}
