//! Reads a seccomp profile: the JSON of Docker (`archMap`, `includes`, `excludes`) and of the OCI runtime
//! spec (config-linux.md, Seccomp). Everything that could be misread is refused by the path of its field:
//! unknown fields, actions, operators, flags, architectures, capabilities. What is read is `profile.rs`.

use super::profile::{Action, Architectures, Condition, Profile, Rule, Scope, Test};
use crate::kind::Refused;
use crate::limits;
use crate::spec::security;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProfile {
    default_action: String,
    default_errno_ret: Option<u64>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<RawArchitecture>>,
    syscalls: Option<Vec<RawRule>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawArchitecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u64>,
    args: Option<Vec<RawArgument>>,
    includes: Option<RawScope>,
    excludes: Option<RawScope>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawArgument {
    index: u64,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawScope {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Architectures of libseccomp; those of other machines are allowed and mean nothing here.
const ARCHITECTURES: [&str; 23] = [
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
];

/// What `includes.arches` may hold: Go's names, and those that Docker's own profile uses.
const MACHINES: [&str; 25] = [
    "386",
    "amd64",
    "x86",
    "x32",
    "arm",
    "arm64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "ppc",
    "ppc64",
    "ppc64le",
    "s390",
    "s390x",
    "parisc",
    "parisc64",
    "riscv64",
    "loong64",
    "loongarch64",
    "m68k",
];

/// `MAX_ERRNO` of the kernel: a larger one would be changed to it.
const MAX_ERRNO: u64 = 4_095;
/// `EPERM`: what an errno action without a number means.
const EPERM: u16 = 1;

impl Profile {
    /// Reads a profile, at most `limits::SECCOMP_PROFILE_BYTES` long.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        if json.len() > limits::SECCOMP_PROFILE_BYTES {
            let found = format!("{} bytes", json.len());
            return Err(Refused::new("seccomp profile", found, "at most 1 MiB"));
        }
        let raw: RawProfile = serde_json::from_slice(json).map_err(|error| {
            Refused::new("seccomp profile", error.to_string(), "the JSON of a seccomp profile")
        })?;
        if let Some(path) = raw.listener_path.as_ref().or(raw.listener_metadata.as_ref()) {
            return Err(Refused::new(
                "seccomp.listenerPath",
                path,
                "no listener: this release does not hand system calls to another process",
            ));
        }
        let rules = raw.syscalls.unwrap_or_default();
        Ok(Self {
            default: action(
                ("seccomp.defaultAction", "seccomp.defaultErrnoRet"),
                &raw.default_action,
                raw.default_errno_ret,
            )?,
            architectures: architectures(raw.architectures, raw.arch_map)?,
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(index, rule)| rule.check(&format!("seccomp.syscalls[{index}]")))
                .collect::<Result<_, _>>()?,
            log: flags(&raw.flags.unwrap_or_default())?,
        })
    }
}

/// Whether LOG is among the flags. The process that installs the filter has one thread, so TSYNC is
/// always fulfilled; `SPEC_ALLOW` weakens a mitigation that Linux 5.16 and later leave to the program
/// anyway, so it is taken and the stricter state stays on older kernels.
fn flags(flags: &[String]) -> Result<bool, Refused> {
    for (index, flag) in flags.iter().enumerate() {
        let known = ["LOG", "TSYNC", "SPEC_ALLOW"]
            .iter()
            .any(|known| flag.strip_prefix("SECCOMP_FILTER_FLAG_") == Some(known));
        if !known {
            return Err(Refused::new(
                format!("seccomp.flags[{index}]"),
                flag,
                "SECCOMP_FILTER_FLAG_LOG, _SPEC_ALLOW or _TSYNC",
            ));
        }
    }
    Ok(flags.iter().any(|flag| flag == "SECCOMP_FILTER_FLAG_LOG"))
}

fn architectures(
    listed: Option<Vec<String>>,
    mapped: Option<Vec<RawArchitecture>>,
) -> Result<Architectures, Refused> {
    let known = |field: String, word: &str| {
        let name = word.strip_prefix("SCMP_ARCH_").unwrap_or_default();
        if ARCHITECTURES.contains(&name) {
            return Ok(());
        }
        Err(Refused::new(field, word, "an architecture of the OCI runtime spec: SCMP_ARCH_X86_64"))
    };
    let listed = listed.unwrap_or_default();
    for (index, word) in listed.iter().enumerate() {
        known(format!("seccomp.architectures[{index}]"), word)?;
    }
    let Some(map) = mapped.filter(|map| !map.is_empty()) else {
        return Ok(Architectures::Listed(listed));
    };
    if let Some(first) = listed.first() {
        let allowed = "either architectures or archMap, not both";
        return Err(Refused::new("seccomp.architectures", first, allowed));
    }
    for (index, entry) in map.iter().enumerate() {
        let field = format!("seccomp.archMap[{index}]");
        known(format!("{field}.architecture"), &entry.architecture)?;
        for (place, word) in entry.sub_architectures.iter().flatten().enumerate() {
            known(format!("{field}.subArchitectures[{place}]"), word)?;
        }
    }
    let pair =
        |entry: RawArchitecture| (entry.architecture, entry.sub_architectures.unwrap_or_default());
    Ok(Architectures::Mapped(map.into_iter().map(pair).collect()))
}

/// An action with its number; `fields` name the two for a refusal.
fn action(fields: (&str, &str), word: &str, errno: Option<u64>) -> Result<Action, Refused> {
    let number = match errno {
        None => EPERM,
        Some(number) => u16::try_from(number)
            .ok()
            .filter(|n| u64::from(*n) <= MAX_ERRNO)
            .ok_or_else(|| Refused::new(fields.1, number.to_string(), "an errno, 0 to 4095"))?,
    };
    let action = match word.strip_prefix("SCMP_ACT_").unwrap_or_default() {
        "KILL" | "KILL_THREAD" => Action::KillThread,
        "KILL_PROCESS" => Action::KillProcess,
        "TRAP" => Action::Trap,
        "ERRNO" => return Ok(Action::Errno(number)),
        "TRACE" => return Ok(Action::Trace(number)),
        "LOG" => Action::Log,
        "ALLOW" => Action::Allow,
        "NOTIFY" => {
            let allowed =
                "another action: this release does not hand system calls to another process";
            return Err(Refused::new(fields.0, word, allowed));
        }
        _ => {
            let allowed =
                "SCMP_ACT_ALLOW, _LOG, _TRACE, _ERRNO, _TRAP, _KILL, _KILL_THREAD or _KILL_PROCESS";
            return Err(Refused::new(fields.0, word, allowed));
        }
    };
    match errno {
        Some(number) => {
            let allowed = "no number: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have one";
            Err(Refused::new(fields.1, number.to_string(), allowed))
        }
        None => Ok(action),
    }
}

impl RawRule {
    fn check(self, field: &str) -> Result<Rule, Refused> {
        let names = match (self.name, self.names.unwrap_or_default()) {
            (None, names) => names,
            (Some(name), names) if names.is_empty() => vec![name],
            (Some(name), _) => {
                let allowed = "either name or names, not both";
                return Err(Refused::new(format!("{field}.name"), name, allowed));
            }
        };
        if names.is_empty() {
            let allowed = "at least one system call";
            return Err(Refused::new(format!("{field}.names"), "", allowed));
        }
        let fields = (format!("{field}.action"), format!("{field}.errnoRet"));
        let action = action((&fields.0, &fields.1), &self.action, self.errno_ret)?;
        let arguments = self.args.unwrap_or_default();
        let conditions = arguments
            .iter()
            .enumerate()
            .map(|(index, argument)| argument.check(&format!("{field}.args[{index}]")))
            .collect::<Result<Vec<_>, _>>()?;
        let (with_capabilities, on, from_kernel) =
            self.includes.unwrap_or_default().check(&format!("{field}.includes"))?;
        let (without_capabilities, not_on, before_kernel) =
            self.excludes.unwrap_or_default().check(&format!("{field}.excludes"))?;
        let scope = Scope {
            with_capabilities,
            without_capabilities,
            on,
            not_on,
            from_kernel,
            before_kernel,
        };
        Ok(Rule { names, action, any_of: alternatives(conditions), scope })
    }
}

/// All conditions together; but if two are about the same argument, one suffices: the rule of runc and
/// crun, by which such profiles were tried.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let mut seen = [false; 6];
    let twice = conditions.iter().any(|condition| {
        let place = seen.get_mut(usize::from(condition.argument));
        place.is_some_and(|seen| std::mem::replace(seen, true))
    });
    match conditions {
        none if none.is_empty() => Vec::new(),
        alone if twice => alone.into_iter().map(|condition| vec![condition]).collect(),
        together => vec![together],
    }
}

impl RawArgument {
    fn check(&self, field: &str) -> Result<Condition, Refused> {
        let argument = u8::try_from(self.index).ok().filter(|index| *index < 6);
        let argument = argument.ok_or_else(|| {
            Refused::new(format!("{field}.index"), self.index.to_string(), "0 to 5")
        })?;
        let value = self.value;
        let test = match self.op.strip_prefix("SCMP_CMP_").unwrap_or_default() {
            "NE" => Test::NotEqual(value),
            "LT" => Test::Less(value),
            "LE" => Test::LessOrEqual(value),
            "EQ" => Test::Equal(value),
            "GE" => Test::GreaterOrEqual(value),
            "GT" => Test::Greater(value),
            "MASKED_EQ" => Test::Masked { mask: value, value: self.value_two.unwrap_or_default() },
            _ => {
                let allowed = "SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT or _MASKED_EQ";
                return Err(Refused::new(format!("{field}.op"), &self.op, allowed));
            }
        };
        if let Test::Masked { mask, value } = test
            && value & !mask != 0
        {
            let allowed = "bits of the mask (value) only: else it is never true";
            return Err(Refused::new(format!("{field}.valueTwo"), value.to_string(), allowed));
        }
        Ok(Condition { argument, test })
    }
}

/// Capabilities, machines, kernel of one half of a [`Scope`].
type HalfScope = (u64, Vec<String>, Option<(u32, u32)>);

impl RawScope {
    fn check(self, field: &str) -> Result<HalfScope, Refused> {
        let mut capabilities = 0;
        for (index, name) in self.caps.iter().flatten().enumerate() {
            let bit = name.strip_prefix("CAP_").and_then(security::mask);
            capabilities |= bit.ok_or_else(|| {
                let allowed = "a capability of capabilities(7): CAP_SYS_ADMIN";
                Refused::new(format!("{field}.caps[{index}]"), name, allowed)
            })?;
        }
        let machines = self.arches.unwrap_or_default();
        if let Some((index, word)) =
            machines.iter().enumerate().find(|(_, word)| !MACHINES.contains(&word.as_str()))
        {
            let allowed = "a machine as Go names it: amd64";
            return Err(Refused::new(format!("{field}.arches[{index}]"), word, allowed));
        }
        let kernel = match self.min_kernel.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(kernel(&text).ok_or_else(|| {
                Refused::new(format!("{field}.minKernel"), &text, "a kernel version: 4.8")
            })?),
        };
        Ok((capabilities, machines, kernel))
    }
}

fn kernel(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::profile::{Action, Architectures, Condition, Profile, Test};

    fn parse(json: &str) -> Result<Profile, String> {
        Profile::parse(json.as_bytes()).map_err(|refused| refused.field)
    }

    fn rule(rule: &str) -> Result<Profile, String> {
        parse(&format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rule}]}}"#))
    }

    #[test]
    fn the_smallest_profile_is_read() {
        let profile = parse(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).unwrap();
        assert_eq!(profile.default, Action::Errno(1));
        assert_eq!(profile.architectures, Architectures::Listed(Vec::new()));
    }

    #[test]
    fn docker_s_old_and_new_spellings_are_read() {
        let old = rule(
            r#"{"name":"read","action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{},"excludes":{}}"#,
        );
        let new = rule(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#);
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn two_conditions_on_one_argument_are_alternatives() {
        let args = |a: u8, b: u8| {
            let json = format!(
                r#"{{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
                    {{"index":{a},"value":1,"op":"SCMP_CMP_EQ"}},
                    {{"index":{b},"value":2,"op":"SCMP_CMP_EQ"}}]}}"#
            );
            rule(&json).unwrap().rules.remove(0).any_of
        };
        let is = |argument, value| Condition { argument, test: Test::Equal(value) };
        assert_eq!(args(0, 1), [vec![is(0, 1), is(1, 2)]]);
        assert_eq!(args(0, 0), [vec![is(0, 1)], vec![is(0, 2)]]);
    }

    #[test]
    fn what_could_be_misread_is_refused_by_its_field() {
        let profiles = [
            (r"{}", "seccomp profile"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","sysCalls":[]}"#, "seccomp profile"),
            (r#"{"defaultAction":"ALLOW"}"#, "seccomp.defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "seccomp.defaultAction"),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#,
                "seccomp.defaultErrnoRet",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
                "seccomp.defaultErrnoRet",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#,
                "seccomp.listenerPath",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#,
                "seccomp.flags[0]",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}"#,
                "seccomp.architectures[0]",
            ),
        ];
        for (json, field) in profiles {
            assert_eq!(parse(json).unwrap_err(), field, "{json}");
        }
    }

    #[test]
    fn a_rule_that_could_be_misread_is_refused_by_its_field() {
        let rules = [
            (r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#, "seccomp.syscalls[0].names"),
            (r#"{"names":["a"],"name":"b","action":"SCMP_ACT_ALLOW"}"#, "seccomp.syscalls[0].name"),
            (r#"{"names":["a"],"action":"allow"}"#, "seccomp.syscalls[0].action"),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ERRNO","errnoRet":70000}"#,
                "seccomp.syscalls[0].errnoRet",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#,
                "seccomp.syscalls[0].args[0].index",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"=="}]}"#,
                "seccomp.syscalls[0].args[0].op",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}"#,
                "seccomp.syscalls[0].args[0].valueTwo",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_FOO"]}}"#,
                "seccomp.syscalls[0].includes.caps[0]",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["z80"]}}"#,
                "seccomp.syscalls[0].excludes.arches[0]",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}"#,
                "seccomp.syscalls[0].includes.minKernel",
            ),
        ];
        for (json, field) in rules {
            assert_eq!(rule(json).unwrap_err(), field, "{json}");
        }
    }
}
