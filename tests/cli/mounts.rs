//! `-v`: folders and files of the host in a container, read-only where that is said.

use crate::bare;
use std::fs;
use wherry_tests::cli::said;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;

#[test]
fn root_a_folder_of_the_host_is_the_same_inside() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let data = daemon.beside("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "from outside\n").unwrap();
    let volume = format!("{}:/data", data.display());
    let script = "cat /data/in; echo from inside > /data/out";
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", &volume, NAME, "sh", "-c", script]),
        "from outside"
    );
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "from inside\n");
    // A file alone.
    let file = format!("{}/in:/etc/one-file", data.display());
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", &file, NAME, "cat", "/etc/one-file"]),
        "from outside"
    );
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_is_read_only_cannot_be_written() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let data = daemon.beside("data");
    fs::create_dir(&data).unwrap();
    let volume = format!("{}:/data:ro", data.display());
    let said = daemon.cli(&["run", "--rm", "-v", &volume, NAME, "touch", "/data/file"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_relative_path_begins_where_the_caller_is() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let here = daemon.beside("here");
    fs::create_dir_all(here.join("below")).unwrap();
    fs::write(here.join("file"), "x\n").unwrap();
    let cat = |volume: &str| {
        let script = format!("cd {} && exec \"$@\"", here.join("below").display());
        let mut command = daemon.space().command(std::path::Path::new("sh"));
        let wherry = daemon.command_line();
        let program = wherry.get_args().skip_while(|word| *word != "--").skip(1);
        command.args(["-c", &script, "sh"]).args(program);
        said(command.args(["run", "--rm", "-v", volume, NAME, "ls", "/d"]))
    };
    assert_eq!(cat("..:/d").stdout, "below\nfile\n");
    // What is missing is made as a folder.
    let made = cat("./made/here:/d");
    assert_eq!((made.code, made.stdout.as_str()), (0, ""), "{made:?}");
    assert!(here.join("below/made/here").is_dir());
    leaks.assert_same_after(&daemon);
}
