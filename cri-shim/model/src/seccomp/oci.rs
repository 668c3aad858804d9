//! A profile in the words of the OCI spec, for handlers' programs: they compile it themselves. Which rules
//! count on this machine and for this container is decided here, as for our own filters.

use super::compile::SeccompFacts;
use super::profile::{Action, Architectures, Condition, Profile, Rule, Test};
use serde_json::{Value, json};

/// `linux.seccomp` of a spec.
pub fn spec(profile: &Profile, facts: &SeccompFacts) -> Value {
    let rules = profile.rules.iter().filter(|rule| rule.scope.holds(facts));
    // Several sets of conditions are several entries: in one, all conditions must hold.
    let calls: Vec<Value> = rules.flat_map(entries).collect();
    let mut seccomp = json!({ "architectures": architectures(profile, facts), "syscalls": calls });
    action(&mut seccomp, ("defaultAction", "defaultErrnoRet"), profile.default);
    if profile.log {
        set(&mut seccomp, "flags", json!(["SECCOMP_FILTER_FLAG_LOG"]));
    }
    seccomp
}

fn entries(rule: &Rule) -> Vec<Value> {
    let entry = |conditions: &[Condition]| {
        let mut found = json!({ "names": rule.names });
        action(&mut found, ("action", "errnoRet"), rule.action);
        if !conditions.is_empty() {
            set(&mut found, "args", conditions.iter().map(condition).collect());
        }
        found
    };
    if rule.any_of.is_empty() {
        return vec![entry(&[])];
    }
    rule.any_of.iter().map(|conditions| entry(conditions)).collect()
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

fn action(object: &mut Value, (key, number): (&str, &str), action: Action) {
    let (word, value) = match action {
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Action::Trace(message) => ("SCMP_ACT_TRACE", Some(message)),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Allow => ("SCMP_ACT_ALLOW", None),
    };
    set(object, key, word.into());
    if let Some(value) = value {
        set(object, number, value.into());
    }
}

fn condition(condition: &Condition) -> Value {
    let (op, value, two) = match condition.test {
        Test::NotEqual(value) => ("SCMP_CMP_NE", value, 0),
        Test::Less(value) => ("SCMP_CMP_LT", value, 0),
        Test::LessOrEqual(value) => ("SCMP_CMP_LE", value, 0),
        Test::Equal(value) => ("SCMP_CMP_EQ", value, 0),
        Test::GreaterOrEqual(value) => ("SCMP_CMP_GE", value, 0),
        Test::Greater(value) => ("SCMP_CMP_GT", value, 0),
        Test::Masked { mask, value } => ("SCMP_CMP_MASKED_EQ", mask, value),
    };
    json!({ "index": condition.argument, "value": value, "valueTwo": two, "op": op })
}

fn architectures(profile: &Profile, facts: &SeccompFacts) -> Vec<String> {
    let native = facts.machine.native().word();
    let others: Vec<String> = match &profile.architectures {
        Architectures::Listed(words) => words.clone(),
        Architectures::Mapped(map) => {
            let found = map.iter().find(|(word, _)| word == native);
            found.map(|(_, words)| words.clone()).unwrap_or_default()
        }
    };
    let others = others.into_iter().filter(|word| word != native);
    std::iter::once(native.to_owned()).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::spec;
    use crate::seccomp::compile::SeccompFacts;
    use crate::seccomp::default;
    use crate::seccomp::names::Machine;
    use crate::seccomp::profile::Profile;

    const FACTS: SeccompFacts =
        SeccompFacts { machine: Machine::X86_64, kernel: (6, 1), capabilities: 0 };

    /// What is written is read again by our own reader, so the words are those of the specification.
    #[test]
    fn the_built_in_profile_is_said_in_the_words_of_the_specification() {
        let said = spec(&default::profile(), &FACTS);
        assert_eq!(said["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(said["architectures"][0], "SCMP_ARCH_X86_64");
        let read = Profile::parse(said.to_string().as_bytes()).unwrap();
        let rules: usize = default::profile()
            .rules
            .iter()
            .filter(|rule| rule.scope.holds(&FACTS))
            .map(|rule| rule.any_of.len().max(1))
            .sum();
        assert_eq!(read.rules.len(), rules);
        assert_eq!(read.default, default::profile().default);
    }

    #[test]
    fn what_needs_a_capability_is_left_out_without_it() {
        let mounts = |facts: &SeccompFacts| {
            let said = spec(&default::profile(), facts).to_string();
            said.contains("\"move_mount\"")
        };
        assert!(!mounts(&FACTS));
        assert!(mounts(&SeccompFacts { capabilities: 1 << 21, ..FACTS }));
    }
}
