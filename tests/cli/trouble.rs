//! What can go wrong around a command: names that nobody has, no daemon, no permission, readers that
//! leave. Every failure is one sentence with the way out, and nothing panics.

use crate::bare;
use std::path::Path;
use std::process::Command;
use wherry_tests::cli::{said, sentence};
use wherry_tests::cri::Said;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;
use wherry_tests::until;

/// The command line's program and its first arguments, as a shell in the space can run it.
fn program(daemon: &Daemon) -> String {
    let line = daemon.command_line();
    let words = line.get_args().skip_while(|word| *word != "--").skip(1);
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a script of bash in the space; `$w` is the command line.
fn bash(daemon: &Daemon, script: &str) -> Said {
    let script = format!("w='{}'\n{script}", program(daemon));
    said(daemon.space().command(Path::new("bash")).args(["-c", &script]))
}

#[test]
fn root_an_unknown_container_is_told_with_the_way_out() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for words in [
        &["logs", "none"][..],
        &["exec", "none", "true"],
        &["stop", "none"],
        &["start", "none"],
        &["rm", "none"],
    ] {
        let told = daemon.refused(words);
        assert!(told.contains("\"none\"") && told.contains("wherry ps -a"), "{told}");
    }
    // As Docker: an empty list is what was found.
    let said = daemon.cli(&["inspect", "none"]);
    assert_eq!((said.stdout.as_str(), said.code), ("[]\n", 125));
    assert!(sentence(&said.stderr).contains("\"none\""), "{said:?}");
    // What looks like the beginning of an id, and nothing at all.
    for name in ["0123456789ab", "", "../x", "*"] {
        let told = daemon.refused(&["logs", name]);
        assert!(told.contains(&format!("\"{name}\"")), "{told}");
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_ambiguous_id_asks_for_more() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    // Seventeen ids: two begin with the same digit.
    let ids: Vec<String> =
        (0..17).map(|_| daemon.ok(&["run", "-d", "--network", "host", NAME, "true"])).collect();
    let first = |id: &String| id[..1].to_owned();
    let twice =
        ids.iter().find(|id| ids.iter().filter(|other| first(other) == first(id)).count() > 1);
    let told = daemon.refused(&["logs", &first(twice.unwrap())]);
    assert!(told.contains("fits") && told.contains("more of the id"), "{told}");
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    daemon.ok(&[&["rm"], &ids[..]].concat());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_no_daemon_is_told_with_how_to_start_one() {
    let Some(daemon) = bare() else { return };
    daemon.kill();
    for words in [&["ps"][..], &["run", NAME, "true"], &["info"], &["pull", NAME]] {
        let told = daemon.refused(words);
        assert!(told.contains("wherry.sock") && told.contains("wherry serve"), "{told}");
    }
    // The version of the command line needs none.
    let said = daemon.cli(&["version"]);
    assert!(said.code == 125 && said.stdout.starts_with("command line "), "{said:?}");
    sentence(&said.stderr);
    std::fs::remove_file(daemon.beside("wherry.sock")).unwrap();
    let told = daemon.refused(&["ps"]);
    assert!(told.contains("wherry.sock") && told.contains("wherry serve"), "{told}");
    daemon.start_again();
}

#[test]
fn root_no_permission_is_not_taken_for_no_daemon() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    // The folder may be entered, so that it is the socket that refuses.
    let folder = daemon.beside("");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, open).unwrap();
    let copy = daemon.beside("wherry");
    let told = bash(
        &daemon,
        &format!(
            "cp ${{w%% *}} {0}; exec setpriv --reuid 1000 --regid 1000 --clear-groups {0} ${{w#* }} ps",
            copy.display()
        ),
    );
    assert_eq!((told.code, told.stdout.as_str()), (125, ""), "{told:?}");
    let told = sentence(&told.stderr);
    assert!(told.contains("wherry.sock") && told.contains("root"), "{told}");
    assert!(!told.contains("wherry serve"), "{told}");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_reader_may_leave() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    daemon.ok(&["run", "--name", "long", NAME, "sh", "-c", "seq 200000"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "endless",
        NAME,
        "sh",
        "-c",
        "while :; do echo x; sleep 0.01; done",
    ]);
    for (line, first) in [
        ("$w logs long | head -n 1", "1\n"),
        ("$w logs -f endless | head -n 1", "x\n"),
        ("$w logs --tail 100000 long | head -n 1", "100001\n"),
        ("$w run --rm localhost/busybox:test seq 200000 | head -n 1", "1\n"),
        ("$w exec long seq 1 | head -n 0; $w exec endless seq 200000 | head -n 1", "1\n"),
        ("$w ps -a | head -n 0; $w images | head -n 0; $w inspect long | head -n 1", "[\n"),
    ] {
        let said = bash(&daemon, line);
        let quiet = said
            .stderr
            .lines()
            .all(|line| line.contains("is not running") || line.contains("start long"));
        assert!(said.stdout == first && quiet, "{line}: {said:?}");
    }
    // As other programs: by the signal, or in peace.
    let said = bash(&daemon, "$w logs long | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}");
    assert!(["0\n", "141\n"].contains(&said.stdout.as_str()), "{said:?}");
    // Nobody listens to errors either.
    let said = bash(&daemon, "$w logs none 2>&1 >/dev/null | head -n 0; echo ${PIPESTATUS[0]}");
    assert!(["125\n", "141\n"].contains(&said.stdout.as_str()), "{said:?}");
    // A disk that is full is told.
    let said = bash(&daemon, "$w logs long > /dev/full");
    assert!(said.code == 125 && said.stderr.contains("No space left"), "{said:?}");
    daemon.ok(&["rm", "-f", "long", "endless"]);
    until("the removal of a run without a reader", || {
        crate::listed(&daemon, &["-a"]).is_empty().then_some(())
    });
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pod_without_a_container_is_not_in_the_way() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    // As a command line leaves it that was killed at the worst moment.
    daemon.ok(&["run", "-d", "--name", "half", NAME, "tail", "-f", "/dev/null"]);
    let id = crate::listed(&daemon, &[])[0]["id"].as_str().unwrap().to_owned();
    daemon.cri().remove(&id).unwrap();
    let told = daemon.refused(&["run", "-d", "--name", "half", NAME, "true"]);
    assert!(told.contains("wherry rm half"), "{told}");
    assert_eq!(daemon.ok(&["rm", "half"]), "half");
    daemon.ok(&["run", "--rm", "--name", "half", NAME, "true"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn a_command_line_without_any_daemon_needs_no_root() {
    let Some(program) = wherry_tests::program() else { return };
    let told = said(Command::new(&program).args(["--socket", "/no/such/socket", "ps"]));
    assert_eq!((told.code, told.stdout.as_str()), (125, ""));
    let told = sentence(&told.stderr);
    assert!(told.contains("/no/such/socket") && told.contains("wherry serve"), "{told}");
    // Who says nothing gets help.
    let help = said(Command::new(&program).env("WHERRY_SOCKET", "/no/such/socket"));
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("Usage: wherry"), "{help:?}");
}
