//! Full disks: what cannot be done is refused in a sentence and leaves nothing; what runs, runs on; what
//! gives space back works.

use shim_proto::runtime_v1 as cri;
use std::path::Path;
use wherry_tests::daemon::{Daemon, Setup};
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;
use wherry_tests::{images, log, until};

/// Fills the file system of a folder to its last byte; to be removed again by the test.
fn fill(daemon: &Daemon, folder: &Path) -> String {
    let file = folder.join("filler").to_string_lossy().into_owned();
    daemon.space().shell(&format!("dd if=/dev/zero of={file} bs=4k 2>/dev/null || true"));
    file
}

fn free(daemon: &Daemon, filler: &str) {
    daemon.space().shell(&format!("rm {filler}"));
}

#[test]
fn root_a_full_data_disk_is_told_and_left_as_it_was() {
    let setup = Setup { root_mib: Some(64), ..Setup::default() };
    let Some(daemon) = Daemon::with(&setup) else { return };
    let archive = daemon.beside("second.tar");
    images::write(&archive, "localhost/second:1", &["IMAGE=second"]);
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("full", Network::Node);
    let running = pod.idle("running");
    let filler = fill(&daemon, &daemon.root());
    // The program's own write fails, and nothing of ours does.
    let full = cri.exec(&running, &["sh", "-c", "echo x > /file"], 0).unwrap();
    assert!(full.stderr.contains("No space left"), "{full:?}");
    let refused = cri.create(&pod.id, &pod.container("c", &["true"]), &pod.config).err();
    if let Some(refused) = refused {
        assert!(refused.message().contains("No space left"), "{refused:?}");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    }
    let imported = daemon.wherry(&["image", "import", archive.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(!imported.status.success() && said.contains("No space left"), "{said}");
    assert_eq!(cri.image("localhost/second:1").unwrap(), None);
    // What gives space back needs none.
    cri.stop(&running, 0).unwrap();
    assert_eq!(cri.status(&running).exit_code, 137);
    pod.remove();
    free(&daemon, &filler);
    for worker in daemon.space().named("exe") {
        daemon.space().kill(worker);
    }
    leaks.assert_same_after(&daemon);
    daemon.pod("full", Network::Pod).remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_full_log_disk_stops_no_container() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let small = daemon.logs().join("small");
    std::fs::create_dir(&small).unwrap();
    let at = small.display();
    daemon.space().shell(&format!("mount -t tmpfs -o size=256k logs {at}"));
    let pod = daemon.pod("small", Network::Node);
    let script = "head -c 2000000 /dev/zero | tr '\\0' x | fold -w 99; echo > /dev/shm/done; \
                  while ! test -e /dev/shm/again; do usleep 5000; done; echo after";
    let id = pod.run_in("c", &["sh", "-c", script]);
    until("an end of the flood", || {
        let done = cri.exec(&id, &["test", "-e", "/dev/shm/done"], 0).unwrap();
        (done.code == 0).then_some(())
    });
    // The container went on; its log holds whole records and nothing else.
    let inside = daemon.space().path(pod.log("c"));
    let first = std::fs::read_to_string(&inside).unwrap();
    assert!(first.len() > 100_000 && first.len() <= 256 << 10, "{}", first.len());
    let old = daemon.space().path(pod.log("old"));
    std::fs::rename(&inside, &old).unwrap();
    daemon.space().shell(&format!("mount -o remount,size=64m {at}"));
    cri.reopen_log(&id).unwrap();
    cri.shell(&id, "echo > /dev/shm/again");
    assert_eq!(cri.ended(&id).exit_code, 0);
    assert!(log::said(&inside).ends_with("after\n"));
    cri.remove_pod(&pod.id).unwrap();
    daemon.space().shell(&format!("umount {at}"));
    std::fs::remove_dir(&small).unwrap();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_ends_are_recorded_in_a_full_state_folder() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("state", Network::Pod);
    let id =
        pod.run_in("c", &["sh", "-c", "while ! test -e /dev/shm/go; do usleep 5000; done; exit 7"]);
    let at = daemon.state();
    daemon.space().shell(&format!("mount -o remount,size=1m {}", at.display()));
    let filler = fill(&daemon, &at);
    let config = wherry_tests::requests::pod("late", Network::Node, &daemon.logs());
    let refused = cri.run_pod(&config).unwrap_err();
    assert!(refused.message().contains("No space left"), "{refused:?}");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    cri.shell(&id, "echo > /dev/shm/go");
    assert_eq!(cri.ended(&id).exit_code, 7);
    cri.stop_pod(&pod.id).unwrap();
    assert!(!cri.is_ready(&pod.id));
    cri.remove_pod(&pod.id).unwrap();
    assert!(cri.pods().unwrap().is_empty());
    free(&daemon, &filler);
    drop(std::fs::remove_dir_all(daemon.logs().join("state")));
    assert_eq!(cri.inspect(&id).unwrap_err().code(), tonic::Code::NotFound);
    let running = daemon.pod("late", Network::Node).idle("c");
    assert_eq!(cri.status(&running).state(), cri::ContainerState::ContainerRunning);
    for pod in cri.pods().unwrap() {
        cri.remove_pod(&pod.id).unwrap();
    }
    drop(std::fs::remove_dir_all(daemon.logs().join("late")));
    leaks.assert_same_after(&daemon);
}
