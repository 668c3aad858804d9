//! Streams of containers of the CRI, through sessions of our own API: terminals, standard inputs and what
//! ends them, clients that vanish at any moment, many at once, blind ones; and the daemon's death.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use wherry_tests::cri::Cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{Network, security};
use wherry_tests::sessions::{attach, exec};
use wherry_tests::{log, until};

/// What a container's standard streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    Input,
    InputOnce,
    Terminal,
}

fn start(pod: &Pod<'_>, name: &str, streams: Streams, script: &str) -> String {
    let mut config = pod.container(name, &["sh", "-c", script]);
    config.stdin = true;
    config.stdin_once = streams == Streams::InputOnce;
    config.tty = streams == Streams::Terminal;
    pod.start(&config)
}

const ECHO: &str = "while read line; do echo got $line; done; echo over; exit 3";

fn gone(daemon: &Daemon, name: &str) {
    until("an end of the command", || daemon.space().named(name).is_empty().then_some(()));
}

#[test]
fn root_a_container_has_a_terminal_of_its_own() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("terminal", Network::Node);
    let script = "tty; stat -c '%u:%g %a' $(tty) /dev/console; echo $TERM; echo err >&2; \
                  trap 'stty size' WINCH; while :; do read line && echo got $line; done";
    let mut config = pod.container("c", &["sh", "-c", script]);
    (config.stdin, config.tty) = (true, true);
    security(&mut config).run_as_username = "user".into();
    let id = pod.start(&config);
    let wanted = ["/dev/pts/0", "1000:5 620", "1000:5 620", "xterm", "err"];
    until("the first lines", || (log::read(pod.log("c")).len() >= wanted.len()).then_some(()));
    let lines = log::read(pod.log("c"));
    let said: Vec<(bool, &str)> = lines.iter().map(|l| (l.is_error, l.text.as_str())).collect();
    assert_eq!(said, wanted.map(|line| (false, line)));
    let raw = std::fs::read_to_string(pod.log("c")).unwrap();
    assert!(raw.split_inclusive('\n').all(|line| line.ends_with("\r\n")), "{raw:?}");
    let mut client = cri.session(attach(&id)).unwrap();
    assert!(client.began.tty && client.began.stdin);
    client.say("typed\n");
    assert_eq!(client.hears("got typed\r\n"), "typed\r\ngot typed\r\n");
    client.resize(101, 41);
    client.hears("41 101\r\n");
    // An exec has another one, and TERM with it.
    let mut command =
        cri.session(exec(&id, &["sh", "-c", "tty; stty size; echo $TERM"], true)).unwrap();
    command.hears("/dev/pts/1\r\n24 80\r\nxterm\r\n");
    assert_eq!(command.end().unwrap().2, 0);
    client.detach();
    cri.stop(&id, 0).unwrap();
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_first_client_ends_an_input_that_is_for_it() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("once", Network::Node);
    // It says that it is done.
    let id = start(&pod, "done", Streams::InputOnce, ECHO);
    let mut client = cri.session(attach(&id)).unwrap();
    client.say("one\n");
    client.hears("got one\n");
    client.say("two");
    client.end_input();
    assert_eq!(client.end().unwrap(), ("over\n".to_owned(), String::new(), 3));
    // It vanishes.
    let id = start(&pod, "gone", Streams::InputOnce, ECHO);
    let mut client = cri.session(attach(&id)).unwrap();
    client.say("one\n");
    client.hears("got one\n");
    drop(client);
    assert_eq!(cri.ended(&id).exit_code, 3);
    // It leaves, to come again.
    let id = start(&pod, "left", Streams::InputOnce, ECHO);
    let mut client = cri.session(attach(&id)).unwrap();
    client.say("one\n");
    client.hears("got one\n");
    client.detach();
    let mut client = cri.session(attach(&id)).unwrap();
    client.say("two\n");
    client.hears("got two\n");
    client.end_input();
    assert_eq!(client.end().unwrap().2, 3);
    // What is for everybody stays open, and who ends it is not heard.
    let id = start(&pod, "all", Streams::Input, ECHO);
    for _ in 0..3 {
        let mut client = cri.session(attach(&id)).unwrap();
        client.say("line\n");
        client.hears("got line\n");
        client.end_input();
        drop(client);
    }
    assert_eq!(log::said(pod.log("all")), "got line\n".repeat(3));
    // One that ignores its end runs on.
    let script = "cat >/dev/null; echo ignored; tail -f /dev/null";
    let id = start(&pod, "deaf", Streams::InputOnce, script);
    let mut client = cri.session(attach(&id)).unwrap();
    client.end_input();
    client.hears("ignored\n");
    client.say("to nobody\n");
    let other = cri.session(attach(&id)).unwrap();
    other.say("to nobody either\n");
    cri.stop(&id, 0).unwrap();
    assert_eq!((client.end().unwrap().2, other.end().unwrap().2), (137, 137));
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_daemons_death_harms_no_container() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("death", Network::Node);
    let once = start(&pod, "once", Streams::InputOnce, ECHO);
    let terminal = start(&pod, "terminal", Streams::Terminal, ECHO);
    let mut clients: Vec<_> =
        [&once, &terminal].into_iter().map(|id| cri.session(attach(id)).unwrap()).collect();
    for client in &mut clients {
        client.say("before\n");
        client.hears("got before");
    }
    let mut command = cri
        .session(exec(&once, &["sh", "-c", "sleep 1000 & echo runs; sleep 1001"], false))
        .unwrap();
    command.hears("runs\n");
    daemon.kill();
    for client in clients {
        assert!(client.end().is_err());
    }
    assert!(command.end().is_err());
    gone(&daemon, "sleep");
    daemon.start_again();
    for id in [&once, &terminal] {
        let mut client = cri.session(attach(id)).unwrap();
        client.say("after\n");
        client.hears("got after");
        client.detach();
    }
    assert_eq!(log::said(pod.log("once")), "got before\ngot after\n");
    let client = cri.session(attach(&once)).unwrap();
    client.end_input();
    assert_eq!(client.end().unwrap().2, 3);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

/// Passes a connection on to the daemon until so many bytes went there, then cuts it.
fn cut_after(socket: &Path, daemon: &Path, limit: usize) -> std::thread::JoinHandle<()> {
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket).unwrap();
    let daemon = daemon.to_owned();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut there = UnixStream::connect(daemon).unwrap();
        let (mut back, mut from) = (client.try_clone().unwrap(), there.try_clone().unwrap());
        let answers = std::thread::spawn(move || drop(std::io::copy(&mut from, &mut back)));
        let mut left = limit;
        let mut buffer = [0; 4096];
        while left > 0 {
            let most = left.min(buffer.len());
            let Ok(count @ 1..) = client.read(&mut buffer[..most]) else { break };
            if there.write_all(&buffer[..count]).is_err() {
                break;
            }
            left -= count;
        }
        for stream in [&client, &there] {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
        answers.join().unwrap();
    })
}

#[test]
fn root_a_client_may_vanish_at_any_byte() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("cut", Network::Node);
    let id = start(&pod, "c", Streams::Input, ECHO);
    let (socket, real) = (daemon.beside("cut.sock"), daemon.beside("wherry.sock"));
    for limit in (40..700).step_by(11) {
        for begin in [exec(&id, &["sh", "-c", "cat; sleep 1000"], limit % 2 == 0), attach(&id)] {
            let cutting = cut_after(&socket, &real, limit);
            let cri = Cri::new(&socket);
            if let Ok(mut session) = cri.session(begin) {
                while session.try_say("line\n") {
                    session.listen();
                }
            }
            drop(cri);
            cutting.join().unwrap();
        }
    }
    gone(&daemon, "sleep");
    gone(&daemon, "cat");
    let mut client = daemon.cri().session(attach(&id)).unwrap();
    // A line that was cut off somewhere may be before it.
    client.say("\nwhole\n");
    client.hears("got whole\n");
    client.detach();
    std::fs::remove_file(socket).unwrap();
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_hundred_clients_hear_the_same() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("hundred", Network::Node);
    let id = start(&pod, "c", Streams::Input, ECHO);
    let mut clients: Vec<_> = (0..100).map(|_| cri.session(attach(&id)).unwrap()).collect();
    clients[0].say("hello\n");
    for client in &mut clients {
        assert_eq!(client.hears("\n"), "got hello\n");
    }
    // Half of them vanish; the others are not disturbed.
    clients.truncate(50);
    clients[49].say("again\n");
    for client in &mut clients {
        assert_eq!(client.hears("\n"), "got again\n");
    }
    let many: Vec<_> = (0..100).map(|_| cri.session(attach(&id))).collect();
    let refused: Vec<_> = many.iter().filter_map(|session| session.as_ref().err()).collect();
    assert!(!refused.is_empty(), "there is no bound");
    assert!(
        refused.iter().all(|status| status.code() == tonic::Code::ResourceExhausted),
        "{refused:?}"
    );
    drop(many);
    cri.stop(&id, 0).unwrap();
    for client in clients {
        assert_eq!(client.end().unwrap().2, 137);
    }
    assert_eq!(log::said(pod.log("c")), "got hello\ngot again\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_blind_client_stops_nobody() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("blind", Network::Node);
    let script = "until test -e /go; do sleep 0.01; done; yes 0123456789abcdef | head -n 300000";
    let mut config = pod.container("watched", &["sh", "-c", script]);
    let watched = pod.start(&config);
    config.metadata.as_mut().unwrap().name = "talked-to".into();
    config.log_path = "talked-to.log".into();
    config.stdin = true;
    let talked_to = pod.start(&config);
    for (id, name) in [(&watched, "watched"), (&talked_to, "talked-to")] {
        let blind = cri.session(attach(id)).unwrap();
        assert_eq!(cri.shell(id, "touch /go"), "");
        assert_eq!(cri.ended(id).exit_code, 0);
        let lines = log::read(pod.log(name));
        assert!(lines.iter().all(|line| line.text == "0123456789abcdef"), "lines are torn");
        assert_eq!(lines.len(), 300_000);
        let lost = blind.end().unwrap_err();
        assert_eq!(lost.code(), tonic::Code::ResourceExhausted, "{lost:?}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_clients_that_come_and_go_leave_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let cri = daemon.cri();
    let pod = daemon.pod("come-and-go", Network::Node);
    let id = start(&pod, "c", Streams::Terminal, "tail -f /dev/null");
    let once = cri.session(exec(&id, &["true"], true)).unwrap();
    once.end().unwrap();
    let leaks = Leaks::before(&daemon);
    for round in 0..60 {
        drop(cri.session(attach(&id)).unwrap());
        drop(cri.session(exec(&id, &["cat"], round % 2 == 0)).unwrap());
        let failed = cri.session(exec(&id, &["/no/such/program"], round % 2 == 0)).unwrap_err();
        assert!(failed.message().contains("/no/such/program"), "{failed:?}");
    }
    leaks.assert_same_after(&daemon);
    pod.remove();
}

#[test]
fn root_what_cannot_be_attached_is_refused_by_name() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("refused", Network::Node);
    let created = pod.create(&pod.container("created", &["true"]));
    let ended = pod.run_in("ended", &["true"]);
    cri.ended(&ended);
    for id in [&created, &ended] {
        let refused = cri.session(attach(id)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        let refused = cri.session(exec(id, &["true"], false)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        assert!(cri.signal(id, 15).is_err());
    }
    let unknown = cri.session(attach(&"0".repeat(64))).unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown:?}");
    // A container whose /dev/pts is none has terminals for nobody, and stays as it is.
    let idle = pod.idle("idle");
    let mut mounted = pod.container("mounted", &["tail", "-f", "/dev/null"]);
    security(&mut mounted).privileged = true;
    let mut config = pod.config.clone();
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().privileged = true;
    config.metadata.as_mut().unwrap().name = "privileged".into();
    let privileged = Pod::run(&daemon, config);
    let hostile = privileged.start(&mounted);
    cri.shell(&hostile, "mount -t tmpfs none /dev/pts && mkfifo /dev/pts/ptmx");
    let refused = cri.session(exec(&hostile, &["true"], true)).unwrap_err();
    assert!(refused.message().contains("make a terminal of /dev/pts"), "{refused:?}");
    cri.shell(&hostile, "rm /dev/pts/ptmx && ln -s /proc/1/root/dev/ptmx /dev/pts/ptmx");
    assert!(cri.session(exec(&hostile, &["true"], true)).is_err());
    assert_eq!(cri.shell(&hostile, "echo usable"), "usable\n");
    assert!(cri.signal(&idle, 0).is_err() && cri.signal(&idle, 65).is_err());
    cri.signal(&idle, 15).unwrap();
    privileged.remove();
    pod.remove();
    leaks.assert_same_after(&daemon);
}
