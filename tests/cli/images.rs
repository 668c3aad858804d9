//! `pull`, `images`, `rmi`, `image tag`: progress for people and for files, and names that go one by one.

use crate::bare;
use serde_json::Value;
use std::path::Path;
use wherry_tests::cli::said;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::{Image, NAME};
use wherry_tests::leaks::Leaks;
use wherry_tests::registry::Registry;

fn images(daemon: &Daemon) -> Vec<Value> {
    let parsed: Value = serde_json::from_str(&daemon.ok(&["images", "--format", "json"])).unwrap();
    parsed.as_array().unwrap().clone()
}

#[test]
fn root_a_pull_tells_how_it_comes_along() {
    let Some(daemon) = bare() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let leaks = Leaks::before(&daemon);
    let image = Image::with_layers(&[3 << 20, 5 << 20]);
    let name = registry.publish("layers", "1", &image);
    // Into a file: a line at the beginning and at the end of each layer, no control characters.
    let quiet = daemon.cli(&["pull", &name]);
    assert_eq!((quiet.code, quiet.stdout), (0, format!("{}\n", image.id())));
    let lines: Vec<&str> = quiet.stderr.lines().collect();
    assert!((2..=2 * image.layers.len()).contains(&lines.len()), "{lines:?}");
    assert!(quiet.stderr.chars().all(|c| c == '\n' || !c.is_control()), "{lines:?}");
    // What is here need not come again.
    assert_eq!(daemon.cli(&["pull", &name]).stdout, format!("{}\n", image.id()));
    daemon.ok(&["rmi", &name]);
    // On a terminal: a bar per layer, the id at the end.
    let line: Vec<String> = daemon
        .command_line()
        .get_args()
        .skip_while(|word| *word != "--")
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut script = daemon.space().command(Path::new("script"));
    let told = said(script.args([
        "-qec",
        &format!("stty cols 120; {} pull {name}", line.join(" ")),
        "/dev/null",
    ]));
    assert_eq!(told.code, 0, "{told:?}");
    for layer in &image.layers[1..] {
        let short = &wherry_tests::images::digest(layer)["sha256:".len()..][..12];
        assert!(told.stdout.contains(&format!("{short} [")), "no bar of {short}: {told:?}");
    }
    assert!(
        told.stdout.contains("MiB") && told.stdout.trim_end().ends_with(&image.id()),
        "{told:?}"
    );
    daemon.ok(&["rmi", &name]);
    drop(registry);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pull_that_cannot_be_says_why_in_a_sentence() {
    let Some(daemon) = bare() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let leaks = Leaks::before(&daemon);
    for (name, word) in [
        ("127.0.0.1:5000/none:1", "none"),
        ("127.0.0.1:5009/none:1", "127.0.0.1:5009"),
        ("Not/Lower", "Not/Lower"),
        ("a:b:c", "a:b:c"),
    ] {
        let told = daemon.refused(&["pull", name]);
        assert!(told.contains(word), "{told}");
    }
    drop(registry);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_images_are_listed_by_name() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    daemon.ok(&["image", "tag", NAME, "mine:1"]);
    let table = daemon.ok(&["images"]);
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["IMAGE", "TAG", "ID", "SIZE"]);
    let known: Vec<(&str, &str)> = lines[1..].iter().map(|line| (line[0], line[1])).collect();
    // Docker Hub's own need no host.
    assert_eq!(known, [("mine", "1"), ("localhost/busybox", "test")]);
    let all = images(&daemon);
    assert_eq!(
        (all.len(), &all[0]["tags"]),
        (1, &serde_json::json!(["docker.io/library/mine:1", NAME]))
    );
    let id = all[0]["id"].as_str().unwrap();
    assert!(all[0]["size"].as_u64().unwrap() > 0 && id.starts_with("sha256:"));
    for (name, lines) in [("mine", 2), ("mine:1", 2), (NAME, 2), ("mine:2", 1), ("busybox", 1)] {
        assert_eq!(daemon.ok(&["images", name]).lines().count(), lines, "{name}");
    }
    assert_eq!(daemon.ok(&["images", "-q"]), id["sha256:".len()..][..12]);
    assert_eq!(daemon.ok(&["run", "--rm", "mine:1", "echo", "runs"]), "runs");
    daemon.ok(&["rmi", "mine:1"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_rmi_takes_one_name_and_the_image_with_the_last() {
    let Some(daemon) = bare() else { return };
    let name = "localhost/second:1";
    let leaks = Leaks::before(&daemon);
    daemon.import(name, &["IMAGE=second"]);
    daemon.ok(&["image", "tag", name, "mine:1"]);
    let second =
        images(&daemon).into_iter().find(|image| image["tags"].to_string().contains("mine"));
    let id = second.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ok(&["rmi", "mine:1"]), "Untagged: docker.io/library/mine:1");
    assert_eq!(daemon.ok(&["run", "--rm", name, "sh", "-c", "echo $IMAGE"]), "second");
    assert_eq!(daemon.ok(&["rmi", name]), format!("Untagged: {name}\nDeleted: {id}"));
    assert_eq!(images(&daemon).len(), 1);
    let told = daemon.refused(&["rmi", name]);
    assert!(told.contains(name) && told.contains("wherry images"), "{told}");
    // An id of an image with several names needs force; one wrong name does not stop the others.
    daemon.import(name, &["IMAGE=second"]);
    daemon.ok(&["image", "tag", name, "mine:1"]);
    let told = daemon.refused(&["rmi", &id]);
    assert!(told.contains("-f") && told.contains(name), "{told}");
    let said = daemon.cli(&["rmi", "-f", "none", &id]);
    assert!(said.stderr.contains("\"none\"") && said.stdout.contains("Deleted: "), "{said:?}");
    assert_eq!((said.code, images(&daemon).len()), (0, 1));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_image_in_use_is_not_removed() {
    let Some(daemon) = bare() else { return };
    let name = "localhost/second:1";
    let leaks = Leaks::before(&daemon);
    daemon.import(name, &["IMAGE=second"]);
    daemon.ok(&["run", "-d", "--name", "user", name, "tail", "-f", "/dev/null"]);
    let told = daemon.refused(&["rmi", name]);
    assert!(told.contains(name) && told.contains("user") && told.contains("wherry rm"), "{told}");
    // Its further names may go.
    daemon.ok(&["image", "tag", name, "mine:1"]);
    daemon.ok(&["rmi", "mine:1"]);
    // Also what has ended needs it, to be started again.
    daemon.ok(&["stop", "-t", "0", "user"]);
    daemon.refused(&["rmi", name]);
    // By force its name goes; the container keeps what it stands on.
    daemon.ok(&["start", "user"]);
    daemon.ok(&["rmi", "-f", name]);
    assert_eq!(images(&daemon).len(), 1);
    assert_eq!(daemon.ok(&["exec", "user", "sh", "-c", "echo $IMAGE"]), "second");
    daemon.ok(&["rm", "-f", "user"]);
    leaks.assert_same_after(&daemon);
}
