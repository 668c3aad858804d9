//! What was measured, in the order in which it is printed: a row per subject, in it a cell per runtime, in
//! it the samples of each round. Also remarks that explain a number, and failures. Computes figures from
//! samples; measures nothing and prints nothing.

use crate::runtime::Runtime;
use crate::trace::Counts;
use std::collections::BTreeMap;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// One per subject.
    pub(crate) rows: Vec<Row>,
    /// Sentences that stand below the table.
    pub(crate) remarks: Vec<String>,
    /// Milliseconds of the same small thing, once before every turn: how steady the machine is.
    pub(crate) noise: Vec<f64>,
    /// What each pod added: by runtime and role, how many processes and MB of each.
    pub(crate) roles: BTreeMap<Runtime, BTreeMap<String, Vec<(f64, f64)>>>,
    /// System calls and programs per pod start.
    pub(crate) calls: BTreeMap<Runtime, Calls>,
}

/// What one pod start asks of the kernel.
#[derive(Debug)]
pub(crate) struct Calls {
    /// By name.
    pub(crate) calls: BTreeMap<String, f64>,
    /// By file name; the container's own is among them.
    pub(crate) programs: BTreeMap<String, f64>,
}

/// One subject.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its words and its unit.
    pub(crate) subject: Subject,
    /// Samples by runtime, round by round.
    pub(crate) cells: BTreeMap<Runtime, Vec<Vec<f64>>>,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// In words.
    pub(crate) name: &'static str,
    /// Unit of its numbers.
    pub(crate) unit: &'static str,
    /// Which way is better.
    pub(crate) better: Better,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Times, sizes, counts.
    Less,
    /// Rates.
    More,
}

/// A subject where less is better.
pub(crate) const fn less(name: &'static str, unit: &'static str) -> Subject {
    Subject { name, unit, better: Better::Less }
}

/// A subject where more is better.
pub(crate) const fn more(name: &'static str, unit: &'static str) -> Subject {
    Subject { name, unit, better: Better::More }
}

/// What the samples of one cell come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// The median of each round: how far they lie apart is the noise of the machine.
    pub(crate) rounds: Vec<f64>,
}

impl Board {
    /// Adds what one round gave. Rows stand in the order of their first samples.
    pub(crate) fn add(&mut self, subject: Subject, runtime: Runtime, samples: Vec<f64>) {
        if samples.is_empty() {
            return;
        }
        let known = self.rows.iter_mut().find(|row| row.subject == subject);
        if let Some(row) = known {
            row.cells.entry(runtime).or_default().push(samples);
        } else {
            let cells = BTreeMap::from([(runtime, vec![samples])]);
            self.rows.push(Row { subject, cells });
        }
    }

    /// Adds a round that is one number.
    pub(crate) fn add_one(&mut self, subject: Subject, runtime: Runtime, sample: f64) {
        self.add(subject, runtime, vec![sample]);
    }

    /// Adds what a round found of one role.
    pub(crate) fn role(&mut self, runtime: Runtime, role: &str, found: (f64, f64)) {
        let roles = self.roles.entry(runtime).or_default();
        roles.entry(role.to_owned()).or_default().push(found);
    }

    /// Keeps what was counted over so many pods.
    pub(crate) fn calls(&mut self, runtime: Runtime, counts: &Counts, pods: f64) {
        let each = |counted: &BTreeMap<String, u32>| {
            let share = counted.iter().map(|(name, n)| (name.clone(), f64::from(*n) / pods));
            share.collect()
        };
        let (calls, programs) = (each(&counts.calls), each(&counts.programs));
        self.calls.insert(runtime, Calls { calls, programs });
    }

    /// A sentence for below the table, once.
    pub(crate) fn remark(&mut self, text: String) {
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }
}

impl Row {
    /// The figures of one runtime.
    pub(crate) fn figures(&self, runtime: Runtime) -> Option<Figures> {
        figures(self.cells.get(&runtime)?)
    }

    /// How many times better than the reference; 1 for the reference itself. `None` where one of them
    /// was not measured or is zero.
    pub(crate) fn ratio(&self, runtime: Runtime) -> Option<f64> {
        let reference = self.figures(Runtime::REFERENCE)?.median;
        let own = self.figures(runtime)?.median;
        let (large, small) = match self.subject.better {
            Better::Less => (reference, own),
            Better::More => (own, reference),
        };
        (large > 0.0 && small > 0.0).then(|| large / small)
    }
}

/// Figures of samples, round by round.
pub(crate) fn figures(rounds: &[Vec<f64>]) -> Option<Figures> {
    let mut all: Vec<f64> = rounds.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    Some(Figures {
        count: all.len(),
        median: share(&all, 50)?,
        p90: share(&all, 90)?,
        p99: share(&all, 99)?,
        least: *all.first()?,
        most: *all.last()?,
        rounds: rounds.iter().filter_map(|round| middle(round)).collect(),
    })
}

/// The median.
pub(crate) fn middle(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    share(&sorted, 50)
}

/// The nearest rank: the least sample that this share of all does not exceed.
fn share(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Subject = less("time", "ms");
    const RATE: Subject = more("rate", "per second");

    #[test]
    fn figures_are_of_all_rounds_and_of_each() {
        let rounds = [vec![5.0, 1.0, 3.0], vec![9.0], vec![7.0, 8.0]];
        let found = figures(&rounds).unwrap();
        assert_eq!(found.count, 6);
        assert_eq!((found.least, found.median, found.most), (1.0, 5.0, 9.0));
        assert_eq!((found.p90, found.p99), (9.0, 9.0));
        assert_eq!(found.rounds, [3.0, 9.0, 7.0]);
        assert_eq!(figures(&[]), None);
    }

    #[test]
    fn ranks_of_a_hundred_samples_are_the_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        let found = figures(&[samples]).unwrap();
        assert_eq!((found.median, found.p90, found.p99), (50.0, 90.0, 99.0));
    }

    #[test]
    fn a_ratio_says_how_many_times_better() {
        let mut board = Board::default();
        for (subject, own) in [(TIME, 10.0), (RATE, 1000.0)] {
            board.add_one(subject, Runtime::Wherry, own);
            board.add_one(subject, Runtime::REFERENCE, 100.0);
        }
        let ratios: Vec<Option<f64>> =
            board.rows.iter().map(|r| r.ratio(Runtime::Wherry)).collect();
        assert_eq!(ratios, [Some(10.0), Some(10.0)]);
        assert_eq!(board.rows[0].ratio(Runtime::REFERENCE), Some(1.0));
        assert_eq!(board.rows[0].ratio(Runtime::ContainerdCrun), None);
    }
}
