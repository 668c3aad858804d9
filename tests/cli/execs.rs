//! `exec`: a command's output and code, with the container's own environment, folder and user; and what
//! it says where it cannot.

use crate::bare;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;

#[test]
fn root_exec_ends_as_its_command_does() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let run = ["run", "-d", "--name", "here", "-e", "A=b", "-w", "/www", "-u", "user"];
    daemon.ok(&[&run[..], &[NAME, "tail", "-f", "/dev/null"]].concat());
    let said = daemon.cli(&["exec", "here", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.code), ("out\n", "err\n", 9));
    // With the container's environment, folder and user.
    assert_eq!(daemon.ok(&["exec", "here", "sh", "-c", "echo $A $PWD $(id -u)"]), "b /www 1000");
    // Options behind the command are the command's.
    assert_eq!(daemon.ok(&["exec", "here", "echo", "-f", "--rm"]), "-f --rm");
    for (program, code) in [("no-such-program", 127), ("/etc/no-program", 126), ("/etc", 126)] {
        let said = daemon.cli(&["exec", "here", program]);
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
        assert!(wherry_tests::cli::sentence(&said.stderr).contains(program), "{said:?}");
    }
    let said = daemon.cli(&["exec", "here", "sh", "-c", "kill -9 $$"]);
    assert_eq!(said.code, 137);
    daemon.ok(&["rm", "-f", "here"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_exec_needs_a_container_that_runs() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    daemon.ok(&["run", "--name", "ended", NAME, "true"]);
    let told = daemon.refused(&["exec", "ended", "true"]);
    assert!(told.contains("\"ended\"") && told.contains("wherry start ended"), "{told}");
    let told = daemon.refused(&["exec", "none", "true"]);
    assert!(told.contains("\"none\"") && told.contains("wherry ps -a"), "{told}");
    daemon.ok(&["rm", "ended"]);
    leaks.assert_same_after(&daemon);
}
