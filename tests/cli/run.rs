//! `wherry run`: in the foreground and in the background, names, images that are not here, and that a
//! person may leave at any time.

use crate::{bare, listed};
use nix::sys::signal::Signal;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::{Image, NAME};
use wherry_tests::leaks::Leaks;
use wherry_tests::registry::Registry;
use wherry_tests::until;

#[test]
fn root_the_foreground_is_the_containers() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let said = daemon.cli(&["run", "--rm", NAME, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.code), ("out\n", "err\n", 7));
    // The last line has no end, and nothing is added to it.
    assert_eq!(daemon.cli(&["run", "--rm", NAME, "printf", "a\\nb"]).stdout, "a\nb");
    // Everything of a long output, in order.
    let said = daemon.cli(&["run", "--rm", NAME, "seq", "100000"]);
    let numbers = (1..=100_000).map(|number| format!("{number}\n"));
    assert!(said.code == 0 && said.stdout == numbers.collect::<String>());
    assert_eq!(listed(&daemon, &["-a"]).len(), 0);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_ended_container_stays_until_it_is_removed() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    assert_eq!(daemon.cli(&["run", "--name", "once", NAME, "sh", "-c", "exit 3"]).code, 3);
    assert_eq!(listed(&daemon, &[]).len(), 0);
    let all = listed(&daemon, &["-a"]);
    assert_eq!((&all[0]["name"], &all[0]["exit_code"]), (&"once".into(), &3.into()));
    assert_eq!(daemon.ok(&["rm", "once"]), "once");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_background_prints_the_id() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let id = daemon.ok(&["run", "-d", "--name", "back", NAME, "tail", "-f", "/dev/null"]);
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let all = listed(&daemon, &[]);
    assert_eq!((&all[0]["id"], &all[0]["name"]), (&id.as_str().into(), &"back".into()));
    // Every beginning of the id is a name.
    assert_eq!(daemon.ok(&["exec", &id[..12], "echo", "hi"]), "hi");
    assert_eq!(daemon.ok(&["rm", "-f", &id]), id);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_rm_in_the_background_removes_it_when_it_ends() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let go = "until test -e /tmp/go; do sleep 0.05; done";
    daemon.ok(&["run", "-d", "--rm", "--name", "gone", NAME, "sh", "-c", go]);
    assert_eq!(listed(&daemon, &[]).len(), 1);
    daemon.ok(&["exec", "gone", "touch", "/tmp/go"]);
    until("a removal at the end", || listed(&daemon, &["-a"]).is_empty().then_some(()));
    // Also if nobody was there to see the end.
    daemon.ok(&["run", "-d", "--rm", "--name", "gone", NAME, "sh", "-c", "sleep 1"]);
    daemon.kill();
    until("an end", || daemon.space().named("sleep").is_empty().then_some(()));
    daemon.start_again();
    until("a removal at the end", || listed(&daemon, &["-a"]).is_empty().then_some(()));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_rm_counts_also_when_the_command_line_was_killed() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let go = "echo ready; until test -e /tmp/go; do sleep 0.05; done";
    let begun = daemon.begin(&["run", "--rm", "--name", "left", NAME, "sh", "-c", go]);
    begun.says("ready");
    begun.signal(Signal::SIGKILL);
    begun.end();
    daemon.ok(&["exec", "left", "touch", "/tmp/go"]);
    until("a removal at the end", || listed(&daemon, &["-a"]).is_empty().then_some(()));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_name_is_taken_once() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let idle = ["run", "-d", "--name", "web", NAME, "tail", "-f", "/dev/null"];
    daemon.ok(&idle);
    let told = daemon.refused(&idle);
    assert!(told.contains("\"web\"") && told.contains("wherry rm"), "{told}");
    daemon.ok(&["rm", "-f", "web"]);
    // By whom, if several want it at once.
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6).map(|_| scope.spawn(|| daemon.cli(&idle))).collect();
        let said = calls.into_iter().map(|call| call.join().unwrap());
        said.inspect(|said| assert!(said.code == 0 || said.stderr.contains("\"web\""), "{said:?}"))
            .map(|said| said.code)
            .collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(listed(&daemon, &["-a"]).len(), 1);
    daemon.ok(&["rm", "-f", "web"]);
    for bad in ["", "-x", "a b", "a/b", &"x".repeat(64)] {
        let told = daemon.refused(&["run", &format!("--name={bad}"), NAME, "true"]);
        assert!(told.contains("--name"), "{told}");
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_interrupted_run_stops_its_container() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let polite = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
        let begun = daemon.begin(&["run", "--rm", NAME, "sh", "-c", polite]);
        begun.says("ready");
        begun.signal(signal);
        let said = begun.end();
        assert_eq!((said.stdout.as_str(), said.code), ("ready\nasked\n", 5), "{said:?}");
        assert_eq!(listed(&daemon, &["-a"]).len(), 0);
    }
    // Who asks again does not want to wait.
    let deaf = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";
    let begun = daemon.begin(&["run", "--rm", NAME, "sh", "-c", deaf]);
    begun.says("ready");
    begun.signal(Signal::SIGINT);
    begun.says("asked");
    let asked = std::time::Instant::now();
    begun.signal(Signal::SIGINT);
    assert_eq!(begun.end().code, 137);
    assert!(asked.elapsed() < std::time::Duration::from_secs(8), "it waited for the grace");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_run_goes_on_over_a_restart_of_the_daemon() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let script = "echo one; until test -e /tmp/go; do sleep 0.05; done; echo two; exit 9";
    for end in [Daemon::kill, Daemon::stop] {
        let mut begun = daemon.begin(&["run", "--rm", "--name", "long", NAME, "sh", "-c", script]);
        begun.says("one");
        end(&daemon);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(begun.runs());
        daemon.start_again();
        daemon.ok(&["exec", "long", "touch", "/tmp/go"]);
        let said = begun.end();
        assert_eq!((said.stdout.as_str(), said.code), ("one\ntwo\n", 9), "{said:?}");
    }
    // Who only waits does not keep a daemon that stops.
    assert!(!daemon.log().contains("cut off"));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_missing_image_is_pulled_or_its_absence_told() {
    let Some(daemon) = bare() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let leaks = Leaks::before(&daemon);
    let name = registry.publish("some/image", "1", &Image::new(&["IMAGE=pulled"]));
    let run = ["run", "--rm", &name, "sh", "-c", "echo $IMAGE"];
    let said = daemon.cli(&run);
    assert_eq!((said.stdout.as_str(), said.code), ("pulled\n", 0), "{said:?}");
    assert!(said.stderr.starts_with(&format!("{name} is not here yet; pulling it\n")), "{said:?}");
    // And now it is here.
    assert_eq!(daemon.ok(&run), "pulled");
    daemon.ok(&["rmi", &name]);
    let told = |name: &str, word: &str| {
        let said = daemon.cli(&["run", "--rm", "--name", "none", name, "true"]);
        assert_eq!((said.stdout.as_str(), said.code), ("", 125), "{said:?}");
        let lines: Vec<&str> = said.stderr.lines().collect();
        let (last, first) = lines.split_last().unwrap();
        assert!(first.len() <= 1, "{said:?}");
        assert!(last.starts_with("wherry: ") && last.contains(word), "{said:?}");
    };
    told("127.0.0.1:5000/some/other:1", "some/other");
    told("127.0.0.1:5000/some/image:2", "some/image:2");
    told("127.0.0.1:5009/some/image:2", "127.0.0.1:5009");
    told("NO/such:name", "NO/such:name");
    drop(registry);
    assert_eq!(listed(&daemon, &["-a"]).len(), 0);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}
