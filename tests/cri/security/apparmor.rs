//! AppArmor: every process of a container has the profile that was asked for, or our own, and a profile that
//! cannot be applied refuses the container by name. What a kernel without AppArmor answers is tested there, the
//! rest where it is on: in the guest (`hack/guest --tests`). Profiles are the machine's: these tests load theirs
//! under names of their own.

use super::{denied, idle, number, refused};
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::security_profile::ProfileType;
use std::path::Path;
use std::process::Command;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, security};
use wherry_tests::{handlers, say, until};

const DEFAULT: &str = "cri-wherry.apparmor.d";
const LABEL: &str = "cri-wherry.apparmor.d (enforce)";
const STRICT: &str = "wherry-test-strict";
const LIST: &str = "/sys/kernel/security/apparmor/profiles";

fn is_on() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on == "Y\n")
}

/// A daemon where AppArmor is on.
fn confining() -> Option<Daemon> {
    if is_on() {
        return Daemon::start();
    }
    say("skipped: this kernel has no AppArmor; hack/guest --tests runs it in one that has");
    None
}

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn profile(kind: ProfileType, name: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
}

fn localhost(name: &str) -> Option<cri::SecurityProfile> {
    profile(ProfileType::Localhost, name)
}

/// Loads a profile that lets a container do everything but write and see the network.
fn load_strict() {
    let text = format!(
        "profile {STRICT} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  \
           signal,\n  ptrace,\n  unix,\n  deny /** w,\n}}\n"
    );
    let folder = std::env::temp_dir().join(format!("{STRICT}-{}", std::process::id()));
    std::fs::write(&folder, text).unwrap();
    parser(&["--replace", "--skip-cache", folder.to_str().unwrap()]);
    std::fs::remove_file(&folder).unwrap();
}

fn parser(arguments: &[&str]) {
    let done = Command::new("apparmor_parser").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
}

fn is_loaded(name: &str) -> bool {
    let list = std::fs::read_to_string(LIST).unwrap();
    list.lines().any(|line| line.starts_with(&format!("{name} (")))
}

/// The label of a process, by its number where the daemon is.
fn label_of(daemon: &Daemon, pid: &serde_json::Value) -> String {
    let path = daemon.space().path(format!("/proc/{pid}/attr/apparmor/current"));
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

/// The labels of a container's first process and of a command in it, which must be the same, and the profile
/// that its spec names.
fn labels(daemon: &Daemon, id: &str) -> (String, Option<String>) {
    let info = daemon.cri().info(id);
    let first = label_of(daemon, &info["pid"]);
    let command = daemon.cri().exec(id, &["cat", "/proc/self/attr/apparmor/current"], 10).unwrap();
    assert_eq!(command.stdout.trim_end(), first, "{command:?}");
    let spec = info["runtimeSpec"]["process"]["apparmorProfile"].as_str();
    (first, spec.map(str::to_owned))
}

fn powerful<'d>(daemon: &'d Daemon, name: &str) -> Pod<'d> {
    let mut config = requests::pod(name, Network::Node, &daemon.logs());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    Pod::run(daemon, config)
}

#[test]
fn root_without_apparmor_what_asks_for_it_is_refused() {
    if is_on() {
        say("skipped: this kernel has AppArmor");
        return;
    }
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = powerful(&daemon, "without");
    for asked in
        [localhost("web"), localhost("localhost/web"), profile(ProfileType::RuntimeDefault, "")]
    {
        for privileged in [false, true] {
            let mut config = idle(&pod, "refused");
            security(&mut config).apparmor = asked.clone();
            security(&mut config).privileged = privileged;
            let said = refused(&daemon, &pod, &config);
            assert!(said.contains("apparmor") && said.contains("not on"), "{said}");
        }
    }
    let mut config = pod.config.clone();
    config.metadata.as_mut().unwrap().name = "other".into();
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().apparmor = localhost("web");
    assert!(daemon.cri().run_pod(&config).unwrap_err().message().contains("apparmor"));
    for asked in [None, profile(ProfileType::Unconfined, "")] {
        let mut config = idle(&pod, if asked.is_some() { "unconfined" } else { "unset" });
        security(&mut config).apparmor = asked;
        let id = pod.start(&config);
        assert!(daemon.cri().info(&id)["runtimeSpec"]["process"].get("apparmorProfile").is_none());
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_containers_that_name_no_profile_have_ours() {
    let Some(daemon) = confining() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = powerful(&daemon, "default");
    let start = |name: &str, asked, change: fn(&mut cri::LinuxContainerSecurityContext)| {
        let mut config = idle(&pod, name);
        security(&mut config).apparmor = asked;
        change(security(&mut config));
        labels(&daemon, &pod.start(&config))
    };
    let ours = (LABEL.to_owned(), Some(DEFAULT.to_owned()));
    let none = ("unconfined".to_owned(), None);
    assert_eq!(start("unset", None, |_| {}), ours);
    let by_name = || profile(ProfileType::RuntimeDefault, "");
    assert_eq!(start("named", by_name(), |_| {}), ours);
    assert_eq!(start("off", profile(ProfileType::Unconfined, ""), |_| {}), none);
    let user = |context: &mut cri::LinuxContainerSecurityContext| {
        context.no_new_privs = true;
        context.run_as_user = Some(number(1000));
    };
    assert_eq!(start("user", None, user), ours);
    // All of the node's power has none unless it was asked for.
    assert_eq!(start("power", None, |context| context.privileged = true), none);
    assert_eq!(start("both", by_name(), |context| context.privileged = true), ours);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_first_process_of_a_pod_has_a_profile_of_its_own() {
    let Some(daemon) = confining() else { return };
    load_strict();
    let leaks = Leaks::before(&daemon);
    let run = |name: &str, asked| {
        let mut config = requests::pod(name, Network::Pod, &daemon.logs());
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
        context.apparmor = asked;
        Pod::run(&daemon, config)
    };
    let usual = run("usual", None);
    assert_eq!(label_of(&daemon, &daemon.cri().pod_info(&usual.id)["pid"]), LABEL);
    let strict = run("strict", localhost(STRICT));
    let init = daemon.cri().pod_info(&strict.id)["pid"].clone();
    assert_eq!(label_of(&daemon, &init), format!("{STRICT} (enforce)"));
    // A container does not inherit it, and what it leaves behind is reaped all the same.
    let id = strict.idle("c");
    assert_eq!(labels(&daemon, &id).0, LABEL);
    daemon.cri().shell(&id, "(sleep 0.1 &)");
    let orphans =
        || daemon.cri().shell(&id, "grep -c ^State:.Z /proc/[0-9]*/status | grep -c :1; true");
    until("the orphan is reaped", || (orphans().trim() == "0").then_some(()));
    let mut refused = strict.config.clone();
    refused.metadata.as_mut().unwrap().name = "none".into();
    let context = refused.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.apparmor = localhost("wherry-test-none");
    let said = daemon.cri().run_pod(&refused).unwrap_err();
    assert!(said.message().contains("wherry-test-none"), "{said}");
    for pod in [usual, strict] {
        pod.remove();
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_our_profile_keeps_a_container_from_the_node() {
    let Some(daemon) = confining() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("denies", Network::Pod);
    let start = |name: &str, kind| {
        let mut config = idle(&pod, name);
        let context = security(&mut config);
        context.apparmor = profile(kind, "");
        let add_capabilities = vec!["SYS_ADMIN".to_owned(), "SYS_PTRACE".to_owned()];
        context.capabilities = Some(cri::Capability { add_capabilities, ..Default::default() });
        context.seccomp = None;
        pod.start(&config)
    };
    let (ours, free) =
        (start("ours", ProfileType::RuntimeDefault), start("free", ProfileType::Unconfined));
    let same = |file: &str| format!("v=$(cat {file}) && echo $v > {file}");
    let not_ours = [
        "mount -t tmpfs x /home",
        "mount --bind /etc /home",
        &same("/proc/sys/vm/swappiness"),
        &same("/proc/sys/kernel/printk_delay"),
        &same("/proc/irq/default_smp_affinity"),
        "head -c 1 /proc/kcore",
        "mount -o remount,rw /sys",
    ];
    for script in not_ours {
        let said = denied(&daemon, &ours, script);
        assert!(said.contains("ermission denied"), "{script}: {said}");
    }
    daemon.cri().shell(&free, "mount -t tmpfs x /home");
    daemon.cri().shell(&free, &same("/proc/sys/vm/swappiness"));
    daemon.cri().shell(&free, "mount -o remount,rw /sys");
    daemon.cri().shell(&free, &same("/sys/kernel/profiling || true; true > /dev/null"));
    // What is its own it may do.
    let own = [
        &same("/proc/sys/kernel/shmmax"),
        &same("/proc/self/oom_score_adj"),
        "echo x > /tmp/x && cat /tmp/x && rm /tmp/x",
        "sleep 5 & kill $!",
        "cat /proc/1/environ /proc/1/maps > /dev/null",
        "wget -q -O /dev/null http://127.0.0.1:1/ 2>&1 | grep -i refused",
    ];
    for script in own {
        daemon.cri().shell(&ours, script);
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_profile_of_the_node_is_applied_by_its_name() {
    let Some(daemon) = confining() else { return };
    load_strict();
    let leaks = Leaks::before(&daemon);
    let pod = powerful(&daemon, "localhost");
    let strict = (format!("{STRICT} (enforce)"), Some(STRICT.to_owned()));
    let prefixed = format!("localhost/{STRICT}");
    let start = |name: &str, (old, new): (&str, Option<cri::SecurityProfile>), privileged| {
        let mut config = idle(&pod, name);
        ask_the_old_way(&mut config, old);
        security(&mut config).apparmor = new;
        security(&mut config).privileged = privileged;
        pod.create(&config)
    };
    let started = |id: String| {
        daemon.cri().start(&id).unwrap();
        let found = labels(&daemon, &id);
        assert!(denied(&daemon, &id, "echo x > /tmp/x").contains("ermission denied"));
        found
    };
    assert_eq!(started(start("new", ("", localhost(STRICT)), false)), strict);
    assert_eq!(started(start("prefixed", ("", localhost(&prefixed)), false)), strict);
    assert_eq!(started(start("old", (&prefixed, None), false)), strict);
    assert_eq!(started(start("both", ("unconfined", localhost(STRICT)), false)), strict);
    assert_eq!(started(start("power", ("", localhost(STRICT)), true)), strict);
    let missing = ["wherry-test-none", "wherry-test", "unconfined", "a b", ""];
    for (old, new) in missing.map(|name| ("", localhost(name))).into_iter().chain([
        ("localhost/wherry-test-none", None),
        (prefixed.as_str(), localhost("wherry-test-none")),
        ("wherry-test-strict", None),
    ]) {
        let mut config = idle(&pod, "missing");
        ask_the_old_way(&mut config, old);
        security(&mut config).apparmor = new.clone();
        let said = refused(&daemon, &pod, &config);
        let named = new.map_or(old.to_owned(), |new| new.localhost_ref);
        let named = named.strip_prefix("localhost/").unwrap_or(&named);
        assert!(said.contains("apparmor") && said.contains(named), "{said}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[expect(deprecated, reason = "old clients set only the old field")]
fn ask_the_old_way(config: &mut cri::ContainerConfig, profile: &str) {
    profile.clone_into(&mut security(config).apparmor_profile);
}

#[test]
fn root_a_volume_over_proc_does_not_catch_the_label() {
    let Some(daemon) = confining() else { return };
    let fake = daemon.beside("proc");
    for folder in ["self/attr/apparmor", "thread-self/attr/apparmor"] {
        std::fs::create_dir_all(fake.join(folder)).unwrap();
        for file in ["exec", "current", "../exec"] {
            std::fs::write(fake.join(folder).join(file), "").unwrap();
        }
    }
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("fake", Network::Node);
    let mut config = idle(&pod, "c");
    config.mounts = vec![cri::Mount {
        container_path: "/proc".into(),
        host_path: fake.to_string_lossy().into_owned(),
        ..Default::default()
    }];
    let id = pod.start(&config);
    assert_eq!(label_of(&daemon, &daemon.cri().info(&id)["pid"]), LABEL);
    let written = std::fs::read(fake.join("thread-self/attr/apparmor/exec")).unwrap();
    assert!(written.is_empty());
    daemon.cri().shell(&id, "true");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_our_profile_is_loaded_again_or_missed_by_name() {
    let Some(daemon) = confining() else { return };
    let cri = daemon.cri();
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("reload", Network::Node);
    assert!(is_loaded(DEFAULT));
    let text = daemon.space().path(daemon.state().join("apparmor").join(DEFAULT));
    parser(&["--remove", text.to_str().unwrap()]);
    assert!(!is_loaded(DEFAULT));
    let again = pod.idle("again");
    assert_eq!(labels(&daemon, &again).0, LABEL);
    // Without the program that loads it.
    let parser_path = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
    let parser_path = parser_path.into_iter().find(|path| Path::new(path).exists()).unwrap();
    let hidden = |command: &str, arguments: &[&str]| {
        let done = daemon.space().command(Path::new(command)).args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    hidden("/bin/mount", &["--bind", "/dev/null", parser_path]);
    parser(&["--remove", text.to_str().unwrap()]);
    let mut config = idle(&pod, "named");
    security(&mut config).apparmor = profile(ProfileType::RuntimeDefault, "");
    let said = refused(&daemon, &pod, &config);
    assert!(said.contains(DEFAULT) && said.contains("apparmor_parser"), "{said}");
    let unset = pod.idle("unset");
    assert_eq!(labels(&daemon, &unset), ("unconfined".to_owned(), None));
    let told = cri.runtime_info();
    assert_eq!(told["apparmor"]["defaultProfileLoaded"], false);
    assert!(told["apparmor"]["reason"].as_str().unwrap().contains("apparmor_parser"), "{told}");
    hidden("/bin/umount", &[parser_path]);
    // A daemon that comes back has it again.
    daemon.restart();
    assert!(is_loaded(DEFAULT));
    let last = pod.idle("last");
    assert_eq!(labels(&daemon, &last).0, LABEL);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_handlers_program_is_told_the_profile() {
    let Some(daemon) = confining() else { return };
    for name in handlers::each() {
        let leaks = Leaks::before(&daemon);
        let config = requests::pod(&format!("by-{name}"), Network::Node, &daemon.logs());
        let pod = Pod::run_by(&daemon, config, name);
        // crun keeps what it compiled of a seccomp profile, for ever.
        let mut config = idle(&pod, "c");
        security(&mut config).seccomp = None;
        let id = pod.start(&config);
        assert_eq!(labels(&daemon, &id), (LABEL.to_owned(), Some(DEFAULT.to_owned())), "{name}");
        pod.remove();
        leaks.assert_same_after(&daemon);
    }
}
