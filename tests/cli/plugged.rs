//! What `docs/` and `hack/package` give to those who plug Wherry into what they have: it is read as Wherry
//! and systemd read it.

use std::fs;
use std::process::Command;
use wherry_tests::cli::said;
use wherry_tests::docs::block;
use wherry_tests::say;

/// The configuration of a page, as the binary understands it.
fn dumped(page: &str) -> Option<String> {
    let program = wherry_tests::program()?;
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("config.toml"), folder.path().join("containerd"));
    fs::write(&file, block(page, "toml")).unwrap();
    std::os::unix::fs::symlink(program, &link).unwrap();
    let said = said(Command::new(link).arg("--config").arg(file).args(["config", "dump"]));
    assert_eq!(said.code, 0, "{page}: {said:?}");
    Some(said.stdout)
}

#[test]
fn the_configuration_for_k3s_names_its_folders() {
    let Some(dump) = dumped("k3s.md") else { return say("skipped: WHERRY_BIN names no program") };
    assert!(dump.contains("\"/var/lib/rancher/k3s/agent/etc/cni/net.d\""), "{dump}");
    assert!(dump.contains("\"/var/lib/rancher/k3s/data/current/bin\""), "{dump}");
}

#[test]
fn the_configuration_for_kind_reads_its_registries() {
    let Some(dump) = dumped("kind.md") else { return say("skipped: WHERRY_BIN names no program") };
    assert!(dump.contains("config_path = \"/etc/containerd/certs.d\""), "{dump}");
}

#[test]
fn systemd_takes_the_unit() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../hack/package/wherry.service");
    let text = fs::read_to_string(unit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("wherry.service");
    // The program must be there to be verified; ours is not installed.
    assert!(text.contains("ExecStart=/usr/local/bin/wherry serve\n"), "{text}");
    fs::write(&copy, text.replace("/usr/local/bin/wherry", "/bin/true")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&copy);
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return say("skipped: systemd-analyze is not there");
    }
    let said = said(&mut verify);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains("wherry.service"), "{said:?}");
}
