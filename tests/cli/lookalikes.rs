//! The binary called `containerd` and `ctr`, in the lines that kind's image build and `kind load` call, word
//! for word: what these tools read of the answers is what is checked. What is there stands in `docs/kind.md`.

use crate::bare;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wherry_tests::cli::{said, sentence};
use wherry_tests::cri::Said;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::Image;
use wherry_tests::leaks::Leaks;
use wherry_tests::registry::Registry;
use wherry_tests::{say, setting, until};

/// The binary under a further name.
fn called(daemon: &Daemon, name: &str) -> Command {
    let link = daemon.beside(name);
    if !link.exists() {
        symlink(wherry_tests::program().unwrap(), &link).unwrap();
    }
    daemon.space().command(&link)
}

/// `ctr --namespace=k8s.io WORDS`, to be given standard input.
fn ctr(daemon: &Daemon, words: &str) -> Command {
    let mut command = called(daemon, "ctr");
    command.env("CONTAINERD_ADDRESS", daemon.beside("wherry.sock"));
    command.arg("--namespace=k8s.io").args(words.split(' '));
    command
}

/// It must succeed; its output without the last line end.
fn ok(mut command: Command) -> String {
    let said = said(&mut command);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.trim_end().to_owned()
}

/// It must fail with code 1 and one sentence.
fn refused(mut command: Command) -> String {
    let Said { stdout, stderr, code } = said(&mut command);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    sentence(&stderr)
}

/// Gives it this on a pipe.
fn fed(mut command: Command, input: &[u8]) -> (bool, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(text).unwrap())
}

/// An archive in each form: of OCI, and of `docker save` where skopeo is there to write it.
fn archives(daemon: &Daemon, image: &Image, tag: &str) -> Vec<(PathBuf, bool)> {
    let oci = daemon.beside("archive.oci");
    image.write(&oci, tag);
    let docker = daemon.beside("archive.docker");
    let (from, to) = (
        format!("oci-archive:{}", oci.display()),
        format!("docker-archive:{}:{tag}", docker.display()),
    );
    let made = Command::new("skopeo").args(["copy", "--quiet", &from, &to]).status();
    let docker = made.is_ok_and(|status| status.success()).then_some((docker, false));
    std::iter::once((oci, true)).chain(docker).collect()
}

#[test]
fn root_kind_loads_an_image() {
    let Some(daemon) = bare() else { return };
    let (image, tag) = (Image::with_layers(&[100_000, 3]), "localhost/loaded:1");
    let archives = archives(&daemon, &image, tag);
    let leaks = Leaks::before(&daemon);
    let mut dump = called(&daemon, "containerd");
    dump.args(["config", "dump"]);
    let dump = ok(dump);
    assert!(dump.lines().any(|line| line == "version = 2"), "{dump}");
    let (_, table) = dump.split_once("[plugins.\"io.containerd.grpc.v1.cri\".containerd]").unwrap();
    let (_, value) = table.split_once("snapshotter = \"").unwrap();
    let snapshotter = value.split('"').next().unwrap();

    for (archive, has_manifest) in archives {
        let bytes = std::fs::read(&archive).unwrap();
        let load = format!("images import --all-platforms --digests --snapshotter={snapshotter} -");
        let (done, text) = fed(ctr(&daemon, &load), &bytes);
        assert!(done && text.contains(tag), "{text}");
        let found = daemon.cri().image(tag).unwrap().unwrap();
        assert_eq!((found.id.as_str(), found.pinned), (image.id().as_str(), false));
        assert_eq!(found.repo_digests.len(), usize::from(has_manifest), "{found:?}");
        if let Some(digest) = found.repo_digests.first() {
            assert!(digest.starts_with("localhost/loaded@sha256:"), "{digest}");
            assert_eq!(daemon.cri().image(digest).unwrap().unwrap().id, image.id());
        }
        // kind finds the id, but not the name that is wanted.
        let name = "docker.io/library/again:2";
        let retag = format!("images tag --force {} {name}", image.id());
        assert_eq!(ok(ctr(&daemon, &retag)), name);
        assert_eq!(daemon.cri().image(name).unwrap().unwrap().id, image.id());
        assert_eq!(daemon.ok(&["run", "--rm", name, "sh", "-c", "echo $IMAGE"]), "layers");
        let listed = ok(ctr(&daemon, "images list -q"));
        let lines: Vec<&str> = listed.lines().collect();
        for wanted in [tag, name, &image.id()] {
            assert!(lines.contains(&wanted), "{wanted}: {listed}");
        }
        assert!(lines.iter().all(|line| !line.contains(char::is_whitespace)), "{listed}");
        assert_eq!(ok(ctr(&daemon, &format!("i ls -q name=={tag}"))), tag);
        assert_eq!(ok(ctr(&daemon, &format!("images rm {name} {tag}"))), format!("{name}\n{tag}"));
        assert!(daemon.cri().image(&image.id()).unwrap().is_none(), "with its last name");
    }
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

/// kind's own functions, with this machine as the node. They call `crictl` too.
#[test]
fn root_kinds_own_code_is_content() {
    let crictl = Command::new("crictl").arg("--version").output().is_ok();
    let Some(program) = setting("WHERRY_KIND_LOAD").filter(|_| crictl) else {
        return say(
            "skipped: WHERRY_KIND_LOAD names no program (hack/check --long), or there is no crictl",
        );
    };
    let Some(daemon) = bare() else { return };
    let (image, tag) = (Image::with_layers(&[100_000, 3]), "localhost/loaded:1");
    let archives = archives(&daemon, &image, tag);
    let leaks = Leaks::before(&daemon);
    let (socket, path) = (daemon.beside("wherry.sock"), daemon.beside("names"));
    std::fs::create_dir(&path).unwrap();
    for name in ["containerd", "ctr"] {
        symlink(wherry_tests::program().unwrap(), path.join(name)).unwrap();
    }
    for (archive, _) in archives {
        let mut load = daemon.space().command(Path::new(&program));
        load.env("CONTAINERD_ADDRESS", &socket);
        load.env("CONTAINER_RUNTIME_ENDPOINT", format!("unix://{}", socket.display()));
        load.env("PATH", format!("{}:{}", path.display(), setting("PATH").unwrap()));
        load.arg(&archive).args([tag, "docker.io/library/again:2"]);
        let found: serde_json::Value = serde_json::from_str(&ok(load)).unwrap();
        assert_eq!(found["ID"].as_str(), Some(image.id().as_str()));
        let tags = found["Tags"].as_object().unwrap();
        assert!(
            tags.contains_key(tag) && tags.contains_key("docker.io/library/again:2"),
            "{found}"
        );
        ok(ctr(&daemon, &format!("images rm {tag} docker.io/library/again:2")));
    }
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_kind_fills_a_node_image() {
    let Some(daemon) = bare() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let leaks = Leaks::before(&daemon);
    let info: serde_json::Value = serde_json::from_str(&ok(ctr(&daemon, "info"))).unwrap();
    assert!(info["server"]["pid"].as_u64().is_some(), "{info}");

    let image = Image::with_layers(&[50_000, 5]);
    let name = registry.publish("fetched", "1", &image);
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    ok(ctr(&daemon, &format!("content fetch --platform=linux/{machine} {name}")));
    assert!(ok(ctr(&daemon, "images list -q")).lines().any(|line| line == name));
    let told = refused(ctr(&daemon, &format!("content fetch --platform=linux/other {name}")));
    assert!(told.contains(machine), "{told}");

    let (built, tag) = (Image::with_layers(&[40_000, 7]), "registry.k8s.io/kube-built-amd64:v1");
    let archive = daemon.beside("built.tar");
    built.write(&archive, tag);
    // As kind does it, a file as standard input; the image is pinned.
    let label = "--label=io.cri-containerd.pinned=pinned";
    let load = format!("images import {label} --all-platforms --no-unpack --digests -");
    let mut load = ctr(&daemon, &load);
    let done = load.stdin(File::open(&archive).unwrap()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(daemon.cri().image(tag).unwrap().unwrap().pinned);
    let table = ok(ctr(&daemon, "images ls"));
    assert!(table.starts_with("REF ") && table.contains("pinned=pinned"), "{table}");
    let fixed = "registry.k8s.io/kube-built:v1";
    assert_eq!(ok(ctr(&daemon, &format!("images tag --force {tag} {fixed}"))), fixed);
    let told = refused(ctr(&daemon, &format!("images tag {name} {fixed}")));
    assert!(told.contains(fixed) && told.contains("--force"), "{told}");
    assert_eq!(ok(ctr(&daemon, &format!("images tag --force {name} {fixed}"))), fixed);
    assert_eq!(daemon.cri().image(fixed).unwrap().unwrap().id, image.id());

    ok(ctr(&daemon, &format!("images rm {tag} {fixed} {name}")));
    drop(registry);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_is_not_there_is_refused_with_what_is() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    for words in [
        "snapshots ls",
        "run x y",
        "images mount x /y",
        "images import --index-name x -",
        "images ls -q size>1",
    ] {
        let told = refused(ctr(&daemon, words));
        assert!(told.contains("images import|list|pull|remove|tag"), "{words}: {told}");
    }
    let mut other = called(&daemon, "ctr");
    other.args(["-n", "moby", "images", "ls"]);
    assert!(refused(other).contains("k8s.io"));
    let mut other = called(&daemon, "containerd");
    other.args(["config", "migrate"]);
    assert!(refused(other).contains("config dump"));
    // No archive; and nothing that was read is left on the disk.
    let (done, told) = fed(ctr(&daemon, "images import -"), b"no archive\n");
    assert!(!done && told.contains("standard input") && !told.contains("/proc/"), "{told}");
    let (done, told) = fed(ctr(&daemon, "images import -"), b"");
    assert!(!done && told.contains("standard input"), "{told}");
    let tmp = daemon.space().path(daemon.root().join("tmp"));
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_containerd_serves_where_its_tools_look() {
    let Some(daemon) = bare() else { return };
    let mut version = called(&daemon, "containerd");
    version.arg("--version");
    let version = ok(version);
    let words: Vec<&str> = version.split(' ').collect();
    assert!(words[0] == "containerd" && words[2].starts_with('v'), "{version}");
    // A second instance, in a folder of containerd's that is this test's alone.
    daemon.space().shell("mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd");
    let (root, state) = (daemon.beside("second"), daemon.beside("second-state"));
    let mut serve = called(&daemon, "containerd");
    serve.arg("--root").arg(&root).arg("--state").arg(&state);
    serve.stdin(Stdio::null()).stdout(Stdio::null());
    serve.stderr(File::create(daemon.beside("second.log")).unwrap());
    let mut serving = serve.spawn().unwrap();
    let log = || std::fs::read_to_string(daemon.beside("second.log")).unwrap();
    until("the daemon called containerd", || log().contains("serving").then_some(()));
    let mut info = called(&daemon, "ctr");
    info.arg("info");
    let info: serde_json::Value = serde_json::from_str(&ok(info)).unwrap();
    // pkill and pgrep of kind find it by its name.
    let pid = info["server"]["pid"].as_u64().unwrap();
    let found = daemon.space().shell("pgrep --exact containerd");
    assert!(found.lines().any(|line| line == pid.to_string()), "{found}");
    daemon.space().shell(&format!("kill {pid}"));
    let ended = until("its end", || serving.try_wait().unwrap());
    assert!(ended.success(), "{}", log());
}
