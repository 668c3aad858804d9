//! What a program finds: its environment, folder, user, entrypoint, host name, root, as `wherry run`
//! was told.

use crate::bare;
use wherry_tests::cli::said;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;

/// What a container of these options prints; it must succeed.
fn run(daemon: &Daemon, options: &[&str], command: &[&str]) -> String {
    let words = ["run", "--rm"].iter().chain(options).chain(&[NAME]).chain(command);
    daemon.ok(&words.copied().collect::<Vec<_>>())
}

#[test]
fn root_the_environment_is_the_images_and_the_options() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let mut command = daemon.command_line();
    command.env("WORD", "from here").env_remove("UNSET");
    command.args(["run", "--rm", "-e", "A=b=c", "-e", "WORD", "--env", "UNSET", "-e", "EMPTY="]);
    command.args(["-e", "IMAGE=mine", NAME, "env"]);
    let found = said(&mut command);
    let has = |line: &str| found.stdout.lines().any(|found| found == line);
    assert!(has("A=b=c") && has("WORD=from here") && has("EMPTY="), "{found:?}");
    // The option wins over the image; what is not set here is not set there.
    assert!(has("IMAGE=mine") && !found.stdout.contains("UNSET"), "{found:?}");
    assert!(found.stdout.lines().any(|line| line.starts_with("PATH=")), "{found:?}");
    assert_eq!(run(&daemon, &[], &["sh", "-c", "echo $IMAGE $HOME"]), "test /root");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_working_folder_is_made_if_it_is_missing() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    assert_eq!(run(&daemon, &[], &["pwd"]), "/");
    assert_eq!(run(&daemon, &["-w", "/www"], &["ls"]), "index.html");
    assert_eq!(run(&daemon, &["--workdir", "/no/such"], &["pwd"]), "/no/such");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_user_is_a_name_or_a_number() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let ids = ["sh", "-c", "echo $(id -u) $(id -g) $HOME"];
    for (user, wanted) in [
        ("1000", "1000 1000 /home/user"),
        ("user", "1000 1000 /home/user"),
        ("1000:0", "1000 0 /home/user"),
        ("user:2000", "1000 2000 /home/user"),
        ("user:extra", "1000 2000 /home/user"),
        ("1234:extra", "1234 2000 /"),
        ("4000:4001", "4000 4001 /"),
    ] {
        assert_eq!(run(&daemon, &["-u", user], &ids), wanted, "{user}");
    }
    // Groups of the image's file come with a name.
    assert!(run(&daemon, &["-u", "user"], &["id", "-G"]).contains("2000"));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_entrypoint_replaces_the_images() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    assert_eq!(run(&daemon, &["--entrypoint", "/bin/echo"], &["a", "b"]), "a b");
    // The image's own arguments go with its entrypoint.
    assert_eq!(run(&daemon, &["--entrypoint", "/bin/echo"], &[]), "");
    // An empty one is none.
    assert_eq!(run(&daemon, &["--entrypoint", ""], &["echo", "x"]), "x");
    // What comes after the image is the command's, whatever it looks like.
    assert_eq!(run(&daemon, &[], &["echo", "--rm", "-d", "--help"]), "--rm -d --help");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_read_only_root_takes_no_files() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "touch /file 2>/dev/null && echo written || echo refused";
    assert_eq!(run(&daemon, &[], &["sh", "-c", script]), "written");
    assert_eq!(run(&daemon, &["--read-only"], &["sh", "-c", script]), "refused");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_names_inside_are_those_outside() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    assert_eq!(run(&daemon, &["--name", "web"], &["hostname"]), "web");
    assert_eq!(run(&daemon, &["--hostname", "other"], &["hostname"]), "other");
    let hosts = run(&daemon, &["--hostname", "other"], &["cat", "/etc/hosts"]);
    assert!(hosts.lines().any(|line| line.ends_with("other")), "{hosts}");
    // The first process is the program, in a world of its own.
    assert_eq!(run(&daemon, &[], &["sh", "-c", "echo $$"]), "1");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_power_is_what_docker_gives() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let effective = ["sh", "-c", "grep CapEff /proc/self/status | cut -f2"];
    assert_eq!(run(&daemon, &[], &effective), "00000000a80425fb");
    let all = run(&daemon, &["--privileged"], &effective);
    assert!(all.trim_start_matches('0').len() >= 10 && all != "00000000a80425fb", "{all}");
    let script = "mount -t tmpfs x /tmp 2>/dev/null && echo can || echo cannot";
    assert_eq!(run(&daemon, &[], &["sh", "-c", script]), "cannot");
    assert_eq!(run(&daemon, &["--privileged"], &["sh", "-c", script]), "can");
    leaks.assert_same_after(&daemon);
}
