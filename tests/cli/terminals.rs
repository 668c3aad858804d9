//! `run -it`, `exec -it` and `attach` in front of a terminal: keys, sizes, leaving by keys, and a terminal
//! that is as it was on every way out.

use shim_proto::runtime_v1::ContainerMetadata;
use shim_proto::wherry_v1::session_input::What as Say;
use std::process::Child;
use wherry_tests::daemon::{Daemon, Setup};
use wherry_tests::images;
use wherry_tests::leaks::Leaks;
use wherry_tests::ptys::{Pty, program};
use wherry_tests::sessions;
use wherry_tests::until;

fn daemon() -> Option<(Daemon, Leaks)> {
    let daemon = Daemon::with(&Setup { network: false, ..Setup::default() })?;
    let leaks = Leaks::before(&daemon);
    Some((daemon, leaks))
}

fn start(daemon: &Daemon, pty: &Pty, arguments: &[&str]) -> Child {
    let command = daemon.command_line();
    let own: Vec<&str> = command.get_args().filter_map(|word| word.to_str()).collect();
    // nsenter's own arguments end with the program.
    let at = own.iter().position(|word| *word == "--").unwrap() + 1;
    let mut all = own[at + 1..].to_vec();
    all.extend(arguments);
    pty.start(daemon.space(), own[at].as_ref(), &all)
}

/// The id of the container with this name.
fn id(daemon: &Daemon, name: &str) -> String {
    let all = daemon.cri().containers().unwrap();
    let named = |metadata: &ContainerMetadata| metadata.name == name;
    all.into_iter().find(|c| c.metadata.as_ref().is_some_and(named)).unwrap().id
}

fn code(mut child: Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn root_a_container_in_a_terminal_is_left_and_come_back_to() {
    let Some((daemon, leaks)) = daemon() else { return };
    let pty = Pty::new();
    let before = pty.mode();
    let script = "tty; stty size; trap 'echo interrupted' INT; \
                  while :; do read line && echo got $line; test $line = end && exit 5; done";
    let arguments = ["run", "-it", "--name", "c", images::NAME, "sh", "-c", script];
    let run = start(&daemon, &pty, &arguments);
    pty.shows("/dev/pts/0\r\n24 80\r\n");
    assert_ne!(pty.mode(), before);
    pty.types("hello\r");
    pty.shows("hello\r\ngot hello\r\n");
    pty.types("\x03");
    pty.shows("interrupted\r\n");
    // Not the keys, then the keys.
    pty.types("\x10x\r");
    pty.shows("got \x10x\r\n");
    pty.types("\x10\x11");
    assert_eq!(code(run), Some(0));
    assert_eq!(pty.mode(), before);
    pty.resize(100, 40);
    let attach = start(&daemon, &pty, &["attach", "--detach-keys", "ctrl-x", "c"]);
    until("raw mode", || (pty.mode() != before).then_some(()));
    pty.types("\x10\x11again\r");
    pty.shows("again\r\n");
    pty.types("\x18");
    assert_eq!(code(attach), Some(0));
    let attach = start(&daemon, &pty, &["attach", "c"]);
    until("raw mode", || (pty.mode() != before).then_some(()));
    pty.types("end\r");
    pty.shows("got end\r\n");
    assert_eq!(code(attach), Some(5));
    assert_eq!(pty.mode(), before);
    assert!(daemon.wherry(&["rm", "c"]).status.success());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_command_in_a_terminal_has_its_size_and_its_keys() {
    let Some((daemon, leaks)) = daemon() else { return };
    let run = ["run", "-d", "--name", "c", images::NAME, "tail", "-f", "/dev/null"];
    assert!(daemon.wherry(&run).status.success());
    let pty = Pty::new();
    let before = pty.mode();
    pty.resize(97, 33);
    let script = "stty size; echo $TERM; trap 'stty size' WINCH; while :; do sleep 0.05; done";
    let exec = start(&daemon, &pty, &["exec", "-it", "c", "sh", "-c", script]);
    pty.shows("33 97\r\nxterm\r\n");
    pty.resize(60, 20);
    pty.shows("20 60\r\n");
    pty.types("\x03");
    assert_eq!(code(exec), Some(130));
    assert_eq!(pty.mode(), before);
    // Keys that leave would end the command, so there are none.
    let exec = start(
        &daemon,
        &pty,
        &["exec", "-it", "c", "sh", "-c", "read line; echo got $line; exit 3"],
    );
    until("raw mode", || (pty.mode() != before).then_some(()));
    // The second is the terminal's own: it starts output again.
    pty.types("\x10\x11\r");
    pty.shows("got \x10\r\n");
    assert_eq!(code(exec), Some(3));
    // Ended by a signal of ours, the terminal is as it was and the command is gone.
    let exec = start(&daemon, &pty, &["exec", "-it", "c", "sleep", "1000"]);
    until("raw mode", || (pty.mode() != before).then_some(()));
    let pid = nix::unistd::Pid::from_raw(program(&exec).try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(code(exec), Some(143));
    assert_eq!(pty.mode(), before);
    until("an end of the command", || daemon.space().named("sleep").is_empty().then_some(()));
    // What nobody looks at does not stop it.
    let mut quiet =
        sessions::exec(&id(&daemon, "c"), &["sh", "-c", "yes | head -c 1000000; exit 6"], true);
    let Say::Exec(begin) = &mut quiet else { unreachable!() };
    begin.stdout = false;
    assert_eq!(daemon.cri().session(quiet).unwrap().end().unwrap().2, 6);
    let piped = daemon.wherry(&["exec", "-it", "c", "true"]);
    assert_eq!(piped.status.code(), Some(125), "{piped:?}");
    assert!(daemon.wherry(&["rm", "-f", "c"]).status.success());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_run_that_is_ended_leaves_its_container_alone() {
    let Some((daemon, leaks)) = daemon() else { return };
    let pty = Pty::new();
    let before = pty.mode();
    let script = "echo ready; while :; do read line && echo got $line; done";
    let arguments = ["run", "-it", "--rm", "--name", "c", images::NAME, "sh", "-c", script];
    let run = start(&daemon, &pty, &arguments);
    pty.shows("ready\r\n");
    let pid = nix::unistd::Pid::from_raw(program(&run).try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert_eq!(code(run), Some(129));
    assert_eq!(pty.mode(), before);
    let attach = start(&daemon, &pty, &["attach", "c"]);
    until("raw mode", || (pty.mode() != before).then_some(()));
    pty.types("still\r");
    pty.shows("got still\r\n");
    pty.types("\x10\x11");
    assert_eq!(code(attach), Some(0));
    assert!(daemon.wherry(&["rm", "-f", "c"]).status.success());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_daemons_end_gives_the_terminal_back() {
    let Some((daemon, leaks)) = daemon() else { return };
    let pty = Pty::new();
    let before = pty.mode();
    let script = "echo ready; while read line; do echo got $line; done";
    let run =
        start(&daemon, &pty, &["run", "-it", "--name", "c", images::NAME, "sh", "-c", script]);
    pty.shows("ready\r\n");
    daemon.restart();
    assert_eq!(code(run), Some(125));
    assert_eq!(pty.mode(), before);
    let attach = start(&daemon, &pty, &["attach", "c"]);
    until("raw mode", || (pty.mode() != before).then_some(()));
    pty.types("still\r");
    pty.shows("got still\r\n");
    pty.types("\x10\x11");
    assert_eq!(code(attach), Some(0));
    assert!(daemon.wherry(&["rm", "-f", "c"]).status.success());
    leaks.assert_same_after(&daemon);
}
