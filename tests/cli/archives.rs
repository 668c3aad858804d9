//! `image import` and `image export`, in all three formats and both ways, checked by skopeo and umoci
//! where they are installed: what we write others read, what others write we read, and an image stays
//! the same image.

use crate::bare;
use std::path::Path;
use std::process::Command;
use wherry_tests::cli::said;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::{Image, NAME};
use wherry_tests::leaks::Leaks;
use wherry_tests::say;

/// Our name of a format, and skopeo's.
const FORMATS: [(&str, &str); 3] =
    [("oci", "oci-archive"), ("oci-dir", "oci"), ("docker", "docker-archive")];

/// Runs a program; its output. `None`, said aloud, where it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    if Command::new(program).arg("--version").output().is_err() {
        say(&format!("skipped: {program} is not there"));
        return None;
    }
    let done = said(Command::new(program).args(arguments));
    assert_eq!(done.code, 0, "{program} {arguments:?}: {done:?}");
    Some(done.stdout)
}

/// Removes the image and takes it out of an archive; it must be what it was, and run.
fn import(daemon: &Daemon, path: &Path, tag: &str, id: &str) {
    if daemon.cri().image(tag).unwrap().is_some() {
        daemon.ok(&["rmi", tag]);
    }
    let said = daemon.ok(&["image", "import", path.to_str().unwrap()]);
    assert_eq!(said, tag);
    assert_eq!(daemon.cri().image(tag).unwrap().unwrap().id, id);
    assert_eq!(daemon.ok(&["run", "--rm", tag, "sh", "-c", "echo $IMAGE"]), "layers");
}

#[test]
fn root_what_we_export_others_read_and_we_too() {
    let Some(daemon) = bare() else { return };
    let image = Image::with_layers(&[100_000, 3]);
    let (tag, archive) = ("localhost/layers:1", daemon.beside("made.tar"));
    image.write(&archive, tag);
    let leaks = Leaks::before(&daemon);
    import(&daemon, &archive, tag, &image.id());
    for (format, theirs) in FORMATS {
        let path = daemon.beside(&format!("exported-{format}"));
        let to = path.to_str().unwrap();
        assert_eq!(daemon.ok(&["image", "export", "--type", format, "-o", to, tag]), "");
        // Nothing is overwritten.
        let told = daemon.refused(&["image", "export", "--type", format, "-o", to, tag]);
        assert!(told.contains(to), "{told}");
        // The configuration is the stored one, byte for byte: the image stays the same image.
        if let Some(found) =
            run("skopeo", &["inspect", "--config", "--raw", &format!("{theirs}:{to}")])
        {
            assert_eq!(found.as_bytes(), image.config, "{format}");
        }
        import(&daemon, &path, tag, &image.id());
    }
    daemon.ok(&["rmi", tag]);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_others_write_we_import() {
    let Some(daemon) = bare() else { return };
    let image = Image::with_layers(&[100_000, 3]);
    let (tag, archive) = ("localhost/layers:1", daemon.beside("made.tar"));
    image.write(&archive, tag);
    let leaks = Leaks::before(&daemon);
    let from = format!("oci-archive:{}", archive.display());
    for (format, theirs) in FORMATS {
        let path = daemon.beside(&format!("theirs-{format}"));
        let to = format!("{theirs}:{}:{tag}", path.display());
        if run("skopeo", &["copy", "--quiet", &from, &to]).is_none() {
            return;
        }
        import(&daemon, &path, tag, &image.id());
    }
    daemon.ok(&["rmi", tag]);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_umoci_unpacks_and_changes_what_we_export() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let (layout, bundle) = (daemon.beside("layout"), daemon.beside("bundle"));
    let at = layout.to_str().unwrap();
    daemon.ok(&["image", "tag", NAME, "plain:1"]);
    daemon.ok(&["image", "export", "--type", "oci-dir", "-o", at, "plain:1"]);
    // umoci goes by the bare tag.
    let image = format!("{at}:1");
    let unpack = ["unpack", "--image", &image, bundle.to_str().unwrap()];
    let usable = Command::new("umoci").arg("--version").output().is_ok();
    if usable && said(Command::new("umoci").args(unpack)).code == 0 {
        let rootfs = bundle.join("rootfs");
        let page = std::fs::read_to_string(rootfs.join("www/index.html")).unwrap();
        assert_eq!(page, "a page of a container\n");
        std::fs::write(rootfs.join("www/new"), "by umoci\n").unwrap();
        run("umoci", &["repack", "--image", &image, bundle.to_str().unwrap()]);
        daemon.ok(&["image", "import", at]);
        assert_eq!(daemon.ok(&["run", "--rm", "plain:1", "cat", "/www/new"]), "by umoci");
    } else {
        say("skipped: umoci is not there");
    }
    daemon.ok(&["rmi", "plain:1"]);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_archives_that_are_none_are_refused_in_a_sentence() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let (text, folder) = (daemon.beside("text"), daemon.beside("folder"));
    std::fs::write(&text, "no archive\n").unwrap();
    std::fs::create_dir(&folder).unwrap();
    for path in [&text, &folder, &daemon.beside("missing")] {
        let path = path.to_str().unwrap();
        let told = daemon.refused(&["image", "import", path]);
        assert!(told.contains(path), "{told}");
    }
    let to = daemon.beside("never");
    let to = to.to_str().unwrap();
    let told = daemon.refused(&["image", "export", "-o", to, "none:1"]);
    assert!(told.contains("none:1") && !Path::new(to).exists(), "{told}");
    let told = daemon.refused(&["image", "export", "--type", "zip", "-o", to, NAME]);
    assert!(told.contains("oci-dir"), "{told}");
    let told = daemon.refused(&["image", "export", "-o", "/no/such/folder/x", NAME]);
    assert!(told.contains("/no/such/folder/x"), "{told}");
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}
