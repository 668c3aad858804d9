//! Stopping: whose signal it is, that nothing survives, that callers may come together and in any state, and
//! that a process which the kernel does not let die is told of and hangs nobody.

use shim_proto::runtime_v1 as cri;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use tonic::Code;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;
use wherry_tests::{log, until};

/// Says which signals it hears, and ends at USR2.
const HEARS: &str = "trap 'echo term' TERM; trap 'echo usr1' USR1; trap 'exit 7' USR2
echo ready; while :; do sleep 0.02; done";

#[test]
fn root_the_signal_is_the_containers_then_the_images_then_term() {
    let Some(daemon) = Daemon::start() else { return };
    daemon.import_with("signal:1", &serde_json::json!({"Cmd": ["sh"], "StopSignal": "SIGUSR1"}));
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("signals", Network::Node);
    let mut images = pod.container("images", &["sh", "-c", HEARS]);
    images.image.as_mut().unwrap().image = "signal:1".to_owned();
    let mut own = pod.container("own", &["sh", "-c", HEARS]);
    own.image.as_mut().unwrap().image = "signal:1".to_owned();
    own.stop_signal = cri::Signal::Sigusr2.into();
    let plain = pod.container("plain", &["sh", "-c", HEARS]);
    for (name, config, heard, code) in [
        ("images", images, "ready\nusr1\n", 137),
        ("own", own, "ready\n", 7),
        ("plain", plain, "ready\nterm\n", 137),
    ] {
        let id = pod.start(&config);
        until("a container that listens", || (log::said(pod.log(name)) == "ready\n").then_some(()));
        daemon.cri().stop(&id, 1).unwrap();
        let status = daemon.cri().status(&id);
        assert_eq!((log::said(pod.log(name)).as_str(), status.exit_code), (heard, code), "{name}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_nobody_is_killed_before_the_grace_is_over_and_nobody_stays_after_it() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("grace", Network::Pod);
    // Children that hear nothing, left by their parents, in sessions of their own.
    let deaf =
        "trap '' TERM HUP INT; for i in 1 2 3; do setsid sh -c 'sleep 1000 & sleep 1000' & done
echo ready; while :; do sleep 0.02; done";
    let id = pod.run_in("deaf", &["sh", "-c", deaf]);
    until("a container with children", || (daemon.space().named("sleep").len() >= 6).then_some(()));
    let asked = std::time::Instant::now();
    cri.stop(&id, 2).unwrap();
    assert!(asked.elapsed() >= std::time::Duration::from_secs(2), "it was not given its grace");
    assert_eq!(cri.status(&id).exit_code, 137);
    assert_eq!(daemon.space().named("sleep"), Vec::<u32>::new());
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_many_may_stop_and_remove_at_once_and_in_any_state() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("together", Network::Pod);
    let created = pod.create(&pod.container("created", &["true"]));
    let running = pod.idle("running");
    let ended = pod.run_in("ended", &["false"]);
    daemon.cri().ended(&ended);
    let starting = pod.create(&pod.container("starting", &["tail", "-f", "/dev/null"]));
    let failed = pod.create(&pod.container("failed", &["/no/such/program"]));
    assert!(daemon.cri().start(&failed).is_err());
    let all = [&created, &running, &ended, &starting, &failed];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It may be stopped or gone before its turn.
            drop(daemon.new_client().start(&starting));
        });
        for turn in 0..8 {
            let pod = &pod.id;
            let daemon = &daemon;
            scope.spawn(move || {
                let cri = daemon.new_client();
                for id in all {
                    cri.stop(id, 0).unwrap();
                    if turn % 2 == 0 {
                        cri.remove(id).unwrap();
                    }
                }
                cri.stop_pod(pod).unwrap();
                cri.remove_pod(pod).unwrap();
            });
        }
    });
    assert!(daemon.cri().containers().unwrap().is_empty());
    assert!(daemon.cri().pods().unwrap().is_empty());
    drop(std::fs::remove_dir_all(&pod.config.log_directory));
    leaks.assert_same_after(&daemon);
}

/// A file system that answers nothing but questions about its root: whoever looks for a name in it waits in
/// the kernel where no signal reaches him, until it ends. Speaks FUSE 7 (linux/fuse.h).
const SILENT: &str = r#"
import ctypes, os, struct, sys
fuse = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"silent", sys.argv[1].encode(), b"fuse", 0, options) != 0:
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
print("mounted", flush=True)
while True:
    request = os.read(fuse, 1 << 20)
    size, opcode, unique = struct.unpack_from("<IIQ", request)
    def answer(body, error=0):
        os.write(fuse, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
    if opcode == 26:
        answer(struct.pack("<IIIIHHII", 7, 31, 0, 0, 16, 12, 65536, 1) + bytes(36))
    elif opcode == 3:
        attr = struct.pack("<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
        answer(struct.pack("<QII", 1 << 30, 0, 0) + attr)
    elif opcode == 1:
        print("asked", flush=True)
    elif opcode not in (2, 36, 42):
        answer(b"", -38)
"#;

/// The file system, and what it says: that it is mounted, then each time that somebody looks for a name.
fn silent(daemon: &Daemon, at: &str) -> (Child, impl FnMut() -> String) {
    let mut command = daemon.space().command(std::path::Path::new("python3"));
    command.args(["-c", SILENT, at]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let says = move || {
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        line
    };
    (child, says)
}

#[test]
fn root_a_process_that_cannot_die_is_told_of_and_hangs_nobody() {
    if !std::path::Path::new("/dev/fuse").exists() {
        return wherry_tests::say("skipped: no /dev/fuse");
    }
    let Some(daemon) = Daemon::start() else { return };
    let place = daemon.beside("silent");
    std::fs::create_dir(&place).unwrap();
    let (mut silent, mut says) = silent(&daemon, place.to_str().unwrap());
    assert_eq!(says(), "mounted\n");
    let cri = daemon.cri();
    let pod = daemon.pod("stuck", Network::Pod);
    let mut config = pod.container("c", &["cat", "/silent/file"]);
    config.mounts = vec![cri::Mount {
        host_path: place.to_str().unwrap().to_owned(),
        container_path: "/silent".to_owned(),
        ..cri::Mount::default()
    }];
    let id = pod.start(&config);
    assert_eq!(says(), "asked\n");
    let stuck = cri.stop(&id, 0).unwrap_err();
    assert_eq!(stuck.code(), Code::DeadlineExceeded, "{stuck:?}");
    assert!(stuck.message().contains("does not let processes ["), "{stuck:?}");
    // Everybody else is served meanwhile.
    let other = daemon.pod("other", Network::Pod);
    other.idle("c");
    other.remove();
    assert_eq!(cri.status(&id).state(), cri::ContainerState::ContainerRunning);
    // Its file system ends, and with it the wait.
    silent.kill().unwrap();
    silent.wait().unwrap();
    for pid in daemon.space().named("python3") {
        daemon.space().kill(pid);
    }
    assert_eq!(cri.ended(&id).exit_code, 137);
    pod.remove();
    daemon.space().shell(&format!("umount -l {}", place.display()));
    assert!(cri.pods().unwrap().is_empty());
}
