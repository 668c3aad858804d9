//! What a container sees: binds and their propagation, attributes, masks, devices, links that lie.

use crate::Test;
use crate::client::{Pod, c_path, shell, text};
use shim_model::plan::{Attributes, InitPlan, Source, Spread, Step, TargetKind};
use shim_model::wire::FromMonitor;
use shim_sys::mount::{self, Change, Flags, Propagation};
use shim_sys::namespace::{self, Namespace};
use std::fs;
use std::os::fd::OwnedFd;

pub(crate) const TESTS: &[Test] = &[
    ("root_a_bind_has_its_attributes_and_makes_its_target", root_bind),
    ("root_a_shared_bind_stays_in_its_peer_group", root_shared),
    ("root_links_of_an_image_do_not_lead_out", root_links),
    ("root_paths_are_masked_and_made_read_only", root_masks),
    ("root_devices_folders_and_links_are_made", root_nodes),
    ("root_the_nodes_mounts_are_out_of_sight", root_out_of_sight),
];

fn bind(target: &str, attributes: Attributes, spread: Spread) -> Step {
    Step::Bind { slot: 1, target: text(target), kind: TargetKind::Like, attributes, spread }
}

fn with(mut plan: InitPlan, steps: Vec<Step>) -> InitPlan {
    let pivot = plan.mounts.len() - 1;
    plan.mounts.splice(pivot..pivot, steps);
    plan
}

fn with_bind(plan: InitPlan, step: Step) -> InitPlan {
    let mut plan = with(plan, vec![step]);
    plan.sources.push(Source::HostTree { path: text("/"), create: false });
    plan
}

fn root_bind() {
    let mut pod = Pod::new("bind");
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "content").unwrap();
    let script = "cat /a/b/c/file; echo x > /a/b/c/new || echo refused; mount";
    let attributes = Attributes { readonly: true, noexec: true, ..Attributes::default() };
    let plan = with_bind(shell(script), bind("/a/b/c", attributes, Spread::Private));
    let tree = mount::clone_path(&c_path(host.path()), true).unwrap();
    pod.start_with(1, plan, vec![tree]);
    assert_eq!(pod.exit(1).code, 0);
    let log = pod.log(1).join("\n");
    assert!(log.contains("content") && log.contains("refused"), "{log}");
    let line = log.lines().find(|line| line.contains("on /a/b/c ")).unwrap();
    assert!(line.contains("ro,") && line.contains("noexec"), "{line}");
    // A file on a file.
    let tree = mount::clone_path(&c_path(&host.path().join("file")), false).unwrap();
    let step = bind("/etc/some/file", Attributes::default(), Spread::Private);
    pod.start_with(2, with_bind(shell("cat /etc/some/file"), step), vec![tree]);
    pod.exit(2);
    assert_eq!(pod.log(2), ["stdout P content"]);
}

/// Runs in a mount namespace of its own, where everything may be tried.
fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(|| {
        // A thread shares its file-system state with its process until it has a namespace.
        namespace::unshare(&[Namespace::Mount]).unwrap();
        mount::change_path(c"/", Propagation::Private).unwrap();
        act()
    })
    .join()
    .unwrap()
}

fn root_shared() {
    apart(|| {
        let host = tempfile::tempdir().unwrap();
        let base = mount::tmpfs(&[], Flags::NONE).unwrap();
        let propagation = Some(Propagation::Shared);
        mount::change(&base, Change { propagation, ..Change::default() }).unwrap();
        mount::attach_path(&base, &c_path(host.path())).unwrap();
        fs::create_dir(host.path().join("below")).unwrap();
        fs::create_dir(host.path().join("above")).unwrap();
        let clone = || -> OwnedFd { mount::clone_path(&c_path(host.path()), true).unwrap() };
        for (number, spread, seen) in
            [(1, Spread::Shared, true), (2, Spread::Slave, false), (3, Spread::Private, false)]
        {
            let mut pod = Pod::new(&format!("spread{number}"));
            let script = "mount -t tmpfs inner /v/below && touch /v/below/inside; echo ready; until ls /v/above/outside 2>&1; do [ -e /v/stop ] && exit 1; sleep 0.01; done; sleep 1000";
            let plan = with_bind(shell(script), bind("/v", Attributes::default(), spread));
            let tree = clone();
            std::os::unix::fs::symlink("busybox", pod.rootfs.0.path().join("bin/touch")).unwrap();
            pod.start_with(number, plan, vec![tree]);
            while !pod.log(number).contains(&"stdout F ready".to_owned()) {
                std::thread::yield_now();
            }
            // Container to host: shared only.
            let found = fs::exists(host.path().join("below/inside")).unwrap();
            assert_eq!(found, seen, "{spread:?}");
            // Host to container: shared and slave.
            let above = c_path(&host.path().join("above"));
            let outer = mount::tmpfs(&[], Flags::NONE).unwrap();
            mount::attach_path(outer, &above).unwrap();
            fs::write(host.path().join("above/outside"), "").unwrap();
            if spread == Spread::Private {
                fs::write(host.path().join("stop"), "").unwrap();
                assert_eq!(pod.exit(number).code, 1);
            } else {
                let seen = "stdout F /v/above/outside".to_owned();
                while !pod.log(number).contains(&seen) {
                    std::thread::yield_now();
                }
            }
            mount::unmount(&above).unwrap();
            pod.quit();
            if spread == Spread::Shared {
                mount::unmount(&c_path(&host.path().join("below"))).unwrap();
            }
        }
        mount::unmount(&c_path(host.path())).unwrap();
    });
}

fn root_links() {
    let mut pod = Pod::new("links");
    let outside = tempfile::tempdir().unwrap();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("mark"), "").unwrap();
    let inside = pod.rootfs.0.path().join("escape");
    std::os::unix::fs::symlink(outside.path(), inside).unwrap();
    let step = bind("/escape/deep", Attributes::default(), Spread::Private);
    let tree = mount::clone_path(&c_path(host.path()), true).unwrap();
    pod.start_with(1, with_bind(shell("ls /escape/deep/"), step), vec![tree]);
    assert_eq!(pod.exit(1).code, 0);
    assert_eq!(pod.log(1), ["stdout F mark"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // Through procfs, a link would lead to any root.
    let step = bind("/proc/self/root/tmp", Attributes::default(), Spread::Private);
    let tree = mount::clone_path(&c_path(host.path()), true).unwrap();
    let request = pod.begin(2, with_bind(shell("true"), step), vec![tree]);
    let FromMonitor::Failed(failure) = pod.reply(request) else { panic!("started") };
    assert!(failure.step.starts_with("bind a mount at /proc/self/root/tmp"), "{failure}");
}

fn root_masks() {
    let mut pod = Pod::new("masks");
    let root = pod.rootfs.0.path();
    fs::create_dir(root.join("secret")).unwrap();
    fs::write(root.join("secret/file"), "hidden").unwrap();
    fs::write(root.join("password"), "hidden").unwrap();
    fs::create_dir(root.join("fixed")).unwrap();
    let steps = vec![
        Step::Mask { path: text("/secret") },
        Step::Mask { path: text("/password") },
        Step::Mask { path: text("/not/there") },
        Step::Mask { path: text("/proc/cpuinfo") },
        Step::ReadonlyPath { path: text("/fixed") },
        Step::ReadonlyPath { path: text("/proc/sys") },
        Step::ReadonlyPath { path: text("/missing") },
    ];
    let script = "ls /secret; cat /password; cat /proc/cpuinfo; for f in /fixed/x /secret/x /proc/sys/kernel/hostname; do (echo y > $f) 2>&1; done; echo y > /open && echo open";
    let (code, log) = pod.run(1, with(shell(script), steps.clone()));
    assert_eq!((code, log.len()), (0, 4), "{log:?}");
    assert!(log[..3].iter().all(|line| line.contains("Read-only file system")), "{log:?}");
    let steps = [steps, vec![Step::ReadonlyRoot]].concat();
    let (_, log) = pod.run(2, with(shell(script), steps));
    assert!(log.last().unwrap().contains("Read-only file system"), "{log:?}");
}

fn root_nodes() {
    let mut pod = Pod::new("nodes");
    let device = |path: &str, minor: u32, mode: u32| Step::Device {
        path: text(path),
        block: false,
        major: 1,
        minor,
        mode,
        uid: if minor == 3 { 0 } else { 5 },
        gid: if minor == 3 { 0 } else { 6 },
    };
    let steps = vec![
        device("/dev/null", 3, 0o666),
        device("/dev/null", 3, 0o666),
        device("/dev/zero", 5, 0o620),
        Step::Folder { path: text("/made/here"), mode: 0o1777 },
        Step::Link { path: text("/dev/fd"), to: text("/proc/self/fd") },
    ];
    let script = "ls -lnd /dev/zero /made/here /dev/fd; echo gone > /dev/null";
    let (code, log) = pod.run(1, with(shell(script), steps));
    assert_eq!(code, 0, "{log:?}");
    let log = log.join("\n");
    for part in ["crw--w----", "5        6", "drwxrwxrwt", "/dev/fd -> /proc/self/fd"] {
        assert!(log.contains(part), "{part} in {log}");
    }
    let request = pod.begin(2, with(shell(""), vec![device("/bin/sh", 3, 0o666)]), vec![]);
    let FromMonitor::Failed(failure) = pod.reply(request) else { panic!("started") };
    assert_eq!(failure.errno, 17, "{failure}");
}

fn root_out_of_sight() {
    let mut pod = Pod::new("sight");
    let (_, log) = pod.run(1, shell("cat /proc/self/mountinfo"));
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(!log.iter().any(|line| line.contains("shared:")), "{log:?}");
}
