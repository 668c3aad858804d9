//! Pulls that are killed: the worker, the daemon, both, in the middle and at many moments. What stays is
//! whole, what is half is gone, and the same pull can be made again. And pulls that fail: nothing stays.

use crate::real_registry::open;
use crate::registry::{Layers, Lies, Registry};
use crate::support::{digest, is_root, settings, two_layers};
use shim_image::auth::Auth;
use shim_image::images::Images;
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The daemon's role: it pulls what its input names into the folder that it names, and is killed.
#[tokio::test]
async fn a_daemon_pulls_what_it_is_told() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let Some((root, name)) = line.trim_end().split_once(' ') else { return };
    let (images, _pids) = open(Path::new(root));
    images.pull(name, &Auth::Anonymous, None).await.unwrap();
    // Killed in any case.
    std::future::pending::<()>().await;
}

fn start(root: &Path, name: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crashes::a_daemon_pulls_what_it_is_told", "--exact", "--quiet", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{} {name}", root.display()).unwrap();
    child
}

async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if probe() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not come: {what}");
}

fn names(folder: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn in_the_making(root: &Path) -> Vec<String> {
    names(settings(root).root.join("tmp"))
}

/// A file of a layer in the making was begun.
fn is_unpacking(root: &Path) -> bool {
    let tmp = settings(root).root.join("tmp");
    in_the_making(root).iter().any(|name| tmp.join(name).join("fs/big").exists())
}

fn kill(pid: u32) {
    assert!(Command::new("kill").arg("-9").arg(pid.to_string()).status().unwrap().success());
}

/// The image of the two layers is here, and nothing else is.
async fn is_whole(root: &Path, images: &Images) {
    let [image] = images.list().try_into().unwrap();
    assert_eq!(image.id.as_str(), digest(&two_layers().config));
    let [top, bottom] = images.layer_folders(&image).try_into().unwrap();
    assert_eq!(std::fs::read(top.join("hello")).unwrap(), b"world");
    assert_eq!(std::fs::metadata(bottom.join("big")).unwrap().len(), 400_000);
    images.collect_now(&BTreeSet::new()).unwrap();
    let store = settings(root).root;
    assert_eq!(
        (names(store.join("layers")).len(), names(store.join("content/sha256")).len()),
        (2, 2)
    );
    until("an empty tmp", || in_the_making(root).is_empty()).await;
}

fn registry(lies: Lies) -> Arc<Registry> {
    let registry = Registry::lying(lies);
    registry.push("app", "1", &two_layers());
    Arc::new(registry)
}

/// The first download of a layer stops in its middle.
fn stalling() -> Lies {
    Lies { stalls: 1.into(), stall_after: 30_000, ..Lies::default() }
}

#[tokio::test]
async fn root_a_worker_that_is_killed_in_a_layer_leaves_nothing_of_it() {
    if !is_root() {
        return;
    }
    let registry = registry(stalling());
    let name = format!("{}/app:1", registry.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let (images, pids) = open(dir.path());
    let pulling = tokio::spawn({
        let images = images.clone();
        async move { images.pull(&name, &Auth::Anonymous, None).await }
    });
    until("a layer in the making", || is_unpacking(dir.path())).await;
    kill(pids.lock().unwrap()[0]);
    // One repeat in a new worker, which is not told the reason.
    pulling.await.unwrap().unwrap();
    assert_eq!(pids.lock().unwrap().len(), 2);
    is_whole(dir.path(), &images).await;
}

#[tokio::test]
async fn root_a_daemon_that_is_killed_in_a_layer_is_followed_by_a_clean_one() {
    if !is_root() {
        return;
    }
    let registry = registry(stalling());
    let name = format!("{}/app:1", registry.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path(), &name);
    until("a layer in the making", || is_unpacking(dir.path())).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    // Nothing was visible, and nothing is.
    let (images, _pids) = open(dir.path());
    assert!(images.list().is_empty());
    images.pull(&name, &Auth::Anonymous, None).await.unwrap();
    is_whole(dir.path(), &images).await;
}

#[tokio::test]
async fn root_whenever_they_are_killed_the_same_pull_works_afterwards() {
    if !is_root() {
        return;
    }
    let registry = registry(Lies::default());
    let name = format!("{}/app:1", registry.serve().await);
    for moment in 0..12u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut daemon = start(dir.path(), &name);
        let begun = registry.heard().len();
        // From its first request on; the last moments are after the last one.
        until("a request", || registry.heard().len() > begun).await;
        tokio::time::sleep(Duration::from_millis(moment * 8)).await;
        let workers = children(daemon.id());
        daemon.kill().unwrap();
        if moment % 2 == 0 {
            for pid in workers {
                // It may have seen the end of the daemon already.
                drop(Command::new("kill").args(["-9", &pid]).output());
            }
        }
        daemon.wait().unwrap();
        let (images, _pids) = open(dir.path());
        // What is visible is whole; what is not is brought.
        assert!(images.list().len() <= 1, "moment {moment}");
        images.pull(&name, &Auth::Anonymous, None).await.unwrap();
        is_whole(dir.path(), &images).await;
    }
}

fn children(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn root_a_pull_that_fails_or_is_given_up_leaves_nothing() {
    if !is_root() {
        return;
    }
    let wrong = registry(Lies { bytes: Layers::Flipped, ..Lies::default() });
    let slow = registry(stalling());
    let dir = tempfile::tempdir().unwrap();
    let (images, _pids) = open(dir.path());
    let name = format!("{}/app:1", wrong.serve().await);
    images.pull(&name, &Auth::Anonymous, None).await.unwrap_err();
    let name = format!("{}/app:1", slow.serve().await);
    let mut pull = Box::pin(images.pull(&name, &Auth::Anonymous, None));
    tokio::select! {
        ended = &mut pull => panic!("the registry makes it wait: {ended:?}"),
        () = until("a layer in the making", || is_unpacking(dir.path())) => {}
    }
    drop(pull);
    until("an end of what nobody waits for", || in_the_making(dir.path()).is_empty()).await;
    // Whoever tends the images was told, and finds it.
    tokio::time::timeout(Duration::from_secs(5), images.untidy(Duration::MAX)).await.unwrap();
    images.collect_now(&BTreeSet::new()).unwrap();
    let store = settings(dir.path()).root;
    for folder in ["layers", "content/sha256", "images", "tmp"] {
        assert_eq!(names(store.join(folder)), Vec::<String>::new(), "{folder}");
    }
    assert_eq!(images.usage(), (0, 0));
}
