//! `run`, `exec` and `attach` without a terminal: output as it comes, input, codes, signals, readers that
//! are slow or leave, and what is killed with whom.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;
use wherry_tests::daemon::{Daemon, Setup};
use wherry_tests::images;
use wherry_tests::leaks::Leaks;
use wherry_tests::ptys::{Seen, program};
use wherry_tests::space::signal_kill;
use wherry_tests::until;

fn daemon() -> Option<(Daemon, Leaks)> {
    let daemon = Daemon::with(&Setup { network: false, ..Setup::default() })?;
    let leaks = Leaks::before(&daemon);
    Some((daemon, leaks))
}

fn start(daemon: &Daemon, arguments: &[&str]) -> Child {
    let mut command = daemon.command_line();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Reads until this was printed.
fn prints(child: &mut Child, text: &str) {
    let (mut seen, mut buffer) = (String::new(), [0; 1024]);
    while !seen.contains(text) {
        let count = child.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
        assert!(count > 0, "ended before {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

fn send(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(program(child).try_into().unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Waits until a signal does not end it any more.
fn watches(child: &Child) {
    let interrupt = 1_u64 << (nix::sys::signal::Signal::SIGINT as u32 - 1);
    until("a watch for signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", program(child))).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & interrupt != 0).then_some(())
    });
}

fn runs(daemon: &Daemon, name: &str) -> bool {
    String::from_utf8(daemon.wherry(&["ps"]).stdout).unwrap().contains(name)
}

fn gone(daemon: &Daemon, name: &str) {
    until("an end of the command", || daemon.space().named(name).is_empty().then_some(()));
}

/// A container that does nothing.
fn idle(daemon: &Daemon, name: &str) {
    let done =
        daemon.wherry(&["run", "-d", "--name", name, images::NAME, "tail", "-f", "/dev/null"]);
    assert!(done.status.success(), "{done:?}");
}

fn remove(daemon: &Daemon, name: &str) {
    let done = daemon.wherry(&["rm", "-f", name]);
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn root_a_foreground_run_shows_as_it_comes_and_passes_signals_on() {
    let Some((daemon, leaks)) = daemon() else { return };
    let script = "trap 'echo stopped; exit 7' TERM; trap 'echo one' USR1; printf partial; \
                  while :; do sleep 0.05; done";
    let mut run = start(&daemon, &["run", "--rm", images::NAME, "sh", "-c", script]);
    prints(&mut run, "partial");
    send(&run, nix::sys::signal::Signal::SIGUSR1);
    prints(&mut run, "one\n");
    send(&run, nix::sys::signal::Signal::SIGTERM);
    let done = run.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(7), b"stopped\n".as_slice()));
    leaks.assert_same_after(&daemon);
    // Who is told not to, is ended by them, and the container runs on.
    let script = "echo ready; while :; do sleep 0.05; done";
    let arguments =
        ["run", "--sig-proxy", "false", "--name", "on", images::NAME, "sh", "-c", script];
    let mut run = start(&daemon, &arguments);
    prints(&mut run, "ready\n");
    send(&run, nix::sys::signal::Signal::SIGINT);
    run.wait().unwrap();
    assert!(runs(&daemon, "on"));
    remove(&daemon, "on");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_attached_program_gets_signals_and_is_left_by_the_third() {
    let Some((daemon, leaks)) = daemon() else { return };
    let script = "trap 'echo no' INT; while :; do sleep 0.05; done";
    let run = ["run", "-d", "--name", "deaf", images::NAME, "sh", "-c", script];
    assert!(daemon.wherry(&run).status.success());
    let mut attach = start(&daemon, &["attach", "deaf"]);
    // Once it watches for signals they are passed on.
    watches(&attach);
    for _ in 0..2 {
        send(&attach, nix::sys::signal::Signal::SIGINT);
        prints(&mut attach, "no\n");
    }
    send(&attach, nix::sys::signal::Signal::SIGINT);
    assert_eq!(attach.wait().unwrap().code(), Some(0));
    assert!(runs(&daemon, "deaf"));
    remove(&daemon, "deaf");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_run_takes_input_and_its_end() {
    let Some((daemon, leaks)) = daemon() else { return };
    let mut run = start(&daemon, &["run", "-i", "--rm", images::NAME, "sh", "-c", "cat; exit 4"]);
    let text: String = (0..100_000).map(|line| line.to_string() + "\n").collect();
    let mut stdin = run.stdin.take().unwrap();
    let said = text.clone();
    let writing = std::thread::spawn(move || stdin.write_all(said.as_bytes()).unwrap());
    let done = run.wait_with_output().unwrap();
    writing.join().unwrap();
    assert_eq!(done.status.code(), Some(4), "{:?}", String::from_utf8_lossy(&done.stderr));
    assert!(done.stdout == text.as_bytes(), "{} of {}", done.stdout.len(), text.len());
    // Without -i there is no input at all.
    let done = daemon.wherry(&["run", "--rm", images::NAME, "cat"]);
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let done = daemon.wherry(&["run", "--rm", images::NAME, program]);
        assert_eq!(done.status.code(), Some(code), "{done:?}");
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_slow_reader_of_a_run_misses_nothing() {
    let Some((daemon, leaks)) = daemon() else { return };
    let script = "seq 1 300000; echo err >&2; printf end";
    let mut run = start(&daemon, &["run", "--rm", images::NAME, "sh", "-c", script]);
    prints(&mut run, "1\n2\n");
    // Longer than the container may be held up: it goes on, and its log has the rest.
    std::thread::sleep(Duration::from_secs(8));
    let done = run.wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.ends_with("\n299999\n300000\nend"), "{} bytes", text.len());
    let lines = text.lines().filter_map(|line| line.parse::<u32>().ok());
    assert!(
        lines
            .skip(1)
            .zip(text.lines().filter_map(|l| l.parse::<u32>().ok()))
            .all(|(b, a)| b == a + 1)
    );
    assert_eq!((done.status.code(), done.stderr.as_slice()), (Some(0), b"err\n".as_slice()));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_exec_shows_as_it_comes_and_ends_as_it_does() {
    let Some((daemon, leaks)) = daemon() else { return };
    idle(&daemon, "c");
    let mut exec = start(&daemon, &["exec", "c", "sh", "-c", "printf partial; sleep 1000"]);
    prints(&mut exec, "partial");
    // We are killed: nobody wants the command any more.
    signal_kill(program(&exec)).unwrap();
    exec.wait().unwrap();
    gone(&daemon, "sleep");
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("kill -9 $$", 137)] {
        let done = daemon.wherry(&["exec", "c", "sh", "-c", script]);
        assert_eq!(done.status.code(), Some(code), "{done:?}");
    }
    for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let done = daemon.wherry(&["exec", "c", program]);
        assert_eq!(done.status.code(), Some(code), "{done:?}");
    }
    let mut exec = start(&daemon, &["exec", "-i", "c", "sh", "-c", "cat; echo err >&2; exit 3"]);
    exec.stdin.take().unwrap().write_all(b"said").unwrap();
    let done = exec.wait_with_output().unwrap();
    assert_eq!(
        (done.stdout.as_slice(), done.stderr.as_slice()),
        (b"said".as_slice(), b"err\n".as_slice())
    );
    assert_eq!(done.status.code(), Some(3));
    let large = daemon.wherry(&["exec", "c", "sh", "-c", "yes | head -c 50000000"]);
    assert_eq!((large.status.code(), large.stdout.len()), (Some(0), 50_000_000));
    remove(&daemon, "c");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_reader_that_leaves_ends_the_command() {
    let Some((daemon, leaks)) = daemon() else { return };
    idle(&daemon, "c");
    let mut exec = start(&daemon, &["exec", "c", "yes"]);
    prints(&mut exec, "y\n");
    drop(exec.stdout.take());
    assert_eq!(exec.wait().unwrap().code(), Some(141));
    gone(&daemon, "yes");
    remove(&daemon, "c");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_several_are_attached_and_leave() {
    let Some((daemon, leaks)) = daemon() else { return };
    let script = "while read line; do echo got $line; echo err >&2; done; echo over; exit 9";
    let run = ["run", "-d", "-i", "--name", "c", images::NAME, "sh", "-c", script];
    assert!(daemon.wherry(&run).status.success());
    let mut speaker = start(&daemon, &["attach", "c"]);
    let mut listener = start(&daemon, &["attach", "--no-stdin", "c"]);
    let mut input = speaker.stdin.take().unwrap();
    let [spoken, listened] =
        [&mut speaker, &mut listener].map(|child| Seen::of(child.stdout.take().unwrap()));
    // Both are attached once both hear the same.
    until("both of them", || {
        input.write_all(b"hello\n").unwrap();
        listened.take("got hello\n")
    });
    spoken.shows("got hello\n");
    signal_kill(program(&speaker)).unwrap();
    speaker.wait().unwrap();
    // It was made with -d, so its input stays open for whoever comes.
    let mut speaker = start(&daemon, &["attach", "c"]);
    let mut input = speaker.stdin.take().unwrap();
    input.write_all(b"again\n").unwrap();
    prints(&mut speaker, "got again\n");
    listened.shows("got again\n");
    assert!(daemon.wherry(&["stop", "-t", "0", "c"]).status.success());
    let done = [speaker.wait_with_output().unwrap(), listener.wait_with_output().unwrap()];
    assert!(done.iter().all(|done| done.status.code() == Some(137)), "{done:?}");
    let late = daemon.wherry(&["attach", "c"]);
    assert_eq!(late.status.code(), Some(125), "{late:?}");
    remove(&daemon, "c");
    leaks.assert_same_after(&daemon);
}
