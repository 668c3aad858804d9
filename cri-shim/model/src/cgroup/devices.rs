//! Which devices a container may use. On v1 it is text for `devices.allow`; on v2 a small program for
//! `BPF_CGROUP_DEVICE`, because v2 has no file for it: assembled here, attached by `shim-sys` (`bpf.rs`).
//! Which nodes there are is `spec/devices.rs`.

use crate::spec::devices::HostDevice;

/// Everything, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRules {
    /// A privileged container.
    All,
    /// Nothing but these.
    Only(Vec<Rule>),
}

/// One rule; `None` = any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Block, else character.
    pub block: bool,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

/// Character devices that every container may use (`cri-contract.md` §2.7).
const DEFAULT: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

impl DeviceRules {
    /// The rules of a container with these further nodes.
    pub fn of(privileged: bool, asked: &[HostDevice]) -> Self {
        if privileged {
            return Self::All;
        }
        let rule = |block, major, minor, access: &str| Rule {
            block,
            major,
            minor,
            access: access.to_owned(),
        };
        let mut rules = vec![rule(false, None, None, "m"), rule(true, None, None, "m")];
        rules.extend(DEFAULT.iter().map(|(major, minor)| rule(false, Some(*major), *minor, "rwm")));
        rules.extend(
            asked
                .iter()
                .map(|node| rule(node.block, Some(node.major), Some(node.minor), &node.access)),
        );
        Self::Only(rules)
    }

    /// What is written on v1 to a new leaf: file and text, in order. It begins with all that its parent
    /// may, so everything needs no write (which the kernel refuses where the parent may less).
    pub fn v1_writes(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::All => Vec::new(),
            Self::Only(rules) => {
                let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
                let line = |r: &Rule| {
                    let kind = if r.block { 'b' } else { 'c' };
                    format!("{kind} {}:{} {}", number(r.major), number(r.minor), r.access)
                };
                let mut writes = vec![("devices.deny", "a".to_owned())];
                writes.extend(rules.iter().map(|rule| ("devices.allow", line(rule))));
                writes
            }
        }
    }

    /// The v2 device program as an array of `struct bpf_insn` (linux/bpf.h; 8 bytes each, this
    /// machine's byte order); `None` = everything is allowed, which needs no program.
    ///
    /// The kernel runs it for every mknod(2) and every open(2) of a device, with a
    /// `struct bpf_cgroup_dev_ctx`: it allows if one rule covers the device and *all* that is asked.
    pub fn v2_program(&self) -> Option<Vec<u8>> {
        let Self::Only(rules) = self else { return None };
        let mut program = asm::PROLOGUE.to_vec();
        for (device, access) in merged(rules) {
            program.extend(asm::rule(device, access));
        }
        program.extend(asm::answer(0));
        Some(program.iter().flat_map(|instruction| instruction.bytes()).collect())
    }
}

/// What a rule is about: block device, major, minor.
type Device = (bool, Option<u32>, Option<u32>);

/// `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE` (linux/bpf.h).
const ACCESS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];

/// One entry per device, since an open for reading and writing must find both in one rule, as v1
/// merges what is written about one device. Exact numbers come first: they are what is opened.
fn merged(rules: &[Rule]) -> Vec<(Device, u8)> {
    let mut found: Vec<(Device, u8)> = Vec::new();
    for rule in rules {
        let device = (rule.block, rule.major, rule.minor);
        let access = ACCESS
            .iter()
            .filter(|(letter, _)| rule.access.contains(*letter))
            .fold(0, |bits, (_, bit)| bits | bit);
        match found.iter_mut().find(|(known, _)| *known == device) {
            Some((_, bits)) => *bits |= access,
            None => found.push((device, access)),
        }
    }
    found.sort_by_key(|((_, major, minor), _)| (major.is_none(), minor.is_none()));
    found
}

/// The few instructions that a device program is made of (Documentation/bpf/standardization,
/// instruction-set.rst). Registers: 1 the context, 2 the type, 3 the access asked, 4 the major, 5 the
/// minor number, 0 the answer.
mod asm {
    use super::Device;

    /// `struct bpf_insn`.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Instruction {
        code: u8,
        to: u8,
        from: u8,
        jump: i16,
        value: i32,
    }

    /// `to = *(u32 *)(from + jump)`
    const LOAD: u8 = 0x61;
    /// `to &= value`
    const AND: u8 = 0x57;
    /// `to >>= value`
    const SHIFT_RIGHT: u8 = 0x77;
    /// `to = value`
    const SET: u8 = 0xb7;
    /// `to = from`
    const COPY: u8 = 0xbf;
    /// skip `jump` instructions if `to != from`
    const UNLESS_REGISTER: u8 = 0x5d;
    /// skip `jump` instructions if the low half of `to` is not `value`
    const UNLESS: u8 = 0x56;
    /// return register 0
    const EXIT: u8 = 0x95;

    /// `BPF_DEVCG_DEV_BLOCK`, `BPF_DEVCG_DEV_CHAR`.
    const BLOCK: i32 = 1;
    const CHARACTER: i32 = 2;

    const fn with(code: u8, to: u8, value: i32) -> Instruction {
        Instruction { code, to, from: 0, jump: 0, value }
    }

    const fn load(to: u8, offset: i16) -> Instruction {
        Instruction { code: LOAD, to, from: 1, jump: offset, value: 0 }
    }

    /// Takes the context apart: `u32 access_type` (access << 16 | type), `u32 major`, `u32 minor`.
    pub(super) const PROLOGUE: [Instruction; 6] = [
        load(2, 0),
        with(AND, 2, 0xffff),
        load(3, 0),
        with(SHIFT_RIGHT, 3, 16),
        load(4, 4),
        load(5, 8),
    ];

    /// `return value`
    pub(super) const fn answer(value: i32) -> [Instruction; 2] {
        [with(SET, 0, value), with(EXIT, 0, 0)]
    }

    /// Answers 1 if the device is this one and no more is asked than `access`; else goes on behind.
    pub(super) fn rule((block, major, minor): Device, access: u8) -> Vec<Instruction> {
        let kind = if block { BLOCK } else { CHARACTER };
        let mut tests = vec![with(UNLESS, 2, kind)];
        let numbers = [(4, major), (5, minor)];
        tests.extend(numbers.iter().filter_map(|(register, number)| {
            Some(with(UNLESS, *register, (*number)?.cast_signed()))
        }));
        if access != 7 {
            tests.push(Instruction { code: COPY, to: 1, from: 3, jump: 0, value: 0 });
            tests.push(with(AND, 1, access.into()));
            tests.push(Instruction { code: UNLESS_REGISTER, to: 1, from: 3, jump: 0, value: 0 });
        }
        tests.extend(answer(1));
        let behind = tests.len();
        for (instruction, place) in tests.iter_mut().zip(1..) {
            if matches!(instruction.code, UNLESS | UNLESS_REGISTER) {
                instruction.jump = i16::try_from(behind.saturating_sub(place)).unwrap_or_default();
            }
        }
        tests
    }

    impl Instruction {
        pub(super) fn bytes(self) -> [u8; 8] {
            let [jump_0, jump_1] = self.jump.to_ne_bytes();
            let [value_0, value_1, value_2, value_3] = self.value.to_ne_bytes();
            // Two fields of four bits: the first takes the low half on little-endian machines only.
            let registers = if cfg!(target_endian = "little") {
                self.from << 4 | self.to
            } else {
                self.to << 4 | self.from
            };
            [self.code, registers, jump_0, jump_1, value_0, value_1, value_2, value_3]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceRules, Rule};
    use proptest::prelude::{Strategy, any, prop, proptest};

    #[test]
    fn everything_is_denied_before_something_is_allowed() {
        let writes = DeviceRules::of(false, &[]).v1_writes();
        assert_eq!(writes[0], ("devices.deny", "a".to_owned()));
        assert!(writes.contains(&("devices.allow", "c 1:3 rwm".to_owned())));
        assert!(writes.contains(&("devices.allow", "c 136:* rwm".to_owned())));
    }

    /// Runs a device program as the kernel would; `access` and `kind` as in linux/bpf.h.
    fn run(program: &[u8], access: u32, kind: u32, number: (u32, u32)) -> u64 {
        let context = [access << 16 | kind, number.0, number.1];
        let mut registers = [0_u64; 16];
        let mut at = 0_usize;
        loop {
            let [code, regs, j0, j1, v0, v1, v2, v3] = program.as_chunks::<8>().0[at];
            let (to, from) = (usize::from(regs & 15), usize::from(regs >> 4));
            let jump = usize::try_from(i16::from_ne_bytes([j0, j1])).unwrap();
            let value = i32::from_ne_bytes([v0, v1, v2, v3]);
            let wide = i64::from(value).cast_unsigned();
            at += 1;
            match code {
                0x61 if from == 1 => registers[to] = context[jump / 4].into(),
                0x57 => registers[to] &= wide,
                0x77 => registers[to] >>= wide,
                0xb7 => registers[to] = wide,
                0xbf => registers[to] = registers[from],
                0x5d if registers[to] != registers[from] => at += jump,
                0x56 if registers[to] != u64::from(value.cast_unsigned()) => at += jump,
                0x5d | 0x56 => {}
                0x95 => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_default_program_knows_null_and_not_the_disk() {
        let program = DeviceRules::of(false, &[]).v2_program().unwrap();
        let (mknod, read, write, block, char) = (1, 2, 4, 1, 2);
        assert_eq!(run(&program, read | write, char, (1, 3)), 1);
        assert_eq!(run(&program, read, block, (1, 3)), 0);
        assert_eq!(run(&program, read, char, (1, 1)), 0);
        assert_eq!(run(&program, read | write, char, (136, 77)), 1);
        assert_eq!(run(&program, mknod, block, (8, 0)), 1);
        assert_eq!(run(&program, mknod | read, block, (8, 0)), 0);
    }

    #[test]
    fn a_privileged_container_needs_no_program() {
        assert_eq!(DeviceRules::All.v2_program(), None);
    }

    #[test]
    fn rules_on_one_device_add_up() {
        let rule = |access: &str| Rule {
            block: false,
            major: Some(10),
            minor: Some(u32::MAX),
            access: access.to_owned(),
        };
        let program = DeviceRules::Only(vec![rule("r"), rule("w")]).v2_program().unwrap();
        assert_eq!(run(&program, 6, 2, (10, u32::MAX)), 1);
        assert_eq!(run(&program, 7, 2, (10, u32::MAX)), 0);
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let number = || prop::option::of(0_u32..4);
        let rule = (any::<bool>(), number(), number(), "[rwm]{1,3}")
            .prop_map(|(block, major, minor, access)| Rule { block, major, minor, access });
        prop::collection::vec(rule, 0..12)
    }

    proptest! {
        #[test]
        fn the_program_allows_what_some_device_s_rules_together_allow(
            rules in rules(), access in 1_u32..8, block: bool, major in 0_u32..4, minor in 0_u32..4
        ) {
            let fits = |rule: &&Rule| {
                rule.block == block
                    && rule.major.is_none_or(|n| n == major)
                    && rule.minor.is_none_or(|n| n == minor)
            };
            let may = |rule: &Rule| {
                let same = |other: &&Rule| {
                    (other.block, other.major, other.minor) == (rule.block, rule.major, rule.minor)
                };
                let letters: String = rules.iter().filter(same).map(|r| r.access.as_str()).collect();
                [('m', 1), ('r', 2), ('w', 4)]
                    .iter()
                    .all(|(letter, bit)| access & bit == 0 || letters.contains(*letter))
            };
            let expected = rules.iter().filter(fits).any(may);
            let program = DeviceRules::Only(rules.clone()).v2_program().unwrap();
            let kind = if block { 1 } else { 2 };
            assert_eq!(run(&program, access, kind, (major, minor)) == 1, expected);
        }
    }
}
