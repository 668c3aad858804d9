//! From a profile to a filter: which rules count on this machine, kernel and container, and what each
//! number of each calling convention gets. What the language leaves open is decided here:
//!
//! - If several rules match a call, the strictest action counts, whatever their order, as the kernel
//!   ranks several filters (seccomp(2)).
//! - The machine's own calling convention is always spoken of; one that the profile does not list ends
//!   the process, as with libseccomp: its numbers mean other calls.
//! - A number above every number that the profile names is a call that its author could not know. If the
//!   default action is strict, it fails with ENOSYS, so that programs fall back to what they know, as
//!   with runc. (EPERM would break glibc on the next kernel.)
//! - A name that another architecture has is skipped. A name that no table has is skipped and told if its
//!   rule only permits more than the default action; in a stricter rule it is refused, because a skipped
//!   prohibition is an open door.
//! - `socketcall` and `ipc` of 32-bit x86 are calls like others: to name `socket` says nothing of them.

use super::names::{self, Abi, Machine, X32_BIT};
use super::profile::{Action, Architectures, Condition, Profile, Rule, Scope, Test};
use super::tree::{self, Check, Clause, Instruction, Outcome, Range};
use crate::kind::Refused;
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};

/// What a filter depends on besides the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeccompFacts {
    /// The machine.
    pub machine: Machine,
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
    /// The container's bounding set, a bit for each capability by its number.
    pub capabilities: u64,
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub instructions: Vec<Instruction>,
    /// To be installed with `SECCOMP_FILTER_FLAG_LOG`.
    pub log: bool,
    /// Names that no table has, in rules that permit: they were skipped, which somebody should be told.
    pub skipped: BTreeSet<String>,
}

impl Filter {
    /// The program as an array of `struct sock_filter`, as `shim-sys` installs it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = |i: &Instruction| {
            let ([code_0, code_1], [k_0, k_1, k_2, k_3]) =
                (i.code.to_ne_bytes(), i.k.to_ne_bytes());
            [code_0, code_1, i.jt, i.jf, k_0, k_1, k_2, k_3]
        };
        self.instructions.iter().flat_map(bytes).collect()
    }
}

/// `ENOSYS`
const ENOSYS: u16 = 38;
/// Numbers from here on are not new calls but another convention or negative.
const PAST_CALLS: u32 = X32_BIT;
/// Past every x32 number.
const PAST_X32: u32 = 0x8000_0000;

/// Compiles a profile for one kind of container on this node.
pub fn compile(profile: &Profile, facts: &SeccompFacts) -> Result<Filter, Refused> {
    let rules: Vec<(usize, &Rule)> =
        profile.rules.iter().enumerate().filter(|(_, rule)| rule.scope.holds(facts)).collect();
    let skipped = check_names(profile, &rules)?;
    let spoken = conventions(&profile.architectures, facts.machine);
    let table = |abi: Abi| Table::new(abi, profile.default, rules.iter().map(|(_, rule)| *rule));
    let mut architectures = Vec::new();
    for abi in spoken.iter().filter(|abi| **abi != Abi::X32) {
        let mut ranges = Ranges(Vec::new());
        ranges.calls(0, &table(*abi));
        let default = fixed(profile.default);
        match abi {
            Abi::X86_64 if spoken.contains(&Abi::X32) => {
                ranges.calls(X32_BIT, &table(Abi::X32));
                ranges.add(PAST_X32, default);
            }
            // -1 is what a tracer makes of a call that it wants skipped.
            Abi::X86_64 => {
                ranges.add(PAST_CALLS, fixed(Action::KillProcess));
                ranges.add(u32::MAX, default);
            }
            Abi::X32 | Abi::X86 | Abi::Aarch64 | Abi::Arm => ranges.add(PAST_CALLS, default),
        }
        architectures.push((abi.audit(), ranges.0));
    }
    let instructions = tree::assemble(&architectures, Action::KillProcess.value());
    if instructions.len() > limits::SECCOMP_INSTRUCTIONS {
        let found = format!("{} instructions", instructions.len());
        let allowed = "a profile of at most 4096 instructions (BPF_MAXINSNS)";
        return Err(Refused::new("seccomp.syscalls", found, allowed));
    }
    Ok(Filter { instructions, log: profile.log, skipped })
}

impl Scope {
    pub(super) fn holds(&self, facts: &SeccompFacts) -> bool {
        let word = facts.machine.word();
        let is = |words: &[String]| words.iter().any(|known| known == word);
        self.with_capabilities & !facts.capabilities == 0
            && self.without_capabilities & facts.capabilities == 0
            && (self.on.is_empty() || is(&self.on))
            && !is(&self.not_on)
            && self.from_kernel.is_none_or(|version| facts.kernel >= version)
            && self.before_kernel.is_none_or(|version| facts.kernel < version)
    }
}

/// The unknown names that are skipped; a refusal for one that must not be.
fn check_names(profile: &Profile, rules: &[(usize, &Rule)]) -> Result<BTreeSet<String>, Refused> {
    let mut skipped = BTreeSet::new();
    for (index, rule) in rules {
        for (place, name) in rule.names.iter().enumerate().filter(|(_, name)| !names::exists(name))
        {
            if rule.action.rank() < profile.default.rank() {
                let field = format!("seccomp.syscalls[{index}].names[{place}]");
                let allowed = "a system call of Linux: an unknown one cannot be forbidden";
                return Err(Refused::new(field, name, allowed));
            }
            skipped.insert(name.clone());
        }
    }
    Ok(skipped)
}

/// The calling conventions that a profile speaks of, the machine's own first.
fn conventions(architectures: &Architectures, machine: Machine) -> Vec<Abi> {
    let native = machine.native();
    let words: &[String] = match architectures {
        Architectures::Listed(words) => words,
        Architectures::Mapped(map) => map
            .iter()
            .find(|(word, _)| word == native.word())
            .map_or(&[], |(_, words)| words.as_slice()),
    };
    let spoken = |abi: &Abi| *abi == native || words.iter().any(|word| word == abi.word());
    machine.conventions().iter().copied().filter(spoken).collect()
}

fn fixed(action: Action) -> Outcome {
    Outcome { clauses: Vec::new(), otherwise: action.value() }
}

/// What each number that some rule names gets, and what all others get.
struct Table {
    named: BTreeMap<u32, Outcome>,
    default: Outcome,
    /// For numbers above all that are named.
    new: Outcome,
}

impl Table {
    fn new<'a>(abi: Abi, default: Action, rules: impl Iterator<Item = &'a Rule>) -> Self {
        let mut matching: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
        for rule in rules {
            for number in rule.names.iter().filter_map(|name| abi.number(name)) {
                matching.entry(number).or_default().push(rule);
            }
        }
        let strict = default.rank() <= Action::Errno(0).rank();
        let new = if strict && !matching.is_empty() { Action::Errno(ENOSYS) } else { default };
        let named =
            matching.into_iter().map(|(number, rules)| (number, outcome(abi, default, rules)));
        Self { named: named.collect(), default: fixed(default), new: fixed(new) }
    }
}

/// What a call gets that these rules name.
fn outcome(abi: Abi, default: Action, mut rules: Vec<&Rule>) -> Outcome {
    rules.sort_by_key(|rule| rule.action.rank());
    let mut outcome = fixed(default);
    for rule in rules {
        let value = rule.action.value();
        if rule.any_of.is_empty() {
            outcome.otherwise = value;
            break;
        }
        let clause = |all: &Vec<Condition>| Clause {
            checks: all.iter().map(|condition| check(abi, *condition)).collect(),
            value,
        };
        outcome.clauses.extend(rule.any_of.iter().map(clause));
    }
    while outcome.clauses.last().is_some_and(|last| last.value == outcome.otherwise) {
        outcome.clauses.pop();
    }
    outcome
}

fn check(abi: Abi, Condition { argument, test }: Condition) -> Check {
    let wide = !abi.is_narrow();
    let cut = |value: u64| if wide { value } else { u64::from(tree::low(value)) };
    let test = match test {
        Test::NotEqual(value) => Test::NotEqual(cut(value)),
        Test::Less(value) => Test::Less(cut(value)),
        Test::LessOrEqual(value) => Test::LessOrEqual(cut(value)),
        Test::Equal(value) => Test::Equal(cut(value)),
        Test::GreaterOrEqual(value) => Test::GreaterOrEqual(cut(value)),
        Test::Greater(value) => Test::Greater(cut(value)),
        Test::Masked { mask, value } => Test::Masked { mask: cut(mask), value: cut(value) },
    };
    Check { argument, test, wide }
}

/// Ranges of numbers in ascending order; neighbours differ.
struct Ranges(Vec<Range>);

impl Ranges {
    /// From here on, until something else is added.
    fn add(&mut self, start: u32, outcome: Outcome) {
        if self.0.last().is_some_and(|(last, _)| *last == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != outcome) {
            self.0.push((start, outcome));
        }
    }

    /// The calls of one convention whose numbers begin at `first`.
    fn calls(&mut self, first: u32, table: &Table) {
        self.add(first, table.default.clone());
        let highest = table.named.keys().next_back().copied();
        for (number, outcome) in &table.named {
            self.add(*number, outcome.clone());
            let rest = if Some(*number) == highest { &table.new } else { &table.default };
            self.add(number.saturating_add(1), rest.clone());
        }
    }
}
