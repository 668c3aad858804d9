//! The spec that a handler's program gets: the one that was built, made fit for a runtime that knows nothing
//! of us. What it may not do itself is taken out (limits, sysctls and the host name are ours already), what it
//! cannot know gets a place in the bundle (`handler/order.rs`: namespaces, trees without a path of their own).
//! Nothing that a pod says reaches the program as an order to it: annotations only by name.

use super::mounts::entry;
use super::{Built, SpecInput, Special, devices};
use crate::handler::choice::Handler;
use crate::handler::order::Tree;
use crate::kind::Refused;
use crate::plan::{PidNamespace, Rlimit, Source};
use crate::rlimits;
use crate::spec::mounts::c_string;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

/// The version that every program reads: crun before 1.9 refuses later ones, and nothing that is said here
/// is younger.
const VERSION: &str = "1.0.2";

/// What a program needs besides the built spec.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The handler.
    pub handler: &'a Handler,
    /// The folder with the spec.
    pub bundle: &'a str,
    /// The folder with the files of the pod.
    pub files: &'a str,
    /// Which PID namespace.
    pub pid: &'a PidNamespace,
    /// The profile in the words of the specification.
    pub seccomp: Option<&'a Value>,
    /// By path on the node: what its mount forbids. A program that binds it again would permit it.
    pub forbidden: &'a BTreeMap<String, Vec<&'static str>>,
    /// What this process may give away at most: it has no right to raise limits (`CAP_SYS_RESOURCE`).
    pub bounds: Option<&'a Bounds>,
}

/// Limits of a daemon without the right to raise any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Hard limits by the kernel's number.
    pub hard: Vec<(u32, u64)>,
    /// The lowest score.
    pub oom_score: i32,
}

/// A spec as text, and what stands at the places that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// `config.json`.
    pub text: String,
    /// What the start needs.
    pub launch: Launch,
}

/// What is kept of it for the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Descriptors to open, in the order of the [`Tree::Given`]; the first is the root.
    pub sources: Vec<Source>,
    /// Absolute paths in the bundle, and what is attached there.
    pub trees: Vec<(CString, Tree)>,
    /// Those of them that are files.
    pub files: Vec<CString>,
    /// Folders of the node that are made if they are missing.
    pub folders: Vec<CString>,
}

/// Makes a built spec one for a program.
pub fn spec(input: &SpecInput<'_>, built: &Built, facts: &Facts<'_>) -> Result<Foreign, Refused> {
    let mut spec = built.spec.clone();
    let mut places = Places { facts, launch: Launch::default(), last: 0 };
    let root = places.at("rootfs", Tree::Given, Some(Source::Root))?;
    if let Some(known) = spec.root_mut() {
        known.set_path(root);
    }
    let mounts = mounts(input, built, &mut places)?;
    let spread = propagation(&mounts);
    spec.set_version(VERSION.to_owned()).set_mounts(Some(mounts)).set_hostname(None);
    let mut shown = spec.annotations().clone().unwrap_or_default();
    shown.retain(|key, _| facts.handler.annotations.contains(key));
    spec.set_annotations(Some(shown));
    process(built, facts, &mut spec)?;
    if let Some(linux) = spec.linux_mut() {
        let known = linux.namespaces().clone().unwrap_or_default();
        linux
            .set_namespaces(Some(places.namespaces(known)?))
            .set_resources(Some(devices::rules(input)))
            .set_sysctl(None)
            .set_rootfs_propagation(spread.map(str::to_owned));
        if input.setup.user.is_some() {
            // Joined by its path, it has its maps.
            linux.set_uid_mappings(None).set_gid_mappings(None);
        }
    }
    let mut text = crate::spec::json(&spec).unwrap_or_default();
    if let (Some(seccomp), Some(linux)) =
        (facts.seccomp, text.get_mut("linux").and_then(Value::as_object_mut))
    {
        linux.insert("seccomp".to_owned(), seccomp.clone());
    }
    Ok(Foreign { text: text.to_string(), launch: places.launch })
}

/// The process chapter of a spec for a further command, out of the text of the first one's.
pub fn command(
    spec: &[u8],
    command: &[String],
    tty: bool,
    (columns, rows): (u16, u16),
) -> Option<Vec<u8>> {
    let spec: Value = serde_json::from_slice(spec).ok()?;
    let mut process = spec.get("process")?.clone();
    let chapter = process.as_object_mut()?;
    chapter.insert("args".to_owned(), json!(command));
    chapter.insert("terminal".to_owned(), json!(tty));
    if tty && columns > 0 && rows > 0 {
        chapter.insert("consoleSize".to_owned(), json!({ "height": rows, "width": columns }));
    }
    let env = chapter.get_mut("env").and_then(Value::as_array_mut)?;
    let is_known = |entry: &Value| entry.as_str().is_some_and(|text| text.starts_with("TERM="));
    if tty && !env.iter().any(is_known) {
        env.push(json!(format!("TERM={}", super::process::TERM)));
    }
    Some(process.to_string().into_bytes())
}

/// Environment in text, limits that can be given.
fn process(
    built: &Built,
    facts: &Facts<'_>,
    spec: &mut oci_spec::runtime::Spec,
) -> Result<(), Refused> {
    if let Some((key, _)) = built.env.iter().find(|(_, value)| std::str::from_utf8(value).is_err())
    {
        let allowed =
            format!("UTF-8: the spec that the handler \"{}\" reads is text", facts.handler.name);
        return Err(Refused::new(format!("config.envs[{key}]"), "other bytes", allowed));
    }
    let (Some(bounds), Some(process)) = (facts.bounds, spec.process_mut()) else { return Ok(()) };
    let limits = built.rlimits.iter().map(|limit| bounded(limit, bounds));
    process.set_rlimits(Some(limits.filter_map(|limit| rlimits::oci(&limit)).collect()));
    let score = process.oom_score_adj().map(|score| score.max(bounds.oom_score));
    process.set_oom_score_adj(score);
    Ok(())
}

fn bounded(limit: &Rlimit, bounds: &Bounds) -> Rlimit {
    let known = bounds.hard.iter().find(|(number, _)| *number == limit.resource);
    let hard = known.map_or(limit.hard, |(_, most)| limit.hard.min(*most));
    Rlimit { resource: limit.resource, soft: limit.soft.min(hard), hard }
}

/// Places in the bundle.
struct Places<'a> {
    facts: &'a Facts<'a>,
    launch: Launch,
    last: usize,
}

impl Places<'_> {
    /// A named place for a tree; its absolute path.
    fn at(&mut self, name: &str, tree: Tree, source: Option<Source>) -> Result<PathBuf, Refused> {
        let path = format!("{}/{name}", self.facts.bundle);
        let place = c_string("bundle", &path)?;
        let file = match &source {
            Some(Source::PodFile(_) | Source::Device(_)) => true,
            Some(_) => false,
            None => tree != Tree::PodShm,
        };
        if file {
            self.launch.files.push(place.clone());
        }
        self.launch.trees.push((place, tree));
        self.launch.sources.extend(source);
        Ok(path.into())
    }

    fn next(&mut self, tree: Tree, source: Option<Source>) -> Result<PathBuf, Refused> {
        self.last = self.last.saturating_add(1);
        self.at(&format!("tree-{}", self.last), tree, source)
    }

    /// Namespaces that there are already get a path.
    fn namespaces(&mut self, known: Vec<LinuxNamespace>) -> Result<Vec<LinuxNamespace>, Refused> {
        let mut made = Vec::with_capacity(known.len());
        for mut namespace in known {
            let joined = match namespace.typ() {
                LinuxNamespaceType::Network => Some(("net", Tree::Network)),
                LinuxNamespaceType::Uts => Some(("uts", Tree::Uts)),
                LinuxNamespaceType::Ipc => Some(("ipc", Tree::Ipc)),
                LinuxNamespaceType::User => Some(("user", Tree::User)),
                LinuxNamespaceType::Pid => match self.facts.pid {
                    PidNamespace::Own | PidNamespace::Node => None,
                    joined @ (PidNamespace::Pod | PidNamespace::Target(_)) => {
                        Some(("pid", Tree::Pid(joined.clone())))
                    }
                },
                LinuxNamespaceType::Mount
                | LinuxNamespaceType::Cgroup
                | LinuxNamespaceType::Time => None,
            };
            if let Some((name, tree)) = joined {
                namespace.set_path(Some(self.at(&format!("ns-{name}"), tree, None)?));
            }
            made.push(namespace);
        }
        Ok(made)
    }
}

/// Mounts with paths that the program finds. Those of cgroups are one: the program knows the node's layout.
fn mounts(
    input: &SpecInput<'_>,
    built: &Built,
    places: &mut Places<'_>,
) -> Result<Vec<Mount>, Refused> {
    let mut made = Vec::new();
    let mode = if input.container.privileged { "rw" } else { "ro" };
    for mount in built.spec.mounts().iter().flatten() {
        let path = mount.destination().to_string_lossy().into_owned();
        let typ = mount.typ().as_deref().unwrap_or("bind");
        let cgroups = path == "/sys/fs/cgroup" || path.starts_with("/sys/fs/cgroup/");
        if cgroups && matches!(typ, "cgroup" | "cgroup2" | "tmpfs") {
            if path == "/sys/fs/cgroup" {
                made.push(entry(
                    &path,
                    "cgroup",
                    "cgroup",
                    &["nosuid", "noexec", "nodev", "relatime", mode],
                ));
            }
            continue;
        }
        let mut mount = mount.clone();
        match built.special.get(&path) {
            Some(Special::PodShm) => {
                let source = places.next(Tree::PodShm, None)?;
                let options = ["bind", "rprivate", "nosuid", "nodev", "noexec"].map(str::to_owned);
                mount
                    .set_typ(Some("bind".to_owned()))
                    .set_source(Some(source))
                    .set_options(Some(options.into()));
            }
            Some(Special::Source(Source::PodFile(name))) if input.setup.user.is_none() => {
                mount.set_source(Some(PathBuf::from(places.facts.files).join(name)));
            }
            Some(Special::Source(Source::HostTree { .. })) => forbid(&mut mount, places.facts),
            Some(Special::Source(source)) => {
                if let Source::ImageVolume { .. } = source {
                    add(&mut mount, ["ro", "nosuid", "nodev"].into_iter());
                }
                let source = places.next(Tree::Given, Some(source.clone()))?;
                mount.set_source(Some(source));
            }
            None if typ == "bind" && mount.uid_mappings().is_some() => {
                let path = source_of(&mount)?;
                let create = input.host.create_missing_host_paths;
                let source = Source::MappedHostTree { path, create };
                let source = places.next(Tree::Given, Some(source))?;
                mount.set_source(Some(source)).set_uid_mappings(None).set_gid_mappings(None);
            }
            None if typ == "bind" && input.host.create_missing_host_paths => {
                places.launch.folders.push(source_of(&mount)?);
                forbid(&mut mount, places.facts);
            }
            None if typ == "bind" => forbid(&mut mount, places.facts),
            None => {}
        }
        made.push(mount);
    }
    Ok(made)
}

/// What is forbidden where it comes from stays forbidden; so does what an image may not do.
fn forbid(mount: &mut Mount, facts: &Facts<'_>) {
    let source = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned());
    let words = source.and_then(|path| facts.forbidden.get(&path)).into_iter().flatten().copied();
    add(mount, words);
}

fn add(mount: &mut Mount, words: impl Iterator<Item = &'static str>) {
    let mut options = mount.options().clone().unwrap_or_default();
    for word in words {
        if word == "ro" {
            options.retain(|option| option != "rw");
        }
        if !options.iter().any(|option| option == word || (word == "ro" && option == "rro")) {
            options.push(word.to_owned());
        }
    }
    mount.set_options(Some(options));
}

fn source_of(mount: &Mount) -> Result<CString, Refused> {
    let source = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned());
    c_string("config.mounts.host_path", &source.unwrap_or_default())
}

/// A mount travels only as far as the root that it is below.
fn propagation(mounts: &[Mount]) -> Option<&'static str> {
    let has = |word: &str| {
        let options = mounts.iter().filter_map(|mount| mount.options().as_ref());
        options.flatten().any(|option| option == word)
    };
    ["rshared", "rslave"].into_iter().find(|word| has(word))
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Facts, Foreign, command, spec};
    use crate::container::config::{ContainerConfig, Mount, Propagation};
    use crate::handler::choice::Handler;
    use crate::handler::features::Features;
    use crate::handler::order::{Kind, Tree};
    use crate::host::Host;
    use crate::image::ImageConfig;
    use crate::labels::Labels;
    use crate::plan::{PidNamespace, Source};
    use crate::sandbox::config::{Metadata, NamespaceMode, Namespaces, SandboxConfig};
    use crate::spec::SpecInput;
    use crate::users::User;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn handler() -> Handler {
        Handler {
            name: "crun".to_owned(),
            path: "/usr/bin/crun".into(),
            root: "/run/w/handlers/crun".into(),
            options: Vec::new(),
            annotations: vec!["shown.example/a".to_owned()],
            kind: Kind::Crun,
            features: Features::default(),
        }
    }

    #[expect(clippy::unwrap_in_result, reason = "what must not fail here is not what is tested")]
    fn made(container: &ContainerConfig, bounds: Option<&Bounds>) -> Result<Foreign, String> {
        let metadata =
            Metadata { name: "web".into(), uid: "u".into(), namespace: "ns".into(), attempt: 0 };
        let sandbox = SandboxConfig { metadata, ..SandboxConfig::default() };
        let host = Host::example();
        let setup = crate::sandbox::plan::plan(&sandbox, &host).unwrap();
        let image = ImageConfig {
            cmd: vec!["sh".into()],
            volumes: vec!["/data".into()],
            ..ImageConfig::default()
        };
        let user = User { home: "/root".into(), groups: vec![0], ..User::default() };
        let input = SpecInput {
            sandbox: &sandbox,
            setup: &setup,
            container,
            image: &image,
            user: &user,
            host: &host,
            cgroup_path: "/wherry/c",
            devices: &[],
            labels: &Labels { apparmor: Some("web".to_owned()), ..Labels::default() },
        };
        let built = crate::spec::build(&input).unwrap();
        let facts = Facts {
            handler: &handler(),
            bundle: "/b",
            files: "/f",
            pid: &PidNamespace::Pod,
            seccomp: Some(&json!({"defaultAction": "SCMP_ACT_ALLOW"})),
            forbidden: &BTreeMap::from([("/host".to_owned(), vec!["ro", "nosuid"])]),
            bounds,
        };
        spec(&input, &built, &facts).map_err(|refused| refused.to_string())
    }

    fn text(foreign: &Foreign) -> Value {
        serde_json::from_str(&foreign.text).unwrap()
    }

    fn mount_at<'a>(spec: &'a Value, path: &str) -> Vec<&'a Value> {
        spec["mounts"].as_array().unwrap().iter().filter(|m| m["destination"] == path).collect()
    }

    #[test]
    fn what_is_ours_is_taken_out_and_what_it_cannot_know_has_a_place() {
        let mount = Mount {
            container_path: "/vol".into(),
            host_path: "/host".into(),
            propagation: Propagation::HostToContainer,
            ..Mount::default()
        };
        let annotations = [("shown.example/a", "1"), ("run.oci.handler", "krun")];
        let container = ContainerConfig {
            annotations: annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            mounts: vec![mount],
            namespaces: Namespaces { pid: NamespaceMode::Pod, ..Namespaces::default() },
            ..ContainerConfig::default()
        };
        let foreign = made(&container, None).unwrap();
        let spec = text(&foreign);
        assert_eq!(
            (&spec["ociVersion"], &spec["root"]["path"]),
            (&json!("1.0.2"), &json!("/b/rootfs"))
        );
        assert_eq!(spec["annotations"], json!({"shown.example/a": "1"}));
        assert_eq!(spec["process"]["apparmorProfile"], "web");
        assert!(spec.get("hostname").is_none() && spec["linux"].get("sysctl").is_none());
        assert!(spec["linux"]["resources"].get("memory").is_none());
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
        assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
        assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        let path = |kind: &str| {
            let found = namespaces.iter().find(|namespace| namespace["type"] == kind);
            found.unwrap().get("path").cloned()
        };
        assert_eq!((path("network"), path("mount")), (Some(json!("/b/ns-net")), None));
        assert_eq!(path("pid"), Some(json!("/b/ns-pid")));
        let tree = |place: &std::ffi::CStr| {
            foreign
                .launch
                .trees
                .iter()
                .find(|(path, _)| **path == *place)
                .map(|(_, tree)| tree.clone())
        };
        assert_eq!(tree(c"/b/ns-pid"), Some(Tree::Pid(PidNamespace::Pod)));
        assert_eq!(tree(c"/b/rootfs"), Some(Tree::Given));
        assert_eq!(foreign.launch.sources.first(), Some(&Source::Root));
        let volume = Source::AnonymousVolume("/data".to_owned());
        assert!(foreign.launch.sources.contains(&volume));
        let given = foreign.launch.trees.iter().filter(|(_, tree)| *tree == Tree::Given).count();
        assert_eq!(given, foreign.launch.sources.len());
        assert_eq!(foreign.launch.folders, [c"/host".to_owned()]);
        assert_eq!(mount_at(&spec, "/etc/hosts")[0]["source"], "/f/hosts");
        let volume = mount_at(&spec, "/vol")[0];
        assert_eq!(volume["source"], "/host");
        assert_eq!(volume["options"], json!(["rbind", "rslave", "ro", "nosuid"]));
        let shm = mount_at(&spec, "/dev/shm")[0]["source"].as_str().unwrap().to_owned();
        assert_eq!(tree(&std::ffi::CString::new(shm).unwrap()), Some(Tree::PodShm));
        assert_eq!(mount_at(&spec, "/sys/fs/cgroup").len(), 1);
        assert!(mount_at(&spec, "/sys/fs/cgroup/memory").is_empty());
    }

    #[test]
    fn limits_are_those_that_can_be_given() {
        let bounds = Bounds { hard: vec![(7, 4_096)], oom_score: 3 };
        let spec = text(&made(&ContainerConfig::default(), Some(&bounds)).unwrap());
        let limit = &spec["process"]["rlimits"][0];
        assert_eq!((&limit["soft"], &limit["hard"]), (&json!(1_024), &json!(4_096)));
        assert_eq!(spec["process"]["oomScoreAdj"], 3);
    }

    #[test]
    fn an_environment_that_is_no_text_is_refused() {
        let envs = vec![("RAW".to_owned(), vec![0xff])];
        let refused =
            made(&ContainerConfig { envs, ..ContainerConfig::default() }, None).unwrap_err();
        assert!(refused.contains("RAW") && refused.contains("crun"), "{refused}");
    }

    #[test]
    fn a_command_is_the_first_process_with_other_words() {
        let foreign = made(&ContainerConfig::default(), None).unwrap();
        let words = ["ls".to_owned(), "-l".to_owned()];
        let told = command(foreign.text.as_bytes(), &words, true, (80, 24)).unwrap();
        let told: Value = serde_json::from_slice(&told).unwrap();
        let first = &text(&foreign)["process"];
        assert_eq!(told["args"], json!(["ls", "-l"]));
        assert_eq!((&told["terminal"], &told["consoleSize"]["width"]), (&json!(true), &json!(80)));
        assert_eq!(
            (&told["user"], &told["capabilities"]),
            (&first["user"], &first["capabilities"])
        );
        let env = told["env"].as_array().unwrap();
        assert!(env.iter().any(|entry| entry == "TERM=xterm"), "{env:?}");
    }
}
