//! Attached clients: everything from now on to everybody, slow ones, input of any of them, and what stays
//! of a standard input when they go.

use crate::Test;
use crate::client::{Pod, Stdio, id, shell};
use shim_model::limits;
use shim_model::wire::{Attach, FromMonitor, ToMonitor};
use shim_sys::error::Errno;
use shim_sys::fd;
use std::os::fd::OwnedFd;

pub(crate) const TESTS: &[Test] = &[
    ("root_every_client_gets_what_is_printed_from_now_on", root_everybody),
    ("root_a_client_that_was_there_first_misses_nothing", root_early),
    ("root_a_hundred_clients_and_a_bound", root_hundred),
    ("root_a_watcher_that_does_not_read_loses_its_place", root_watcher),
    ("root_a_client_that_does_not_read_holds_the_container_only_for_a_while", root_patience),
    ("root_a_slow_client_misses_nothing_and_gets_the_rest_after_the_end", root_slow),
    ("root_any_client_may_speak", root_speak),
    ("root_a_first_client_that_is_done_ends_the_input", root_once),
    ("root_the_daemons_end_leaves_the_input_as_it_is", root_daemon_ends),
    ("root_a_container_that_reads_nothing_is_not_disturbed", root_deaf),
    ("root_without_an_input_nobody_speaks", root_no_input),
    ("root_a_daemon_of_an_earlier_version_is_understood", root_earlier),
];

/// A client's ends of its streams.
struct Client {
    number: u64,
    input: Option<OwnedFd>,
    output: OwnedFd,
    error: OwnedFd,
}

impl Client {
    fn say(&self, text: &str) {
        fd::write_all(self.input.as_ref().unwrap(), text.as_bytes()).unwrap();
    }

    /// The next bytes of the standard output, as many as `wanted` has.
    fn hears(&self, wanted: &str) {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while heard.len() < wanted.len() {
            let count = fd::read(&self.output, &mut buffer).unwrap();
            assert!(count > 0, "ended after {:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(String::from_utf8_lossy(&heard), wanted);
    }

    /// Everything that is still printed.
    fn rest(self) -> (Vec<u8>, Vec<u8>) {
        let read = |fd| fd::read_to_end(fd, 64 << 20).unwrap();
        (read(self.output), read(self.error))
    }
}

fn ask(pod: &mut Pod, (early, hold): (bool, bool)) -> (FromMonitor, Client) {
    let (theirs, input) = fd::pipe().unwrap();
    let (output, out) = fd::pipe().unwrap();
    let (error, err) = fd::pipe().unwrap();
    let request = Attach { container: id(1), stdin: true, stdout: true, stderr: true, early, hold };
    let number = pod.send(&ToMonitor::Attach(request), &[theirs, out, err]);
    let reply = pod.reply(number);
    (reply, Client { number, input: Some(input), output, error })
}

fn attach(pod: &mut Pod, hold: bool) -> Client {
    let (reply, client) = ask(pod, (false, hold));
    assert_eq!(reply, FromMonitor::Done);
    client
}

fn done(pod: &mut Pod, body: &ToMonitor) {
    assert_eq!(pod.ask(body, &[]), FromMonitor::Done);
}

/// A container that prints every line it reads.
fn echo(pod: &mut Pod, stdio: Stdio) {
    pod.stdio = stdio;
    pod.start(1, shell("while read line; do echo got $line; done; echo over; exit 3"));
}

fn wait_for_log(pod: &Pod, lines: usize) {
    while pod.log(1).len() < lines {
        std::thread::yield_now();
    }
}

fn root_everybody() {
    let mut pod = Pod::new("everybody");
    pod.stdio = Stdio::Input;
    pod.start(1, shell("echo before; read line; echo $line; echo err >&2; exit 7"));
    wait_for_log(&pod, 1);
    let clients: Vec<Client> = (0..3).map(|_| attach(&mut pod, false)).collect();
    clients[0].say("from now on\n");
    assert_eq!(pod.exit(1).code, 7);
    for client in clients {
        assert_eq!(client.rest(), (b"from now on\n".to_vec(), b"err\n".to_vec()));
    }
    let mut log = pod.log(1);
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F before", "stdout F from now on"]);
    let (late, _) = ask(&mut pod, (false, false));
    assert_eq!(late, FromMonitor::Unknown);
    pod.quit();
}

fn root_early() {
    let mut pod = Pod::new("early");
    let (nobody, _) = ask(&mut pod, (false, false));
    assert_eq!(nobody, FromMonitor::Unknown);
    let (reply, client) = ask(&mut pod, (true, true));
    assert_eq!(reply, FromMonitor::Done);
    client.say("said before it was there\n");
    echo(&mut pod, Stdio::InputOnce);
    client.hears("got said before it was there\n");
    done(&mut pod, &ToMonitor::Detach { number: client.number, keep_stdin: false });
    assert_eq!(pod.exit(1).code, 3);
    // One that waits for a container that cannot be started is let go.
    done(&mut pod, &ToMonitor::Forget { container: id(1) });
    let (_, client) = ask(&mut pod, (true, true));
    let mut plan = shell("");
    plan.program = crate::client::command(&["/bin/nope"]);
    let request = pod.begin(1, plan, vec![]);
    assert!(matches!(pod.reply(request), FromMonitor::Failed(_)));
    assert_eq!(client.rest(), (vec![], vec![]));
}

fn root_hundred() {
    let mut pod = Pod::new("hundred");
    pod.stdio = Stdio::Input;
    pod.start(1, shell("read line; seq 1 1000"));
    let clients: Vec<Client> =
        (0..limits::ATTACHES_PER_CONTAINER).map(|_| attach(&mut pod, false)).collect();
    match ask(&mut pod, (false, false)).0 {
        FromMonitor::Failed(failure) => assert_eq!(failure.errno, Errno::EAGAIN as i32),
        other => panic!("{other:?}"),
    }
    clients[0].say("\n");
    let lines: Vec<String> = (1..=1000).map(|number| format!("{number}\n")).collect();
    let text = lines.concat();
    for client in clients {
        assert_eq!(client.rest().0, text.as_bytes());
    }
    assert_eq!(pod.exit(1).code, 0);
}

const LINES: usize = 200_000;

fn flood() -> String {
    format!("read line; seq 1 {LINES}; echo done >&2")
}

fn whole_log(pod: &Pod) {
    let log = pod.log(1);
    let numbers = log.iter().filter_map(|line| line.strip_prefix("stdout F "));
    assert!(numbers.map(|text| text.parse::<usize>().unwrap()).eq(1..=LINES));
}

fn root_watcher() {
    let mut pod = Pod::new("watcher");
    pod.stdio = Stdio::Input;
    pod.start(1, shell(&flood()));
    let (blind, other) = (attach(&mut pod, false), attach(&mut pod, true));
    blind.say("\n");
    let reading = std::thread::spawn(move || other.rest());
    let number = blind.number;
    pod.hear(|frame| (frame.body == FromMonitor::AttachLost { number }).then_some(()));
    assert_eq!(pod.exit(1).code, 0);
    // What fitted is there, then the end: it knows that it missed something.
    let (output, _) = blind.rest();
    assert!(output.starts_with(b"1\n2\n3\n") && output.len() <= 64 << 10, "{}", output.len());
    let (output, error) = reading.join().unwrap();
    assert_eq!(output.split(|byte| *byte == b'\n').count(), LINES + 1);
    assert_eq!(error, b"done\n");
    whole_log(&pod);
}

fn root_patience() {
    let mut pod = Pod::new("patience");
    pod.stdio = Stdio::Input;
    pod.start(1, shell(&flood()));
    let blind = attach(&mut pod, true);
    blind.say("\n");
    let number = blind.number;
    pod.hear(|frame| (frame.body == FromMonitor::AttachLost { number }).then_some(()));
    assert_eq!(pod.exit(1).code, 0);
    whole_log(&pod);
    // It may leave after it lost its place.
    done(&mut pod, &ToMonitor::Detach { number, keep_stdin: false });
}

fn root_slow() {
    let mut pod = Pod::new("slow");
    pod.stdio = Stdio::Input;
    pod.start(1, shell(&flood()));
    let client = attach(&mut pod, true);
    client.say("\n");
    // Long enough for every buffer on the way to be full.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut heard = vec![0; 300_000];
    let mut at = 0;
    while at < heard.len() {
        at += fd::read(&client.output, &mut heard[at..]).unwrap();
    }
    // The container ends although nobody reads on; the last of it waits for the client.
    let total: usize = (1..=LINES).map(|number| number.to_string().len() + 1).sum();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (rest, _) = client.rest();
    assert_eq!(heard.len() + rest.len(), total);
    assert!(rest.ends_with(format!("{LINES}\n").as_bytes()));
    assert_eq!(pod.exit(1).code, 0);
    whole_log(&pod);
}

fn root_speak() {
    let mut pod = Pod::new("speak");
    echo(&mut pod, Stdio::Input);
    let mut clients: Vec<Client> = (0..3).map(|_| attach(&mut pod, true)).collect();
    for (place, client) in clients.iter().enumerate() {
        client.say(&format!("{place}\n"));
        for listener in &clients {
            listener.hears(&format!("got {place}\n"));
        }
    }
    // One closes its input, one leaves: the container's stays open for the third.
    clients[0].input = None;
    done(&mut pod, &ToMonitor::EndInput { number: clients[0].number });
    let gone = clients.remove(1);
    done(&mut pod, &ToMonitor::Detach { number: gone.number, keep_stdin: false });
    clients[1].say("last\n");
    clients[0].hears("got last\n");
    clients[1].hears("got last\n");
    assert_eq!(pod.state()[0].exit, None);
    pod.quit();
}

fn root_once() {
    // What was said before counts, however the client goes.
    for leaves in [false, true] {
        let mut pod = Pod::new("once");
        echo(&mut pod, Stdio::InputOnce);
        let mut client = attach(&mut pod, true);
        let text = "line\n".repeat(30_000);
        let number = client.number;
        let writing = std::thread::spawn({
            let input = client.input.take().unwrap();
            move || fd::write_all(input, text.as_bytes()).unwrap()
        });
        let reading = std::thread::spawn(move || client.rest());
        writing.join().unwrap();
        if leaves {
            done(&mut pod, &ToMonitor::Detach { number, keep_stdin: false });
        } else {
            done(&mut pod, &ToMonitor::EndInput { number });
        }
        assert_eq!(pod.exit(1).code, 3);
        let lines = pod.log(1);
        assert_eq!((lines.len(), lines[30_000].as_str()), (30_001, "stdout F over"), "{leaves}");
        let (output, _) = reading.join().unwrap();
        assert!(leaves || output.ends_with(b"got line\nover\n"));
    }
    // Who comes again keeps it open.
    let mut pod = Pod::new("again");
    echo(&mut pod, Stdio::InputOnce);
    let client = attach(&mut pod, true);
    client.say("first\n");
    client.hears("got first\n");
    done(&mut pod, &ToMonitor::Detach { number: client.number, keep_stdin: true });
    let client = attach(&mut pod, true);
    client.say("second\n");
    client.hears("got second\n");
    done(&mut pod, &ToMonitor::EndInput { number: client.number });
    drop(client);
    assert_eq!(pod.exit(1).code, 3);
}

fn root_daemon_ends() {
    let mut pod = Pod::new("deserted");
    echo(&mut pod, Stdio::InputOnce);
    let client = attach(&mut pod, true);
    client.say("first\n");
    client.hears("got first\n");
    pod.lose_daemon();
    drop(client);
    pod.connect();
    assert_eq!(pod.state()[0].exit, None);
    let client = attach(&mut pod, true);
    client.say("second\n");
    client.hears("got second\n");
    done(&mut pod, &ToMonitor::EndInput { number: client.number });
    // The pipe is still open here, so there may be more to say; its end is the end.
    assert_eq!(pod.state()[0].exit, None);
    drop(client);
    assert_eq!(pod.exit(1).code, 3);
    pod.quit();
}

fn root_deaf() {
    let mut pod = Pod::new("deaf");
    pod.stdio = Stdio::InputOnce;
    let number =
        pod.begin(1, shell("trap '' PIPE; while :; do echo tick; sleep 0.01; done"), vec![]);
    assert!(matches!(pod.reply(number), FromMonitor::Launched { .. }));
    let client = attach(&mut pod, true);
    let input = client.input.as_ref().unwrap();
    fd::set_nonblocking(input).unwrap();
    let text = [b'x'; 4096];
    let mut said = 0;
    // Its own pipe and the container's take what they hold; the monitor keeps nothing.
    for _ in 0..100 {
        while let Ok(count) = fd::write(input, &text) {
            said += count;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!((64 << 10..=128 << 10).contains(&said), "{said}");
    ticks(&client);
    let busy = cpu(pod.process.pid);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(cpu(pod.process.pid) - busy < 10, "the monitor spins");
    done(&mut pod, &ToMonitor::EndInput { number: client.number });
    done(&mut pod, &ToMonitor::Detach { number: client.number, keep_stdin: false });
    drop(client);
    let other = attach(&mut pod, false);
    ticks(&other);
    done(&mut pod, &ToMonitor::Kill { container: id(1) });
    assert_eq!(pod.exit(1).code, 137);
    pod.quit();
}

/// It is still printed.
fn ticks(client: &Client) {
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        let count = fd::read(&client.output, &mut buffer).unwrap();
        assert!(buffer[..count].starts_with(b"tick\n"));
    }
}

/// Ticks (10 ms) that a process has worked (proc(5), fields 14 and 15 of stat).
fn cpu(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn root_no_input() {
    let mut pod = Pod::new("noinput");
    pod.start(1, shell("cat; echo $?; sleep 1000"));
    wait_for_log(&pod, 1);
    let client = attach(&mut pod, false);
    let input = client.input.as_ref().unwrap();
    let error = loop {
        if let Err(error) = fd::write(input, b"x") {
            break error;
        }
    };
    assert_eq!(error.errno(), Errno::EPIPE);
    done(&mut pod, &ToMonitor::Detach { number: client.number, keep_stdin: false });
    assert_eq!(pod.log(1), ["stdout F 0"]);
    pod.quit();
}

fn root_earlier() {
    let mut pod = Pod::new("earlier");
    pod.version = 1;
    // Times are version 2's.
    let request = pod.begin(1, shell("exit 4"), vec![]);
    assert!(matches!(pod.reply(request), FromMonitor::Started { .. }));
    assert_eq!(pod.exit(1).code, 4);
    let number = pod.send(&ToMonitor::State, &[]);
    let version = pod.hear(|frame| (frame.number == number).then_some(frame.version));
    assert_eq!(version, 1);
    pod.version = 2;
    let number = pod.send(&ToMonitor::State, &[]);
    assert_eq!(pod.hear(|frame| (frame.number == number).then_some(frame.version)), 2);
}
