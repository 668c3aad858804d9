//! Two ways to the same answer, for tests: a filter run by an interpreter of classic BPF, and a profile
//! read call by call without any compiling. Random profiles and calls must not tell them apart.

use super::compile::{Filter, SeccompFacts, compile};
use super::names::{Abi, Machine};
use super::profile::{Action, Architectures, Condition, Profile, Rule, Scope, Test};
use super::tree::{AND, AT_LEAST, EQUAL, GREATER, JUMP, LOAD, RETURN};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

/// `struct seccomp_data`, the part that filters look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) audit: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    pub(super) fn of(abi: Abi, name: &str, arguments: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Self { audit: abi.audit(), number: abi.number(name).unwrap(), arguments: all }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            _ => {
                let argument = self.arguments[usize::try_from((offset - 16) / 8).unwrap()];
                let half = if offset.is_multiple_of(8) { argument } else { argument >> 32 };
                u32::try_from(half & 0xffff_ffff).unwrap()
            }
        }
    }
}

/// Runs a filter: what it returns, and after how many instructions.
pub(super) fn run(filter: &Filter, call: &Call) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0, 0);
    loop {
        let i = filter.instructions[at];
        at += 1;
        steps += 1;
        let holds = match i.code {
            LOAD => {
                accumulator = call.word(i.k);
                continue;
            }
            AND => {
                accumulator &= i.k;
                continue;
            }
            JUMP => {
                at += usize::try_from(i.k).unwrap();
                continue;
            }
            RETURN => return (i.k, steps),
            EQUAL => accumulator == i.k,
            GREATER => accumulator > i.k,
            AT_LEAST => accumulator >= i.k,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { i.jt } else { i.jf });
    }
}

fn holds(condition: &Condition, narrow: bool, arguments: [u64; 6]) -> bool {
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let argument = cut(arguments[usize::from(condition.argument)]);
    match condition.test {
        Test::NotEqual(value) => argument != cut(value),
        Test::Less(value) => argument < cut(value),
        Test::LessOrEqual(value) => argument <= cut(value),
        Test::Equal(value) => argument == cut(value),
        Test::GreaterOrEqual(value) => argument >= cut(value),
        Test::Greater(value) => argument > cut(value),
        Test::Masked { mask, value } => argument & cut(mask) == cut(value),
    }
}

/// What a profile says of a call on a machine whose every convention it lists; rules without scope.
pub(super) fn naive(profile: &Profile, machine: Machine, call: &Call) -> u32 {
    let x32 = machine == Machine::X86_64 && call.number & 0x4000_0000 != 0;
    let abi = machine.conventions().iter().find(|abi| {
        abi.audit() == call.audit && (call.audit != Abi::X32.audit() || (**abi == Abi::X32) == x32)
    });
    let Some(abi) = abi else { return Action::KillProcess.value() };
    let mut answers: Vec<Action> = Vec::new();
    let mut highest = None;
    for rule in &profile.rules {
        let numbers: Vec<u32> = rule.names.iter().filter_map(|name| abi.number(name)).collect();
        highest = highest.max(numbers.iter().max().copied());
        let meets = |all: &Vec<Condition>| {
            all.iter().all(|condition| holds(condition, abi.is_narrow(), call.arguments))
        };
        if numbers.contains(&call.number)
            && (rule.any_of.is_empty() || rule.any_of.iter().any(meets))
        {
            answers.push(rule.action);
        }
    }
    answers.sort_by_key(|action| action.rank());
    let limit = if *abi == Abi::X32 { 0x8000_0000 } else { 0x4000_0000 };
    let unknown = highest.is_some_and(|last| call.number > last) && call.number < limit;
    match (answers.first(), profile.default) {
        (Some(action), _) => action.value(),
        (None, Action::Allow | Action::Log | Action::Trace(_)) => profile.default.value(),
        (None, _) if unknown => Action::Errno(38).value(),
        (None, default) => default.value(),
    }
}

const NAMES: [&str; 16] = [
    "read",
    "write",
    "open",
    "close",
    "socket",
    "socketcall",
    "clone",
    "execve",
    "ioctl",
    "openat",
    "clone3",
    "futex",
    "execveat",
    "preadv2",
    "set_tls",
    "setxattrat",
];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        (0_u16..3).prop_map(Action::Trace),
        (0_u16..40).prop_map(Action::Errno),
        Just(Action::Trap),
        Just(Action::KillThread),
        Just(Action::KillProcess),
    ]
}

/// Numbers that are near each other in one half or in both.
fn value() -> impl Strategy<Value = u64> {
    (0_u64..3, prop_oneof![Just(0_u64), Just(1), Just(u64::from(u32::MAX))])
        .prop_map(|(low, high)| high << 32 | low)
}

fn condition() -> impl Strategy<Value = Condition> {
    let test = prop_oneof![
        value().prop_map(Test::NotEqual),
        value().prop_map(Test::Less),
        value().prop_map(Test::LessOrEqual),
        value().prop_map(Test::Equal),
        value().prop_map(Test::GreaterOrEqual),
        value().prop_map(Test::Greater),
        (value(), value()).prop_map(|(mask, value)| Test::Masked { mask, value: value & mask }),
    ];
    (0_u8..2, test).prop_map(|(argument, test)| Condition { argument, test })
}

fn rule() -> impl Strategy<Value = Rule> {
    let names = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..6);
    let sets = prop::collection::vec(prop::collection::vec(condition(), 1..3), 0..3);
    (names, action(), sets).prop_map(|(names, action, any_of)| Rule {
        names: names.into_iter().map(str::to_owned).collect(),
        action,
        any_of,
        scope: Scope::default(),
    })
}

pub(super) fn everything() -> Architectures {
    let words = ["X86_64", "X32", "X86", "AARCH64", "ARM"];
    Architectures::Listed(words.map(|word| format!("SCMP_ARCH_{word}")).into())
}

fn profile() -> impl Strategy<Value = Profile> {
    (action(), prop::collection::vec(rule(), 0..12)).prop_map(|(default, rules)| Profile {
        default,
        rules,
        architectures: everything(),
        log: false,
    })
}

fn call() -> impl Strategy<Value = Call> {
    let abi = prop::sample::select(&[Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm][..]);
    let name = prop::sample::select(&NAMES[..]);
    let named = (abi, name, -1_i32..2).prop_map(|(abi, name, beside)| {
        (abi.audit(), abi.number(name).unwrap_or_default().wrapping_add_signed(beside))
    });
    let target = prop_oneof![9 => named, 1 => (any::<u32>(), any::<u32>())];
    (target, value(), value()).prop_map(|((audit, number), a, b)| Call {
        audit,
        number,
        arguments: [a, b, 0, 0, 0, 0],
    })
}

proptest! {
    #[test]
    fn a_filter_does_what_its_profile_says(
        profile in profile(),
        calls in prop::collection::vec(call(), 1..40),
        machine in prop_oneof![Just(Machine::X86_64), Just(Machine::Aarch64)],
    ) {
        let facts = SeccompFacts { machine, kernel: (6, 1), capabilities: 0 };
        let filter = compile(&profile, &facts).unwrap();
        for call in calls {
            assert_eq!(run(&filter, &call).0, naive(&profile, machine, &call), "{call:x?}");
        }
    }
}

#[test]
fn a_filter_longer_than_a_jump_does_what_its_profile_says() {
    let rules = (0..600_u64).map(|n| Rule {
        names: vec![NAMES[usize::try_from(n % 5).unwrap()].to_owned()],
        action: Action::Errno(u16::try_from(n % 90).unwrap()),
        any_of: vec![vec![Condition { argument: 0, test: Test::Equal(n) }]],
        scope: Scope::default(),
    });
    let profile = Profile {
        default: Action::Allow,
        rules: rules.collect(),
        architectures: Architectures::Listed(Vec::new()),
        log: false,
    };
    let machine = Machine::X86_64;
    let facts = SeccompFacts { machine, kernel: (6, 1), capabilities: 0 };
    let filter = compile(&profile, &facts).unwrap();
    assert!(filter.instructions.len() > 2_000);
    for name in &NAMES[..5] {
        for value in 0..610 {
            let call = Call::of(Abi::X86_64, name, &[value]);
            assert_eq!(run(&filter, &call).0, naive(&profile, machine, &call), "{call:?}");
        }
    }
}
