//! Exec, attach and port-forward over their streams: input, both outputs, terminals, codes, several clients,
//! and that a client that leaves takes what is its along and nothing else.

use shim_proto::runtime_v1 as cri;
use tonic::Code;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;
use wherry_tests::streams::{STATUS, STDERR, STDOUT, Stream};
use wherry_tests::{log, until};

const V5: &str = "v5.channel.k8s.io";

fn exec(id: &str, script: &str) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    }
}

fn run(daemon: &Daemon, request: cri::ExecRequest) -> Stream {
    Stream::open(daemon.space(), &daemon.cri().exec_url(request).unwrap(), V5)
}

#[test]
fn root_a_command_has_its_clients_streams() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("exec-stream", Network::Node);
    let id = pod.idle("c");
    let mut stream = run(&daemon, exec(&id, "tr a-z A-Z; echo oops >&2; exit 3"));
    stream.say(0, b"some ");
    stream.say(0, b"words");
    stream.end(0);
    assert_eq!(stream.code(), 3);
    assert_eq!((stream.text(STDOUT), stream.text(STDERR)), ("SOME WORDS".into(), "oops\n".into()));
    for (script, code) in [("exit 0", 0), ("kill -9 $$", 137), ("exec /no/such", 127)] {
        assert_eq!(run(&daemon, exec(&id, script)).code(), code, "{script}");
    }
    let mut large = run(&daemon, exec(&id, "yes | head -c 3000000"));
    assert_eq!(large.code(), 0);
    assert_eq!(large.text(STDOUT).len(), 3_000_000);
    // What a command leaves behind holds nobody.
    assert_eq!(run(&daemon, exec(&id, "sleep 1000 & exit 5")).code(), 5);
    let missing = cri::ExecRequest { cmd: vec!["/no/such/program".into()], ..exec(&id, "") };
    let mut missing = run(&daemon, missing);
    missing.rest();
    assert!(missing.text(STATUS).contains("/no/such/program"), "{missing:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_client_that_leaves_takes_its_command_along() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("exec-left", Network::Node);
    let id = pod.idle("c");
    let running = || !daemon.space().named("sleep").is_empty();
    // One in the foreground, one behind it, one that left its session; one that says much.
    for script in ["sleep 1000 & setsid sleep 1000 & sleep 1000", "sleep 1000 & yes"] {
        let stream = run(&daemon, exec(&id, script));
        until("a command", || running().then_some(()));
        drop(stream);
        until("its end", || (!running()).then_some(()));
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_terminal_has_its_clients_size() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("exec-tty", Network::Node);
    let id = pod.idle("c");
    let script = "stty -echo; echo ready; read line; stty size; tty; echo $line; exit 4";
    let request = cri::ExecRequest { tty: true, stderr: false, ..exec(&id, script) };
    let mut stream = run(&daemon, request);
    stream.until(STDOUT, "ready");
    stream.say(4, br#"{"Width":132,"Height":43}{"Width":0,"Height":0}"#);
    // The size goes another way than what is typed, so it may come a moment later.
    std::thread::sleep(std::time::Duration::from_millis(300));
    stream.say(0, b"typed\r");
    assert_eq!(stream.code(), 4);
    let said = stream.text(STDOUT);
    let lines: Vec<&str> = said.split("\r\n").collect();
    assert_eq!(lines[..2], ["ready", "43 132"], "{said:?}");
    assert!(lines[2].starts_with("/dev/pts/") && lines[3] == "typed", "{said:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_clients_join_a_container_and_leave_it() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("attach", Network::Node);
    let script = "while read line; do echo \"heard $line\"; done; exit 6";
    let mut config = pod.container("c", &["sh", "-c", script]);
    (config.stdin, config.stdin_once) = (true, false);
    let id = pod.start(&config);
    let request = cri::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        tty: false,
        stdout: true,
        stderr: true,
    };
    let attach = || {
        let url = daemon.cri().attach_url(request.clone()).unwrap();
        Stream::open(daemon.space(), &url, V5)
    };
    let (mut first, mut second) = (attach(), attach());
    first.say(0, b"one\n");
    first.until(STDOUT, "heard one\n");
    second.say(0, b"two\n");
    first.until(STDOUT, "heard two\n");
    second.until(STDOUT, "heard two\n");
    drop(first);
    second.say(0, b"three\n");
    second.until(STDOUT, "heard three\n");
    // All of it is in the log too, and the container goes on.
    until("the log", || (log::said(pod.log("c")).lines().count() == 3).then_some(()));
    assert_eq!(daemon.cri().status(&id).state(), cri::ContainerState::ContainerRunning);
    daemon.cri().stop(&id, 0).unwrap();
    second.rest();
    assert!(second.text(STATUS).contains("Success"), "{second:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_input_that_ends_once_ends_the_container() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("attach-once", Network::Node);
    let mut config = pod.container("c", &["sh", "-c", "cat; exit 6"]);
    (config.stdin, config.stdin_once) = (true, true);
    let id = pod.start(&config);
    let request = cri::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        tty: false,
        stdout: true,
        stderr: true,
    };
    let url = daemon.cri().attach_url(request).unwrap();
    let mut stream = Stream::open(daemon.space(), &url, V5);
    stream.say(0, b"words");
    stream.until(STDOUT, "words");
    stream.end(0);
    stream.rest();
    assert_eq!(daemon.cri().ended(&id).exit_code, 6);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_ports_of_a_pod_are_reached() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    for (name, network) in [("forward-pod", Network::Pod), ("forward-node", Network::Node)] {
        let pod = daemon.pod(name, network);
        // Only on its loopback, which no other way leads to.
        let id = pod.run_in("c", &["httpd", "-f", "-p", "127.0.0.1:8090", "-h", "/www"]);
        let fetch = ["wget", "-q", "-O", "-", "http://127.0.0.1:8090/"];
        let listens = || daemon.cri().exec(&id, &fetch, 10).is_ok_and(|said| said.code == 0);
        until("a server", || listens().then_some(()));
        let url = daemon.cri().forward_url(&pod.id, &[8_090, 1]).unwrap();
        let mut stream = Stream::open(daemon.space(), &url, "v4.channel.k8s.io");
        // Two channels for each port, which each begin with its number.
        stream.until(3, "refused");
        stream.say(0, b"GET / HTTP/1.0\r\n\r\n");
        stream.until(0, "a page of a container");
        assert!(stream.text(0).starts_with("\u{fffd}\u{1f}HTTP/1.1 200"), "{stream:?}");
        stream.rest();
        drop(stream);
        pod.remove();
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_can_not_be_streamed_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("refused", Network::Node);
    let id = pod.idle("c");
    let refused = |request| cri.exec_url(request).unwrap_err().code();
    assert_eq!(refused(cri::ExecRequest { tty: true, ..exec(&id, "") }), Code::InvalidArgument);
    let none = cri::ExecRequest { stdin: false, stdout: false, stderr: false, ..exec(&id, "") };
    assert_eq!(refused(none), Code::InvalidArgument);
    assert_eq!(refused(cri::ExecRequest { cmd: vec![], ..exec(&id, "") }), Code::InvalidArgument);
    assert_eq!(refused(exec("", "true")), Code::InvalidArgument);
    assert_eq!(refused(exec("0123456789ab", "true")), Code::NotFound);
    for port in [0, -1, 70_000] {
        let code = cri.forward_url(&pod.id, &[port]).unwrap_err().code();
        assert_eq!(code, Code::InvalidArgument, "{port}");
    }
    assert_eq!(cri.forward_url("0123456789ab", &[]).unwrap_err().code(), Code::NotFound);
    // A beginning of an id is one; what it stands for is fixed when the URL is given.
    assert_eq!(run(&daemon, exec(&id[..12], "exit 7")).code(), 7);
    cri.stop(&id, 0).unwrap();
    assert_eq!(refused(exec(&id, "true")), Code::FailedPrecondition);
    let attach = cri::AttachRequest { container_id: id, stdout: true, ..Default::default() };
    assert_eq!(cri.attach_url(attach).unwrap_err().code(), Code::FailedPrecondition);
    pod.remove();
    leaks.assert_same_after(&daemon);
}
