//! Seccomp profiles, in force for the first process and for every exec: none, the built-in one, and files
//! with the whole language of profiles; what could be misread is refused when the container is made.

use super::{denied, idle, refused, status};
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::security_profile::ProfileType;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{Network, security};

fn profile(kind: ProfileType, file: &str) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: file.to_owned() }
}

/// Writes a profile; its path.
fn write(daemon: &Daemon, name: &str, profile: &serde_json::Value) -> String {
    let path = daemon.beside(name);
    std::fs::write(&path, profile.to_string()).unwrap();
    path.to_string_lossy().into_owned()
}

/// Allows all but what these rules say.
fn but(rules: &[serde_json::Value]) -> serde_json::Value {
    serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

#[test]
fn root_the_kind_of_a_profile_decides() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("kinds", Network::Node);
    let blocks = write(
        &daemon,
        "blocks.json",
        &but(&[serde_json::json!({"names": ["uname"], "action": "SCMP_ACT_ERRNO"})]),
    );
    for (name, seccomp, deprecated, mode) in [
        ("unset", None, "", "0"),
        ("empty", Some(profile(ProfileType::RuntimeDefault, "")), "", "2"),
        ("none", Some(profile(ProfileType::Unconfined, "")), "", "0"),
        ("file", Some(profile(ProfileType::Localhost, &blocks)), "", "2"),
        ("old", None, "runtime/default", "2"),
        ("new-wins", Some(profile(ProfileType::Unconfined, "")), "runtime/default", "0"),
    ] {
        let mut config = idle(&pod, name);
        security(&mut config).seccomp = seccomp;
        #[expect(deprecated, reason = "old clients set only the old field")]
        security(&mut config).seccomp_profile_path.push_str(deprecated);
        let id = pod.start(&config);
        assert_eq!(status(&daemon, &id, "Seccomp"), mode, "{name}");
        let first = daemon.cri().shell(&id, "grep ^Seccomp: /proc/1/status");
        assert_eq!(first.split_whitespace().nth(1), Some(mode), "{name}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_file_says_what_its_rules_say() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("rules", Network::Node);
    let rules = [
        // An errno of its own: ENXIO.
        serde_json::json!({"names": ["sync"], "action": "SCMP_ACT_ALLOW"}),
        serde_json::json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6}),
        // By argument: a group id of 1234, and a bit of a mask.
        serde_json::json!({"names": ["setgid"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 1234, "op": "SCMP_CMP_EQ"}]}),
        serde_json::json!({"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
            "args": [{"index": 1, "value": 4, "valueTwo": 4, "op": "SCMP_CMP_MASKED_EQ"}]}),
        serde_json::json!({"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
            "includes": {"caps": ["CAP_SYS_ADMIN"]}}),
        serde_json::json!({"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}),
        serde_json::json!({"names": ["call_of_another_kernel"], "action": "SCMP_ACT_ALLOW"}),
    ];
    let file = write(&daemon, "rules.json", &but(&rules));
    let mut config = idle(&pod, "c");
    security(&mut config).seccomp = Some(profile(ProfileType::Localhost, &file));
    let id = pod.start(&config);
    assert!(denied(&daemon, &id, "mkdir /tmp/x").contains("No such device or address"));
    // The shell changes modes by path: fchmodat has the mode third, chmod second.
    let said = cri.exec(&id, &["busybox", "chmod", "0004", "/tmp"], 10).unwrap();
    let other = cri.exec(&id, &["busybox", "chmod", "0700", "/tmp"], 10).unwrap();
    assert_eq!((said.code == 0, other.code), (false, 0), "{said:?} {other:?}");
    // A rule for a capability that the container does not have does not count.
    assert_eq!(cri.shell(&id, "uname"), "Linux\n");
    let killed = cri.exec(&id, &["hostname", "x"], 10).unwrap();
    assert_eq!(killed.code, 128 + 31, "{killed:?}");
    let mut admin = idle(&pod, "admin");
    security(&mut admin).seccomp = Some(profile(ProfileType::Localhost, &file));
    let add = cri::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() };
    security(&mut admin).capabilities = Some(add);
    let admin = pod.start(&admin);
    // busybox does not tell the error.
    assert_eq!(cri.shell(&admin, "uname"), "\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

/// Profiles that say more than is understood, and the word that the refusal must name.
fn misread() -> [(&'static str, serde_json::Value, &'static str); 8] {
    let rule = |rule: serde_json::Value| but(&[rule]);
    [
        (
            "notify",
            rule(serde_json::json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
            "hand system calls to another",
        ),
        (
            "listener",
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}),
            "listenerPath",
        ),
        (
            "unknown",
            rule(serde_json::json!({"names": ["call_of_nobody"], "action": "SCMP_ACT_ERRNO"})),
            "call_of_nobody",
        ),
        (
            "field",
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "sysCalls": []}),
            "sysCalls",
        ),
        ("action", serde_json::json!({"defaultAction": "ALLOW"}), "defaultAction"),
        (
            "errno",
            rule(
                serde_json::json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000}),
            ),
            "errnoRet",
        ),
        (
            "operator",
            rule(serde_json::json!({"names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 1, "op": "=="}]})),
            "op",
        ),
        (
            "architecture",
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}),
            "SCMP_ARCH_Z80",
        ),
    ]
}

#[test]
fn root_a_profile_that_could_be_misread_is_no_profile() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("misread", Network::Node);
    let with = |file: &str| {
        let mut config = idle(&pod, "c");
        security(&mut config).seccomp = Some(profile(ProfileType::Localhost, file));
        refused(&daemon, &pod, &config)
    };
    for (name, text, wanted) in misread() {
        let text = with(&write(&daemon, &format!("{name}.json"), &text));
        assert!(text.contains(wanted), "{name}: {text}");
    }
    for file in ["", "relative.json", "/not/there.json", daemon.beside("logs").to_str().unwrap()] {
        assert!(with(file).contains("localhost_ref"), "{file:?}");
    }
    let pipe = daemon.beside("pipe");
    daemon.space().shell(&format!("mkfifo {}", pipe.display()));
    assert!(with(pipe.to_str().unwrap()).contains("regular file"));
    let mut config = idle(&pod, "type");
    security(&mut config).seccomp =
        Some(cri::SecurityProfile { profile_type: 9, ..Default::default() });
    assert!(refused(&daemon, &pod, &config).contains("profile_type"));
    pod.remove();
    leaks.assert_same_after(&daemon);
}
