//! Exit codes as docker's: 125 where wherry failed, 126 where a program cannot be executed, 127 where
//! there is none, else the program's, 128 + n after a signal. A refusal names the option and what is
//! allowed.

use crate::{bare, listed};
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;

#[test]
fn root_run_ends_as_its_program_does() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for code in [0, 1, 2, 125, 126, 127, 128, 255] {
        let said = daemon.cli(&["run", "--rm", NAME, "sh", "-c", &format!("exit {code}")]);
        assert_eq!((said.code, said.stderr.as_str()), (code, ""));
    }
    for (program, code, word) in [
        ("no-such-program", 127, "no-such-program"),
        ("/no/such/program", 127, "/no/such/program"),
        ("/etc/no-program", 126, "/etc/no-program"),
        ("/etc", 126, "/etc"),
    ] {
        let said = daemon.cli(&["run", "--rm", "--name", "never", NAME, program]);
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
        assert!(wherry_tests::cli::sentence(&said.stderr).contains(word), "{said:?}");
        // What never ran is not there.
        assert_eq!(listed(&daemon, &["-a"]).len(), 0);
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_signal_is_told_as_128_and_its_number() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "echo ready; while :; do sleep 0.05; done";
    let begun = daemon.begin(&["run", "--name", "killed", NAME, "sh", "-c", script]);
    begun.says("ready");
    daemon.ok(&["stop", "-t", "0", "killed"]);
    let said = begun.end();
    assert_eq!((said.code, said.stderr.as_str()), (137, ""));
    assert_eq!(listed(&daemon, &["-a"])[0]["exit_code"], 137);
    daemon.ok(&["rm", "killed"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_is_not_understood_is_125_and_names_the_option() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for (options, word) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["-p", "3000"], "-p"),
        (&["-p", "3000:x"], "-p"),
        (&["-p", "3000:99999"], "-p"),
        (&["-v", "data"], "-v"),
        (&["-v", "named:/data"], "-v"),
        (&["-v", "/a:b"], "-v"),
        (&["-e", "=x"], "-e"),
        (&["-m", "lots"], "--memory"),
        (&["-m", "1k"], "--memory"),
        (&["--cpus", "0"], "--cpus"),
        (&["--network", "other"], "--network"),
        (&["--network", "host", "-p", "1:1"], "-p"),
        (&["-w", "relative"], "-w"),
        (&["-u", "nobody-here"], "nobody-here"),
        (&["-u", "0:nobody-here"], "nobody-here"),
        // There is no terminal here.
        (&["-it"], "-t"),
        (&["--detach-keys", "ab"], "--detach-keys"),
    ] {
        let words: Vec<&str> = ["run", "--rm", "--name", "never"]
            .iter()
            .chain(options)
            .chain(&[NAME, "true"])
            .copied()
            .collect();
        let told = daemon.refused(&words);
        assert!(told.contains(word), "{options:?}: {told}");
    }
    assert!(daemon.refused(&["run", "--entrypoint", "", NAME]).contains("--entrypoint"));
    // Whatever the words hold, it is one line and moves no cursor.
    let told = daemon.refused(&["run", "-u", "a\n\u{1b}[31mb", NAME, "true"]);
    assert!(!told.contains('\u{1b}'), "{told:?}");
    for words in [&["run"][..], &["ps", "--nonsense"], &["no-such-verb"], &["logs"], &["stop"]] {
        let told = daemon.refused(words);
        assert!(told.contains("--help"), "{told}");
    }
    assert_eq!(listed(&daemon, &["-a"]).len(), 0);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_help_is_no_failure() {
    let Some(daemon) = bare() else { return };
    for words in [&["--help"][..], &["run", "--help"], &["image", "--help"], &["--version"]] {
        let said = daemon.cli(words);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{words:?}");
        assert!(said.stdout.contains("wherry"), "{words:?}");
    }
}
