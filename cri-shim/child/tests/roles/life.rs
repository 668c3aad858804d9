//! A container's life: start, exit, signals, failures, what the journal says of it.

use crate::Test;
use crate::client::{Pod, command, id, shell, text};
use shim_model::plan::{CapabilitySets, PidNamespace, Step};
use shim_model::wire::{FromMonitor, Journal, ToMonitor};
use std::fs;

pub(crate) const TESTS: &[Test] = &[
    ("root_a_container_runs_and_its_exit_is_told", root_a_container_runs_and_its_exit_is_told),
    ("root_a_program_that_is_not_there_is_its_own_fault", root_a_missing_program),
    ("root_a_failing_step_is_named", root_a_failing_step_is_named),
    ("root_the_first_candidate_that_exists_is_run", root_candidates),
    ("root_signals_reach_the_first_process", root_signals),
    ("root_a_kill_ends_everything_in_the_group", root_kill),
    ("root_a_user_has_what_the_plan_says_and_no_more", root_user),
    ("root_a_filter_may_forbid_all_but_what_the_program_needs", root_filter),
    ("root_nothing_of_ours_is_open_in_a_container", root_nothing_open),
    ("root_orphans_of_the_nodes_namespace_are_reaped", root_orphans),
    ("root_an_idle_monitor_is_small", root_memory),
];

fn root_a_container_runs_and_its_exit_is_told() {
    let mut pod = Pod::new("life");
    let process = pod.start(1, shell("echo out; echo err >&2; exit 7"));
    let exit = pod.exit(1);
    assert_eq!((exit.code, exit.oom, exit.log_lost), (7, false, 0));
    let mut log = pod.log(1);
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out"]);
    let journal = pod.journal();
    let wanted = [
        matches!(&journal[0], Journal::Monitor { process: own } if *own == pod.process),
        matches!(&journal[1], Journal::Cloned { process: own, .. } if *own == process),
        matches!(&journal[2], Journal::Started { process: own, .. } if *own == process),
        journal[3] == Journal::Exited { container: id(1), exit: exit.clone() },
    ];
    assert_eq!(wanted, [true; 4], "{journal:?}");
    let state = pod.state();
    assert_eq!((state.len(), state[0].exit.clone()), (1, Some(exit)));
    assert_eq!(pod.ask(&ToMonitor::Forget { container: id(1) }, &[]), FromMonitor::Done);
    assert_eq!(pod.ask(&ToMonitor::Forget { container: id(1) }, &[]), FromMonitor::Unknown);
    pod.quit();
}

fn root_a_missing_program() {
    let mut pod = Pod::new("missing");
    let mut plan = shell("");
    plan.program = command(&["/bin/nope"]);
    let request = pod.begin(1, plan, vec![]);
    match pod.reply(request) {
        FromMonitor::Failed(failure) => {
            assert_eq!((failure.step.as_str(), failure.exec), ("execve(/bin/nope)", true));
            assert_eq!(failure.errno, 2);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(pod.journal().last(), Some(Journal::NotStarted { .. })));
    assert_eq!(pod.run(1, shell("exit 3")).0, 3);
}

fn root_a_failing_step_is_named() {
    let mut pod = Pod::new("step");
    let mut plan = shell("");
    plan.process.push(Step::Chdir(text("/no/such/folder")));
    let request = pod.begin(1, plan, vec![]);
    let FromMonitor::Failed(failure) = pod.reply(request) else { panic!("started") };
    assert!(failure.step.starts_with("change to the working folder /no/such/folder"), "{failure}");
    assert_eq!((failure.errno, failure.exec), (2, false));
}

fn root_candidates() {
    let mut pod = Pod::new("candidates");
    let mut plan = shell("");
    plan.program = command(&["id"]);
    let candidates = ["/usr/local/bin/id", "/bin/busybox/id", "/bin/id"];
    plan.program.candidates = candidates.map(text).to_vec();
    assert_eq!(pod.run(1, plan), (0, vec!["stdout F uid=0 gid=0".to_owned()]));
}

fn root_signals() {
    let mut pod = Pod::new("signals");
    pod.start(1, shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"));
    while pod.log(1).is_empty() {
        std::thread::yield_now();
    }
    let term = ToMonitor::Signal { container: id(1), signal: 15 };
    assert_eq!(pod.ask(&term, &[]), FromMonitor::Done);
    assert_eq!(pod.exit(1).code, 9);
    assert_eq!(pod.ask(&term, &[]), FromMonitor::Done);
    let other = ToMonitor::Signal { container: id(2), signal: 15 };
    assert_eq!(pod.ask(&other, &[]), FromMonitor::Unknown);
}

fn root_kill() {
    let mut pod = Pod::new("kill");
    let mut plan = shell("sleep 1000 & sleep 1000");
    plan.pid = PidNamespace::Node;
    pod.start(1, plan);
    assert_eq!(pod.ask(&ToMonitor::Kill { container: id(1) }, &[]), FromMonitor::Done);
    let exit = pod.exit(1);
    assert_eq!((exit.code, exit.oom), (137, false));
}

fn root_user() {
    let mut pod = Pod::new("user");
    let script = "echo hi > /dev/fd/1 && id && grep -E 'Cap|NoNew|Groups' /proc/self/status";
    let mut plan = shell(script);
    let sets = CapabilitySets { bounding: 1 << 10, ..CapabilitySets::default() };
    let (uid, gid, no_new_privs) = (1000, 1001, true);
    plan.mounts.insert(2, Step::Link { path: text("/dev/fd"), to: text("/proc/self/fd") });
    plan.process.extend([
        Step::NoNewPrivs,
        Step::Bounding(1 << 10),
        Step::User { uid, gid, groups: vec![7, 8] },
        Step::Capabilities(sets),
        Step::Verify { uid, gid, capabilities: sets, no_new_privs },
    ]);
    std::os::unix::fs::symlink("busybox", pod.rootfs.0.path().join("bin/grep")).unwrap();
    fs::set_permissions(pod.rootfs.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let (code, log) = pod.run(1, plan);
    let log = log.join("\n").replace('\t', " ");
    assert_eq!(code, 0, "{log}");
    for line in [
        "uid=1000 gid=1001 groups=7,8",
        "stdout F hi",
        "CapEff: 0000000000000000",
        "CapBnd: 0000000000000400",
        "NoNewPrivs: 1",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
}

fn root_nothing_open() {
    let mut pod = Pod::new("open");
    pod.start(1, shell("sleep 1000"));
    let (code, log) = pod.run(2, shell("ls /proc/self/fd; echo $$; umask; ulimit -n"));
    // 3 is the folder that ls reads. The monitor may open more files than it was given, its containers not.
    let files = shim_sys::credentials::limit(7).unwrap().soft.to_string();
    let wanted = ["0", "1", "2", "3", "1", "0022", &files].map(|text| format!("stdout F {text}"));
    assert_eq!((code, log), (0, wanted.to_vec()));
}

fn root_orphans() {
    let mut pod = Pod::new("orphans");
    let mut plan = shell("echo $PPID; (sleep 0.01 & sleep 0.01 & sleep 0.01 &); sleep 1000");
    plan.pid = PidNamespace::Node;
    pod.start(1, plan);
    let children = || {
        let pid = pod.process.pid;
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
    };
    while children().split_whitespace().count() > 1 || pod.log(1).is_empty() {
        std::thread::yield_now();
    }
    let log = pod.log(1);
    assert!(log.contains(&format!("stdout F {}", pod.process.pid)), "{log:?}");
}

fn root_memory() {
    let mut pod = Pod::new("memory");
    pod.start(1, shell("for i in 1 2 3 4 5; do echo line $i; done; sleep 1000"));
    while pod.log(1).len() < 5 {
        std::thread::yield_now();
    }
    // The buffers are given back a second after the last output, later on a busy machine. Pages of the program
    // itself do not count: who else has them mapped at the moment is chance.
    let rollup = || fs::read_to_string(format!("/proc/{}/smaps_rollup", pod.process.pid)).unwrap();
    let own = || {
        let kib = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        rollup().lines().find(|line| line.starts_with("Anonymous:")).map(kib).unwrap()
    };
    let begun = std::time::Instant::now();
    while own() > 300 {
        assert!(begun.elapsed().as_secs() < 20, "{}", rollup());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("memory of an idle monitor's own: {} KiB", own());
}

/// A filter that answers these calls with errno 1, and allows everything else.
fn deny(calls: &[u32]) -> Vec<u8> {
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    // ld nr; for each: jeq call -> next, else skip it; ret errno 1; at the end ret allow.
    let mut filter = instruction(0x20, 0, 0, 0);
    for call in calls {
        filter.extend(instruction(0x15, 0, 1, *call));
        filter.extend(instruction(0x06, 0, 0, 0x0005_0001));
    }
    filter.extend(instruction(0x06, 0, 0, 0x7fff_0000));
    filter
}

fn root_filter() {
    let mut pod = Pod::new("filter");
    let mut plan = shell("mkdir /tmp/x 2>&1; umask; exit 4");
    std::os::unix::fs::symlink("busybox", pod.rootfs.0.path().join("bin/mkdir")).unwrap();
    // x86_64: mkdir, and what the walk itself calls last: rt_sigprocmask, umask, close_range.
    let filter = deny(&[83, 14, 95, 436]);
    plan.process.extend([Step::NoNewPrivs, Step::Seccomp { filter, log: false }]);
    let (code, log) = pod.run(1, plan);
    assert_eq!(code, 4, "{log:?}");
    assert!(log[0].contains("Operation not permitted"), "{log:?}");
    let mut plan = shell("");
    plan.process.extend([Step::NoNewPrivs, Step::Seccomp { filter: vec![0; 8], log: false }]);
    let request = pod.begin(2, plan, vec![]);
    let FromMonitor::Failed(failure) = pod.reply(request) else { panic!("started") };
    assert!(failure.step.starts_with("install the seccomp filter"), "{failure}");
}
