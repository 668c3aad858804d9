//! Through the daemon's half, the worker process and Debian's `docker-registry`: pull, join, cancel,
//! a worker that is killed. The worker is this test binary in the role of one of its tests.

use crate::registry::{Lies, Registry};
use crate::support::{Image, digest, is_root, settings, skipped, two_layers};
use shim_image::auth::Auth;
use shim_image::images::Images;
use shim_image::pulls::Launch;
use shim_model::phases::Phase;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The worker's role: it reads requests until its input ends, then leaves in peace.
#[test]
fn a_worker_leaves_when_its_input_ends() {
    if std::io::stdin().is_terminal() {
        return skipped("a person's terminal is no input for a worker");
    }
    let left = shim_image::worker::main();
    assert_eq!(format!("{left:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
}

/// A store whose worker is the test above; the worker's process ids.
pub(crate) fn open(root: &Path) -> (Images, Arc<Mutex<Vec<u32>>>) {
    open_with(root, &[])
}

/// Likewise, with these variables (`NAME=VALUE`) in the worker's environment.
pub(crate) fn open_with(root: &Path, environment: &[String]) -> (Images, Arc<Mutex<Vec<u32>>>) {
    let pids: Arc<Mutex<Vec<u32>>> = Arc::default();
    let seen = Arc::clone(&pids);
    let test = "real_registry::a_worker_leaves_when_its_input_ends";
    let own = std::env::current_exe().unwrap().display().to_string();
    // Quiet: else the test's name stands in front of the worker's first line, which is then lost.
    let role = [&own, test, "--exact", "--nocapture", "--quiet"].map(str::to_owned);
    let launch = Launch {
        program: "/usr/bin/env".into(),
        args: [environment, &role].concat(),
        place: Arc::new(move |pid| seen.lock().unwrap().push(pid)),
    };
    (Images::open(settings(root), launch).unwrap(), pids)
}

/// Debian's registry below a folder; ends with the test.
struct DockerRegistry {
    host: String,
    child: Child,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl DockerRegistry {
    async fn start(folder: &Path) -> Option<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {free}\nlog:\n  level: error\n",
            folder.join("registry").display()
        );
        let config = folder.join("registry.yml");
        std::fs::File::create(&config).unwrap().write_all(text.as_bytes()).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let registry = Self { host: free.to_string(), child };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(&registry.host).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        None
    }

    async fn push(&self, repository: &str, tag: &str, image: &Image) {
        let base = format!("http://{}/v2/{repository}", self.host);
        let client = reqwest::Client::new();
        for blob in image.layers.iter().chain([&image.config]) {
            let begun = client.post(format!("{base}/blobs/uploads/")).send().await.unwrap();
            let place = begun.headers()["location"].to_str().unwrap().to_owned();
            let url = format!("{place}&digest={}", digest(blob));
            let put = client.put(url).body(blob.clone()).send().await.unwrap();
            assert_eq!(put.status(), 201);
        }
        let put = client
            .put(format!("{base}/manifests/{tag}"))
            .header("content-type", "application/vnd.oci.image.manifest.v1+json")
            .body(image.manifest.clone());
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
}

#[tokio::test]
async fn root_a_pull_from_dockers_registry_names_the_image() {
    if !is_root() {
        return;
    }
    crate::support::tls();
    let dir = tempfile::tempdir().unwrap();
    let Some(registry) = DockerRegistry::start(dir.path()).await else {
        return skipped("docker-registry is not installed");
    };
    let image = two_layers();
    registry.push("team/app", "1", &image).await;
    let (images, _pids) = open(dir.path());
    let name = format!("{}/team/app:1", registry.host);
    let pulled = images.pull(&name, &Auth::Anonymous, None).await.unwrap().image;
    assert_eq!(pulled.id.as_str(), digest(&image.config));
    assert_eq!(pulled.tags.iter().collect::<Vec<_>>(), [&name]);
    let by_digest = format!("{}/team/app@{}", registry.host, digest(&image.manifest));
    assert_eq!(pulled.digests.iter().collect::<Vec<_>>(), [&by_digest]);
    for known in [name.as_str(), &by_digest, pulled.id.as_str(), &pulled.id.hex()[..12]] {
        assert_eq!(images.find(known).unwrap().unwrap().id, pulled.id, "{known}");
    }
    // A store that is opened again knows what is there.
    drop(images);
    let (again, _pids) = open(dir.path());
    assert_eq!(again.find(&name).unwrap().unwrap().chain, pulled.chain);
}

#[tokio::test]
async fn root_the_same_pull_is_joined() {
    if !is_root() {
        return;
    }
    let registry = Arc::new(Registry::default());
    registry.push("app", "1", &two_layers());
    let name = format!("{}/app:1", registry.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let (images, pids) = open(dir.path());
    let asked = shim_sys::clock::now();
    let (one, two) = tokio::join!(
        images.pull(&name, &Auth::Anonymous, None),
        images.pull(&name, &Auth::Anonymous, None)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((&one.image.id, &one.steps), (&two.image.id, &two.steps));
    // Its steps follow each other, from the question on.
    let phases: Vec<&Phase> = one.steps.iter().map(|step| &step.phase).collect();
    let all = [Phase::PullWait, Phase::PullResolve, Phase::PullLayers, Phase::PullPublish];
    assert_eq!(phases, all.iter().collect::<Vec<_>>());
    assert!(one.steps.is_sorted_by_key(|step| step.begin) && one.steps[0].begin >= asked);
    assert!(one.steps.iter().all(|step| step.took > 0), "{:?}", one.steps);
    assert_eq!((registry.count("/manifests/"), pids.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn root_a_killed_worker_costs_one_repeat() {
    if !is_root() {
        return;
    }
    // The first answer is a wait that only a new worker's requests do not meet.
    let registry = Arc::new(Registry::lying(Lies {
        first_answers: 1.into(),
        first_status: 503,
        retry_after: Some("30"),
        ..Lies::default()
    }));
    registry.push("app", "1", &two_layers());
    let name = format!("{}/app:1", registry.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let (images, pids) = open(dir.path());
    let pulling = tokio::spawn({
        let images = images.clone();
        async move { images.pull(&name, &Auth::Anonymous, None).await }
    });
    while registry.count("/manifests/") == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let first = pids.lock().unwrap()[0];
    assert!(Command::new("kill").arg("-9").arg(first.to_string()).status().unwrap().success());
    let pulled = pulling.await.unwrap().unwrap().image;
    assert_eq!((pulled.chain.len(), pids.lock().unwrap().len()), (2, 2));
}

#[tokio::test]
async fn root_a_caller_that_leaves_ends_the_pull() {
    if !is_root() {
        return;
    }
    let registry = Arc::new(Registry::lying(Lies {
        first_answers: 3.into(),
        first_status: 503,
        retry_after: Some("30"),
        ..Lies::default()
    }));
    registry.push("app", "1", &two_layers());
    let name = format!("{}/app:1", registry.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let (images, _pids) = open(dir.path());
    let mut pull = Box::pin(images.pull(&name, &Auth::Anonymous, None));
    tokio::select! {
        ended = &mut pull => panic!("the registry makes it wait: {ended:?}"),
        () = async {
            while registry.count("/manifests/") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        } => {}
    }
    drop(pull);
    // The same name again is a new pull, not the one that was given up.
    let again = images.clone();
    let second = tokio::spawn(async move { again.pull(&name, &Auth::Anonymous, None).await });
    while registry.count("/manifests/") < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    second.abort();
    assert!(images.list().is_empty());
}

#[tokio::test]
async fn root_a_failure_of_the_worker_is_told_here() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (images, pids) = open(dir.path());
    let told = images.pull("127.0.0.1:1/app:1", &Auth::Anonymous, None).await.unwrap_err();
    assert!(told.to_string().starts_with("RegistryUnavailable"), "{told}");
    assert_eq!(pids.lock().unwrap().len(), 1);
}
