//! The architecture as a test: what no compiler and no linter knows about this repository. Its tables
//! come first; each rule is a function from files to complaints, and each has a test that shows it can
//! complain. Relies on `git ls-files` and `cargo metadata`; knows nothing of what the code does.

#![forbid(unsafe_code)]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Who may use whom of ours, and what a crate must never see. A new edge is a change to this table first.
const LAYERS: [Layer; 9] = [
    Layer("shim-sys", &[], &["tokio", "serde", "tracing"]),
    Layer("shim-model", &[], &["tokio", "prost", "tonic", "tracing", "rand"]),
    Layer("shim-child", &["shim-sys", "shim-model"], &["tokio", "serde_json", "tracing", "rustls"]),
    Layer("shim-image", &["shim-sys", "shim-model"], &["prost", "tonic"]),
    Layer("shim-runtime", &["shim-sys", "shim-model", "shim-image"], &["prost", "tonic", "axum"]),
    Layer("shim-proto", &[], &["tokio", "serde", "tracing"]),
    Layer(
        "cri-shim",
        &["shim-model", "shim-image", "shim-runtime", "shim-child", "shim-proto"],
        &[],
    ),
    Layer("hack-tool", &[], &[]),
    Layer("wherry-tests", &["shim-proto", "hack-tool"], &[]),
];

struct Layer(&'static str, &'static [&'static str], &'static [&'static str]);

/// Crates from outside, and the only ones of ours that may name them.
const OUTSIDE: [(&str, &[&str]); 12] = [
    ("libc", &["shim-sys", "wherry-tests"]),
    ("nix", &["shim-sys", "hack-tool", "wherry-tests"]),
    ("rustix", &["shim-sys"]),
    ("pathrs", &["shim-sys"]),
    ("reqwest", &["shim-image"]),
    ("zstd", &["shim-image"]),
    ("redb", &["shim-image"]),
    ("zbus", &["shim-runtime"]),
    ("clap", &["cri-shim", "hack-tool"]),
    ("prost", &["shim-proto", "cri-shim", "hack-tool"]),
    ("tonic", &["shim-proto", "cri-shim", "wherry-tests"]),
    ("kube", &["wherry-operator"]),
];

/// A word of code, and the only files that may hold it (beginnings of paths). Tests are not asked.
const OWNERS: [(&str, &[&str]); 7] = [
    ("Code::", &["cri-shim/daemon/src/rpc/", "cri-shim/daemon/src/cli/", "cri-shim/proto/src/"]),
    ("env::var", &["cri-shim/daemon/src/config/", "cri-shim/daemon/src/cli/"]),
    ("SystemTime::now", &["cri-shim/sys/src/clock.rs"]),
    (
        "Command::new",
        &[
            "cri-shim/image/src/pulls.rs",
            "cri-shim/runtime/src/handlers/program.rs",
            "cri-shim/runtime/src/network/plugin.rs",
            "cri-shim/runtime/src/network/native/portmap.rs",
            "hack/tool/",
        ],
    ),
    (
        "shim_proto::",
        &[
            "cri-shim/daemon/src/rpc/",
            "cri-shim/daemon/src/cli/",
            "cri-shim/daemon/src/lookalike/",
            "cri-shim/daemon/src/nri/",
            "cri-shim/daemon/src/serve.rs",
            "operator/src/node/",
        ],
    ),
    ("kube::Client", &["operator/src/act/", "operator/src/cache/", "operator/src/run.rs"]),
    ("unsafe", &["cri-shim/sys/src/"]),
];

/// Files that a generator writes; nobody counts their lines.
const GENERATED: [&str; 3] = [
    "cri-shim/proto/src/runtime_v1.rs",
    "cri-shim/proto/src/wherry_v1.rs",
    "cri-shim/proto/src/nri_v1alpha1.rs",
];

const LONGEST_FILE: usize = 500;
const LONGEST_SCRIPT: usize = 60;
/// Words of a `//!` header that is more than a title.
const HEADER_WORDS: usize = 12;
/// Names that fit everything say nothing.
const BANNED: [&str; 6] = ["manager", "utils", "common", "misc", "types", "helpers"];
/// Settings that send a package client somewhere else: a person's machine has them, the repository not.
const REGISTRY_SETTINGS: [&str; 4] =
    ["index-url", concat!("GO", "PROXY="), "replace-with", "registry-mirrors"];

/// A tracked file with its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|end| end == "rs")
    }

    fn is_generated(&self) -> bool {
        GENERATED.contains(&self.path.as_str())
    }

    /// Tests, their modules included: they may hold what only one place may hold in the product.
    fn is_test(&self) -> bool {
        let below = |folder: &str| self.path.starts_with(folder) || self.path.contains(folder);
        below("tests/") || self.path.ends_with("/tests.rs")
    }

    /// Lines of code before the file's own tests, without comments and sentences.
    fn code(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        let code = lines.map(|line| line.split("//").next().unwrap_or_default());
        code.filter(|line| !line.trim_start().starts_with("reason = \""))
    }
}

// === the rules ===

fn owners(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !file.is_test()) {
        for (word, homes) in OWNERS {
            let at_home = homes.iter().any(|home| file.path.starts_with(home));
            if !at_home && file.code().any(|line| holds(line, word)) {
                wrong.push(format!("{}: `{word}` belongs to {homes:?}", file.path));
            }
        }
    }
    wrong
}

/// Whether the word stands there, and not as a part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, found)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + found.len()..].chars().next();
        // `env::var` also means `env::vars`; `unsafe_code` is the lint's name and not the word.
        !before && (word != "unsafe" || !after.is_some_and(part))
    })
}

fn lengths(files: &[File]) -> Vec<String> {
    let limit = |file: &File| match () {
        () if file.is_generated() => None,
        () if file.is_rust() => Some(LONGEST_FILE),
        () if file.text.starts_with("#!") => Some(LONGEST_SCRIPT),
        () => None,
    };
    let too_long = |file: &&File| limit(file).is_some_and(|most| file.text.lines().count() > most);
    files.iter().filter(too_long).map(|file| format!("{}: too long", file.path)).collect()
}

fn headers(files: &[File]) -> Vec<String> {
    let bare = |file: &&File| {
        let header = file.text.lines().take_while(|line| line.starts_with("//!"));
        header.flat_map(str::split_whitespace).filter(|word| *word != "//!").count() < HEADER_WORDS
    };
    let rust = files.iter().filter(|file| file.is_rust());
    rust.filter(bare)
        .map(|file| {
            format!("{}: begin with `//!`: what it owns, relies on, does not do", file.path)
        })
        .collect()
}

/// Every .rs file below `roots`' folders is reached from a target by `mod` lines.
fn orphans(files: &[File], roots: &[String]) -> Vec<String> {
    let mut open: Vec<String> = roots.to_vec();
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        let is_root = roots.contains(&path) || path.ends_with("/mod.rs");
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let below = if is_root { folder.to_owned() } else { format!("{folder}/{}", stem(name)) };
        for module in file.text.lines().filter_map(module_of) {
            open.extend([format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")]);
        }
        reached.insert(path);
    }
    let lost = files.iter().filter(|file| file.is_rust() && !reached.contains(&file.path));
    lost.map(|file| format!("{}: no `mod` line reaches it", file.path)).collect()
}

/// The targets of `tests/fuzz`, a workspace of its own.
fn fuzz_targets(files: &[File]) -> Vec<String> {
    let manifest = files.iter().filter(|file| file.path == "tests/fuzz/Cargo.toml");
    let lines = manifest.flat_map(|file| file.text.lines());
    let paths = lines.filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    paths.map(|path| format!("tests/fuzz/{path}")).collect()
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".rs").unwrap_or(name)
}

/// `pub(crate) mod name;` → `name`.
fn module_of(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["mod", name] | [_, "mod", name] => name.strip_suffix(';'),
        _ => None,
    }
}

fn banned(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !file.is_generated()) {
        let mut names = vec![stem(file.path.rsplit('/').next().unwrap_or_default())];
        names.extend(file.code().filter_map(declared));
        let all_fitting = |name: &&str| words(name).iter().any(|w| BANNED.contains(&w.as_str()));
        let found = names.into_iter().filter(all_fitting);
        wrong.extend(found.map(|name| format!("{}: `{name}` fits everything", file.path)));
    }
    wrong
}

/// `pub struct Name<T> {` → `Name`; likewise enum, trait, type and mod.
fn declared(line: &str) -> Option<&str> {
    let mut rest = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let kind = rest.next()?;
    let name = rest.next()?.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    ["struct", "enum", "trait", "type", "mod"].contains(&kind).then_some(name)
}

/// `LayerManager`, `layer_manager` → `layer`, `manager`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        let Some(last) = words.last_mut() else { continue };
        last.extend(c.to_lowercase().filter(|c| *c != '_'));
    }
    words
}

/// Nothing of the machine that a commit was made on.
fn machine(files: &[File], places: &[String]) -> Vec<String> {
    let told = places.iter().map(String::as_str).chain(REGISTRY_SETTINGS);
    let told: Vec<&str> = told.collect();
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path != "tests/tidy.rs") {
        let found = told.iter().filter(|word| file.text.contains(**word));
        wrong.extend(found.map(|word| format!("{}: `{word}` is this machine's", file.path)));
    }
    wrong
}

fn layers(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    let members = metadata.workspace_packages();
    let ours: Vec<&str> = members.iter().map(|package| package.name.as_str()).collect();
    for package in members {
        let name = package.name.as_str();
        let layer = LAYERS.iter().find(|layer| layer.0 == name);
        let Some(Layer(_, below, never)) = layer else {
            wrong.push(format!("{name}: has no line in the table of layers"));
            continue;
        };
        let shipped = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for used in shipped.map(|dependency| dependency.name.as_str()) {
            let reserved = OUTSIDE.iter().find(|(outside, _)| *outside == used);
            let refused = never.contains(&used)
                || ours.contains(&used) && !below.contains(&used)
                || reserved.is_some_and(|(_, users)| !users.contains(&name));
            if refused {
                wrong.push(format!("{name}: must not use {used}"));
            }
        }
    }
    wrong
}

// === the repository ===

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Every text file that is tracked or about to be.
fn tracked() -> Vec<File> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git ls-files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let text = |path: &str| std::fs::read_to_string(root().join(path)).ok();
    let files = names.split('\0').filter(|path| !path.is_empty());
    files.filter_map(|path| Some(File { path: path.to_owned(), text: text(path)? })).collect()
}

fn metadata() -> Metadata {
    MetadataCommand::new().current_dir(root()).no_deps().exec().expect("cargo metadata")
}

/// Source files of all targets, below the repository's root.
fn targets(metadata: &Metadata) -> Vec<String> {
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let paths = targets.map(|target| target.src_path.as_std_path());
    let below = paths.filter_map(|path| path.strip_prefix(root()).ok());
    below.map(|path| path.to_string_lossy().into_owned()).collect()
}

fn clean(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn one(path: &str, text: &str) -> Vec<File> {
    vec![File { path: path.to_owned(), text: text.to_owned() }]
}

#[test]
fn crates_depend_downwards() {
    clean(&layers(&metadata()));
}

#[test]
fn an_edge_upwards_is_refused() {
    let mut metadata = metadata();
    let runtime = metadata.packages.iter().find(|p| p.name.as_str() == "shim-runtime").cloned();
    let runtime = runtime.expect("the runtime");
    for package in &mut metadata.packages {
        if package.name.as_str() == "shim-model" {
            package.dependencies.clone_from(&runtime.dependencies);
        }
    }
    let wrong = layers(&metadata);
    assert!(wrong.contains(&"shim-model: must not use shim-sys".to_owned()), "{wrong:?}");
    assert!(wrong.contains(&"shim-model: must not use tokio".to_owned()), "{wrong:?}");
}

#[test]
fn words_stay_with_their_owners() {
    clean(&owners(&tracked()));
}

#[test]
fn a_word_elsewhere_is_refused() {
    for (path, text) in [
        ("cri-shim/model/src/a.rs", "let a = Code::NotFound;"),
        ("cri-shim/model/src/a.rs", "let a = std::env::vars();"),
        ("cri-shim/model/src/a.rs", "let a = unsafe { b() };"),
        ("cri-shim/runtime/src/a.rs", "Command::new(\"runc\")"),
        ("cri-shim/runtime/src/a.rs", "use shim_proto::runtime_v1;"),
    ] {
        assert_eq!(owners(&one(path, text)).len(), 1, "{text}");
    }
    for (path, text) in [
        ("cri-shim/model/src/a.rs", "// Code::NotFound is what the caller sees"),
        ("cri-shim/model/src/a.rs", "#![forbid(unsafe_code)]"),
        ("cri-shim/child/src/a.rs", "ExitCode::SUCCESS"),
        ("cri-shim/model/src/a.rs", "#[cfg(test)]\nuse shim_proto::runtime_v1;"),
        ("cri-shim/daemon/tests/socket.rs", "tonic::Code::NotFound"),
    ] {
        clean(&owners(&one(path, text)));
    }
}

#[test]
fn files_are_short() {
    clean(&lengths(&tracked()));
}

#[test]
fn a_long_file_is_refused() {
    assert_eq!(lengths(&one("a.rs", &"x\n".repeat(501))).len(), 1);
    assert_eq!(lengths(&one("hack/a", &format!("#!/bin/sh\n{}", "x\n".repeat(60)))).len(), 1);
    assert!(lengths(&one("a.rs", &"x\n".repeat(500))).is_empty());
}

#[test]
fn files_say_what_they_are() {
    clean(&headers(&tracked()));
}

#[test]
fn a_title_is_no_header() {
    assert_eq!(headers(&one("a.rs", "//! The store.\nfn a() {}")).len(), 1);
    assert_eq!(headers(&one("a.rs", "fn a() {}")).len(), 1);
}

#[test]
fn files_are_compiled() {
    let files = tracked();
    let mut roots = targets(&metadata());
    roots.extend(fuzz_targets(&files));
    clean(&orphans(&files, &roots));
}

#[test]
fn a_file_that_nothing_names_is_refused() {
    let mut files = one("a/src/lib.rs", "mod b;\npub(crate) mod c;");
    files.extend(one("a/src/b.rs", ""));
    files.extend(one("a/src/c/mod.rs", "mod d;"));
    files.extend(one("a/src/c/d.rs", ""));
    let roots = ["a/src/lib.rs".to_owned()];
    clean(&orphans(&files, &roots));
    files.extend(one("a/src/d.rs", ""));
    assert_eq!(orphans(&files, &roots), ["a/src/d.rs: no `mod` line reaches it"]);
}

#[test]
fn names_say_something() {
    clean(&banned(&tracked()));
}

#[test]
fn a_name_that_fits_everything_is_refused() {
    for (path, text) in [
        ("a/src/utils.rs", ""),
        ("a/src/layer_helpers.rs", ""),
        ("a/src/a.rs", "pub(crate) struct LayerManager<T> {"),
        ("a/src/a.rs", "mod common {"),
    ] {
        assert_eq!(banned(&one(path, text)).len(), 1, "{path} {text}");
    }
    clean(&banned(&one("a/src/pulls.rs", "struct Pulls;\ntype Manages = ();")));
}

#[test]
fn commits_tell_nothing_of_a_machine() {
    clean(&machine(&tracked(), &[format!("{}/", root().display())]));
}

#[test]
fn a_path_of_this_machine_is_refused() {
    let places = ["/srv/checkout/".to_owned()];
    assert_eq!(machine(&one("a.sh", "cd /srv/checkout/target"), &places).len(), 1);
    assert_eq!(machine(&one("a.toml", "replace-with = \"near\""), &places).len(), 1);
}

#[test]
fn generated_code_is_fresh() {
    hack_tool::proto::check(&root()).expect("run hack/proto");
}

#[test]
fn stale_generated_code_is_refused() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = "cri-shim/proto";
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([root().join(folder), scratch.path().join("proto")])
        .status()
        .expect("cp");
    assert!(copied.success());
    let below = scratch.path().join("cri-shim");
    std::fs::create_dir(&below).expect("a folder");
    std::fs::rename(scratch.path().join("proto"), below.join("proto")).expect("move");
    hack_tool::proto::check(scratch.path()).expect("a faithful copy is fresh");
    let api = below.join("proto/proto/runtime/v1/api.proto");
    let text = std::fs::read_to_string(&api).expect("the protocol");
    std::fs::write(&api, format!("{text}\nmessage Added {{ string name = 1; }}\n")).expect("write");
    let stale = hack_tool::proto::check(scratch.path()).expect_err("a message more");
    assert!(stale.to_string().contains("stale"), "{stale:#}");
}
