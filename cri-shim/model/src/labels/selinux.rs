//! SELinux: the contexts of a container's processes and files (`cri-contract.md` §2.1, §2.5). A policy names them
//! in its `lxc_contexts`; a request changes parts; the level is the pod's own pair of categories, so that pods cannot
//! touch each other and the containers of one can.

use crate::host::Host;
use crate::kind::Refused;
use crate::sandbox::config::Selinux;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of all the node's power, where the policy has containers.
const PRIVILEGED: &str = "spc_t";

/// Categories that a level can name; policies are built with so many.
pub const CATEGORIES: u16 = 1_024;

/// A context, in its four parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    pub kind: String,
    /// Level, or a range of them.
    pub level: String,
}

/// What a policy says of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Of their processes.
    pub process: Context,
    /// Of their files.
    pub files: Context,
}

/// What the node has of SELinux.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Support {
    /// It is not on: what a request says of it is ignored.
    #[default]
    Off,
    /// It is on, but labels of containers are not known.
    Unusable(String),
    /// It is on.
    On(Policy),
}

/// Both contexts, as the kernel takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contexts {
    /// Of processes.
    pub process: String,
    /// Of files.
    pub files: String,
}

impl Context {
    /// Reads `user:role:type:level`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let mut next = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
        Some(Self { user: next()?, role: next()?, kind: next()?, level: next()? })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}:{}", self.user, self.role, self.kind, self.level)
    }
}

impl Policy {
    /// Reads a `lxc_contexts` (`selinux_lxc_contexts_path(3)`): `process = "user:role:type:level"`.
    pub fn parse(text: &str) -> Option<Self> {
        let of = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                let value = value.trim().trim_matches('"');
                if name.trim() == key { Context::parse(value) } else { None }
            })
        };
        Some(Self { process: of("process")?, files: of("file")? })
    }
}

/// The contexts of a request. `level` is its pod's, or a fresh one for a pod.
pub fn choose(
    asked: Option<&Selinux>,
    privileged: bool,
    level: &str,
    host: &Host,
) -> Result<Option<Contexts>, Refused> {
    let asked = asked.filter(|asked| **asked != Selinux::default());
    let policy = match (&host.selinux, asked) {
        (Support::Off, _) | (Support::Unusable(_), None) => return Ok(None),
        (Support::Unusable(why), Some(asked)) => {
            return Err(Refused::new(FIELD, format!("{asked:?}"), format!("nothing: {why}")));
        }
        (Support::On(policy), _) => policy,
    };
    let mut process = Context { level: level.to_owned(), ..policy.process.clone() };
    let mut files = Context { level: level.to_owned(), ..policy.files.clone() };
    if privileged {
        PRIVILEGED.clone_into(&mut process.kind);
        // Categories are what keeps pods apart; such a process is kept from nothing.
        policy.process.level.clone_into(&mut process.level);
    }
    if let Some(asked) = asked {
        check(asked)?;
        // A role or a type of processes is none of files.
        let parts = [
            (&mut process.user, &asked.user),
            (&mut files.user, &asked.user),
            (&mut process.role, &asked.role),
            (&mut process.kind, &asked.kind),
            (&mut process.level, &asked.level),
            (&mut files.level, &asked.level),
        ];
        for (part, asked) in parts.into_iter().filter(|(_, asked)| !asked.is_empty()) {
            asked.clone_into(part);
        }
    }
    Ok(Some(Contexts { process: process.to_string(), files: files.to_string() }))
}

const FIELD: &str = "config.linux.security_context.selinux_options";

/// The refusal of a context that the policy does not have.
pub fn unknown(context: &str) -> Refused {
    Refused::new(FIELD, context, "a context that this node's policy has")
}

fn check(asked: &Selinux) -> Result<(), Refused> {
    let word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    for (name, text) in [("user", &asked.user), ("role", &asked.role), ("type", &asked.kind)] {
        if !word(text) {
            return Err(Refused::new(
                format!("{FIELD}.{name}"),
                text,
                "letters, digits, _ . and -",
            ));
        }
    }
    if asked.level.is_empty() || is_range(&asked.level) {
        return Ok(());
    }
    let allowed = "a level such as s0:c1,c2 or a range of two";
    Err(Refused::new(format!("{FIELD}.level"), &asked.level, allowed))
}

/// `s0`, `s0:c1,c5.c7`, `s0-s3:c0.c1023`.
fn is_range(text: &str) -> bool {
    let number = |text: &str, letter: char, below: u32| {
        let digits =
            text.strip_prefix(letter).filter(|rest| rest.chars().all(|c| c.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u32>().ok()).filter(|number| *number < below)
    };
    let category = |text: &str| number(text, 'c', CATEGORIES.into());
    let categories = |text: &str| match text.split_once('.') {
        None => category(text).is_some(),
        Some((first, last)) => {
            category(first).zip(category(last)).is_some_and(|(first, last)| first < last)
        }
    };
    let level = |text: &str| {
        let (sensitivity, rest) = text.split_once(':').map_or((text, None), |(s, c)| (s, Some(c)));
        number(sensitivity, 's', 1_024).is_some()
            && rest.is_none_or(|rest| rest.split(',').all(categories))
    };
    text.split_once('-').map_or_else(|| level(text), |(low, high)| level(low) && level(high))
}

/// A level with a pair of categories from any two numbers: `s0:c1,c2`, the lower first.
pub fn fresh(random: (u16, u16)) -> String {
    let (one, other) = (random.0 % CATEGORIES, random.1 % CATEGORIES);
    let other = if one == other { (other + 1) % CATEGORIES } else { other };
    format!("s0:c{},c{}", one.min(other), one.max(other))
}

/// The level of a context of files, which is the pod's also where its processes have none; one without categories
/// where there is no context.
pub fn level_of(context: Option<&str>) -> String {
    context.and_then(Context::parse).map_or_else(|| "s0".to_owned(), |context| context.level)
}

/// Whether everything below a path of the node may be given to a container: not what the node itself lives on.
pub fn may_relabel(path: &str) -> bool {
    const NODE: [&str; 20] = [
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media",
        "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr",
    ];
    let path = crate::spec::mounts::normal(path);
    let inside_kernel = ["/proc/", "/sys/", "/dev/"].iter().any(|kernel| path.starts_with(kernel));
    let climbs = path.split('/').any(|part| part == "..");
    !climbs && !inside_kernel && path != "/var" && !NODE.contains(&path.as_str())
}

#[cfg(test)]
mod tests {
    use super::{
        Context, Contexts, Policy, Support, choose, fresh, is_range, level_of, may_relabel,
    };
    use crate::host::Host;
    use crate::sandbox::config::Selinux;

    const FILE: &str = "# comment\nprocess = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\n\
        file = \"system_u:object_r:container_file_t:s0\"\nro_file=\"system_u:object_r:container_ro_file_t:s0\"\n";

    fn host() -> Host {
        Host { selinux: Support::On(Policy::parse(FILE).unwrap()), ..Host::example() }
    }

    fn asked(user: &str, role: &str, kind: &str, level: &str) -> Selinux {
        let own = str::to_owned;
        Selinux { user: own(user), role: own(role), kind: own(kind), level: own(level) }
    }

    fn chosen(asked: &Selinux, privileged: bool) -> Result<(String, String), String> {
        let found = choose(Some(asked), privileged, "s0:c1,c2", &host());
        let found = found.map_err(|refused| refused.field)?;
        Ok(found.map(|Contexts { process, files }| (process, files)).unwrap_or_default())
    }

    #[test]
    fn a_container_without_options_has_its_pods_level() {
        let (process, files) = chosen(&Selinux::default(), false).unwrap();
        assert_eq!(process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(files, "system_u:object_r:container_file_t:s0:c1,c2");
        let (process, files) = chosen(&Selinux::default(), true).unwrap();
        assert_eq!(process, "system_u:system_r:spc_t:s0");
        assert_eq!(files, "system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(level_of(Some(&files)), "s0:c1,c2");
        assert_eq!(level_of(None), "s0");
    }

    #[test]
    fn each_part_goes_where_it_has_a_meaning() {
        let (process, files) = chosen(&asked("", "", "", "s0:c4,c5"), false).unwrap();
        assert_eq!(process, "system_u:system_r:container_t:s0:c4,c5");
        assert_eq!(files, "system_u:object_r:container_file_t:s0:c4,c5");
        let (process, files) = chosen(&asked("u", "r", "t", "s0"), false).unwrap();
        assert_eq!(
            (process.as_str(), files.as_str()),
            ("u:r:t:s0", "u:object_r:container_file_t:s0")
        );
    }

    #[test]
    fn a_bad_part_is_refused_by_its_name() {
        let level = Err("config.linux.security_context.selinux_options.level".to_owned());
        for bad in [
            "wrong",
            "s",
            "s0:",
            "s0:c",
            "s0:c1024",
            "s0:c3.c1",
            "s0:c1,,c2",
            "s0-",
            "s0 ",
            "s0:c1,c2\0",
        ] {
            assert_eq!(chosen(&asked("", "", "", bad), false), level, "{bad:?}");
        }
        for good in ["s0", "s15", "s0:c1", "s0:c1,c5.c7", "s0-s0:c0.c1023", "s0:c1-s3:c1,c2"] {
            assert!(is_range(good), "{good}");
        }
        assert!(chosen(&asked("a:b", "", "", ""), false).unwrap_err().ends_with("user"));
        assert!(chosen(&asked("", "", "a b", ""), false).unwrap_err().ends_with("type"));
    }

    #[test]
    fn off_is_ignored_and_a_policy_without_containers_is_refused() {
        let options = asked("", "", "", "nonsense");
        assert_eq!(choose(Some(&options), false, "s0", &Host::example()), Ok(None));
        let host = Host { selinux: Support::Unusable("no lxc_contexts".into()), ..Host::example() };
        assert_eq!(choose(None, false, "s0", &host), Ok(None));
        assert_eq!(choose(Some(&Selinux::default()), false, "s0", &host), Ok(None));
        let refused = choose(Some(&options), false, "s0", &host).unwrap_err();
        assert!(refused.allowed.contains("lxc_contexts"), "{refused}");
        assert_eq!(Policy::parse("process = \"a:b:c:s0\""), None);
        assert_eq!(Context::parse("a:b:c"), None);
    }

    #[test]
    fn a_fresh_level_has_two_categories_in_order() {
        assert_eq!(fresh((5, 3)), "s0:c3,c5");
        assert_eq!(fresh((1_023, 1_023)), "s0:c0,c1023");
        assert_eq!(fresh((1_024, 2_050)), "s0:c0,c2");
        assert!(is_range(&fresh((u16::MAX, 9))));
    }

    #[test]
    fn what_the_node_lives_on_is_not_relabelled() {
        for path in
            ["/", "/usr", "/usr/", "//etc/.", "/home", "/var", "/proc/1", "/dev/x", "/srv/../usr"]
        {
            assert!(!may_relabel(path), "{path}");
        }
        for path in ["/var/lib/kubelet/pods/x/volumes", "/srv/data", "/home/me/x", "/tmp/x"] {
            assert!(may_relabel(path), "{path}");
        }
    }
}
