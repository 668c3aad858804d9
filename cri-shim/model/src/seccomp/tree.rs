//! Instructions: a decision for every number of a system call becomes classic BPF (Documentation/
//! networking/filter.rst; `struct seccomp_data` in linux/seccomp.h). Numbers are found by a balanced tree
//! of comparisons over ranges; equal decisions share their instructions. Which decision a number gets is
//! `compile.rs`. Machines of this crate are little-endian: the low half of an argument comes first.
//!
//! A jump goes forward only, a conditional one by at most 255 instructions. So a program is written from
//! its end: what a jump leads to is there already, and what is too far gets a jump without that bound.

use super::profile::Test;
use std::collections::BTreeMap;

/// `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `A = *(u32 *)(seccomp_data + k)`
pub(super) const LOAD: u16 = 0x20;
/// `A &= k`
pub(super) const AND: u16 = 0x54;
/// skip k instructions
pub(super) const JUMP: u16 = 0x05;
/// `A == k`
pub(super) const EQUAL: u16 = 0x15;
/// `A > k`
pub(super) const GREATER: u16 = 0x25;
/// `A >= k`
pub(super) const AT_LEAST: u16 = 0x35;
/// return k
pub(super) const RETURN: u16 = 0x06;

/// Offset of the number of the call in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of `AUDIT_ARCH_…`.
const AUDIT: u32 = 4;
/// Offset of the first argument, 8 bytes each.
const ARGUMENTS: u32 = 16;
/// A conditional jump reaches 255; two jumps may be put between, and one more for certainty.
const REACH: usize = 252;

/// One comparison, of all 64 bits or of the low 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Check {
    /// 0 to 5.
    pub(super) argument: u8,
    /// The comparison; if not wide, its values have 32 bits.
    pub(super) test: Test,
    /// 64 bits.
    pub(super) wide: bool,
}

/// A value to return if every check holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Clause {
    /// All must hold.
    pub(super) checks: Vec<Check>,
    /// What the filter returns then.
    pub(super) value: u32,
}

/// What the filter does with a number: the first clause that holds, else the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Outcome {
    /// In this order.
    pub(super) clauses: Vec<Clause>,
    /// If none holds.
    pub(super) otherwise: u32,
}

/// A range of numbers: from here to the next range's start.
pub(super) type Range = (u32, Outcome);

/// Place of an instruction, counted from the end of the program.
type Place = usize;

/// A program that grows from its end.
#[derive(Debug, Default)]
struct Program {
    reversed: Vec<Instruction>,
    returns: BTreeMap<u32, Place>,
    outcomes: BTreeMap<Outcome, Place>,
}

/// The whole filter: for each `AUDIT_ARCH_…` its ranges, ascending from 0; any other architecture gets
/// `foreign`.
pub(super) fn assemble(architectures: &[(u32, Vec<Range>)], foreign: u32) -> Vec<Instruction> {
    let mut program = Program::default();
    let mut entries = Vec::new();
    for (audit, ranges) in architectures.iter().rev() {
        let tree = program.ranges(ranges);
        entries.push((*audit, program.before(LOAD, NUMBER, tree)));
        // What is shared lies beyond the next tree, out of reach of short jumps.
        program.returns.clear();
    }
    let mut next = program.value(foreign);
    for (audit, entry) in entries {
        next = program.branch(EQUAL, audit, (entry, next));
    }
    program.before(LOAD, AUDIT, next);
    program.reversed.reverse();
    program.reversed
}

impl Program {
    fn push(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        self.reversed.len().saturating_sub(1)
    }

    /// How many instructions the next one has to skip to get to a place.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len().saturating_sub(place).saturating_sub(1)
    }

    /// The same place, or a jump to it that is near.
    fn near(&mut self, place: Place) -> Place {
        if self.distance(place) <= REACH { place } else { self.jump(place) }
    }

    fn jump(&mut self, place: Place) -> Place {
        let k = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
        self.push(Instruction { code: JUMP, jt: 0, jf: 0, k })
    }

    /// A comparison that goes on at the first place if it holds, else at the second.
    fn branch(&mut self, code: u16, k: u32, (yes, no): (Place, Place)) -> Place {
        let yes = self.near(yes);
        let no = self.near(no);
        let skip = |program: &Self, place| u8::try_from(program.distance(place)).unwrap_or(u8::MAX);
        let (jt, jf) = (skip(self, yes), skip(self, no));
        self.push(Instruction { code, jt, jf, k })
    }

    /// An instruction that is followed by the one at a place.
    fn before(&mut self, code: u16, k: u32, place: Place) -> Place {
        if self.distance(place) > 0 {
            self.jump(place);
        }
        self.push(Instruction { code, jt: 0, jf: 0, k })
    }

    /// The end of the filter with a value.
    fn value(&mut self, value: u32) -> Place {
        match self.returns.get(&value) {
            Some(place) if self.distance(*place) <= REACH => *place,
            Some(_) | None => {
                let place = self.push(Instruction { code: RETURN, jt: 0, jf: 0, k: value });
                self.returns.insert(value, place);
                place
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome) -> Place {
        if outcome.clauses.is_empty() {
            return self.value(outcome.otherwise);
        }
        if let Some(place) = self.outcomes.get(outcome) {
            return *place;
        }
        let mut next = self.value(outcome.otherwise);
        for clause in outcome.clauses.iter().rev() {
            let mut yes = self.value(clause.value);
            for check in clause.checks.iter().rev() {
                yes = self.check(check, (yes, next));
            }
            next = yes;
        }
        self.outcomes.insert(outcome.clone(), next);
        next
    }

    /// A balanced tree: each comparison halves the ranges.
    fn ranges(&mut self, ranges: &[Range]) -> Place {
        match ranges {
            [] => self.value(0),
            [(_, only)] => self.outcome(only),
            several => {
                let (low, high) = several.split_at(several.len() / 2);
                let start = high.first().map_or(0, |(start, _)| *start);
                let high = self.ranges(high);
                let low = self.ranges(low);
                self.branch(AT_LEAST, start, (high, low))
            }
        }
    }

    fn check(&mut self, check: &Check, (yes, no): (Place, Place)) -> Place {
        match check.test {
            Test::Equal(value) => self.masked(check, (u64::MAX, value), (yes, no)),
            Test::NotEqual(value) => self.masked(check, (u64::MAX, value), (no, yes)),
            Test::Masked { mask, value } => self.masked(check, (mask, value), (yes, no)),
            Test::GreaterOrEqual(value) => self.ordered(check, (AT_LEAST, value), (yes, no)),
            Test::Greater(value) => self.ordered(check, (GREATER, value), (yes, no)),
            Test::Less(value) => self.ordered(check, (AT_LEAST, value), (no, yes)),
            Test::LessOrEqual(value) => self.ordered(check, (GREATER, value), (no, yes)),
        }
    }

    /// `argument & mask == value`
    fn masked(
        &mut self,
        check: &Check,
        (mask, value): (u64, u64),
        (yes, no): (Place, Place),
    ) -> Place {
        let [(low_mask, low_value), (high_mask, high_value)] =
            [(low(mask), low(value)), (high(mask), high(value))];
        let mut entry = self.masked_half((offset(check), low_mask, low_value), (yes, no));
        if check.wide && high_mask != 0 {
            let half = (offset(check).saturating_add(4), high_mask, high_value);
            entry = self.masked_half(half, (entry, no));
        }
        entry
    }

    fn masked_half(
        &mut self,
        (offset, mask, value): (u32, u32, u32),
        targets: (Place, Place),
    ) -> Place {
        let mut entry = self.branch(EQUAL, value, targets);
        if mask != u32::MAX {
            entry = self.before(AND, mask, entry);
        }
        self.before(LOAD, offset, entry)
    }

    /// `argument > value` or `argument >= value`: the high half decides unless it is equal.
    fn ordered(
        &mut self,
        check: &Check,
        (code, value): (u16, u64),
        (yes, no): (Place, Place),
    ) -> Place {
        let entry = self.branch(code, low(value), (yes, no));
        let entry = self.before(LOAD, offset(check), entry);
        if !check.wide {
            return entry;
        }
        let equal = self.branch(EQUAL, high(value), (entry, no));
        let greater = self.branch(GREATER, high(value), (yes, equal));
        self.before(LOAD, offset(check).saturating_add(4), greater)
    }
}

fn offset(check: &Check) -> u32 {
    ARGUMENTS.saturating_add(u32::from(check.argument).saturating_mul(8))
}

/// The low 32 bits.
pub(super) const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const fn high(value: u64) -> u32 {
    low(value >> 32)
}
