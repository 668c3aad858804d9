//! The command line of `wherry-bench`, as `hack/bench` passes it on, and how much of everything is
//! measured. Bounds of loops stand here and nowhere else.

use crate::runtime::{Programs, Runtime};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// What to measure, and where.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) programs: Programs,
    /// What is made once is kept here.
    pub(crate) cache: PathBuf,
    /// In the order of the columns.
    pub(crate) runtimes: Vec<Runtime>,
    /// In the order in which they are measured.
    pub(crate) groups: Vec<Group>,
    pub(crate) json: Option<PathBuf>,
    /// Where to keep what strace writes.
    pub(crate) traces: Option<PathBuf>,
    /// The small one.
    pub(crate) short: bool,
}

/// Subjects that one course of actions measures together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// One pod after the other: start, stop, remove, processor time.
    Start,
    /// `ExecSync`.
    Exec,
    /// Several clients at once.
    Parallel,
    /// Many pods held: memory, lists, a restart of the daemon.
    Held,
    /// Two images.
    Pull,
    /// System calls, not timed.
    Counts,
}

/// How often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Rounds, and pods in each.
    pub(crate) start: (usize, usize),
    /// Rounds, and execs in each.
    pub(crate) exec: (usize, usize),
    /// Rounds, and pods of each client in each.
    pub(crate) parallel: (usize, usize),
    /// Rounds.
    pub(crate) held: usize,
    /// Rounds.
    pub(crate) pull: usize,
    /// Pods whose system calls are counted.
    pub(crate) counts: usize,
}

/// Clients at once.
pub(crate) const CLIENTS: usize = 8;
/// Pods held when memory is read.
pub(crate) const FOR_MEMORY: usize = 50;
/// Pods held when pods are listed and the daemon is killed.
pub(crate) const FOR_RESTART: usize = 60;

const FULL: Scale =
    Scale { start: (8, 5), exec: (6, 20), parallel: (4, 4), held: 3, pull: 3, counts: 3 };
const SHORT: Scale =
    Scale { start: (3, 3), exec: (3, 10), parallel: (2, 2), held: 1, pull: 1, counts: 1 };

const USAGE: &str = "usage: hack/bench [--short] [--only SUBJECT,...] [--runtimes NAME,...]
                  [--json FILE] [--traces FOLDER]
subjects: start exec parallel held pull counts
runtimes: wherry wherry-plugins containerd-runc containerd-crun";

impl Scale {
    /// The whole measurement, or a look.
    pub(crate) const fn of(options: &Options) -> Self {
        if options.short { SHORT } else { FULL }
    }
}

impl Group {
    const ALL: [(&'static str, Self); 6] = [
        ("start", Self::Start),
        ("exec", Self::Exec),
        ("parallel", Self::Parallel),
        ("held", Self::Held),
        ("pull", Self::Pull),
        ("counts", Self::Counts),
    ];

    /// As options name it.
    pub(crate) fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, group)| *group == self);
        known.map_or("", |(name, _)| name)
    }
}

/// Reads the words after the program's name.
pub(crate) fn read(words: &[String]) -> Result<Options> {
    let (mut wherry, mut peers, mut crun, mut cache) = (None, None, None, None);
    let (mut json, mut traces) = (None, None);
    let mut runtimes = Runtime::ALL.to_vec();
    let mut groups: Vec<Group> = Group::ALL.iter().map(|(_, group)| *group).collect();
    let mut short = false;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--short" {
            short = true;
            continue;
        }
        let value = rest.next().with_context(|| format!("{word} needs a value\n{USAGE}"))?;
        match word.as_str() {
            "--wherry" => wherry = Some(PathBuf::from(value)),
            "--peers" => peers = Some(PathBuf::from(value)),
            "--crun" => crun = Some(PathBuf::from(value)),
            "--cache" => cache = Some(PathBuf::from(value)),
            "--traces" => traces = Some(PathBuf::from(value)),
            "--json" => json = Some(PathBuf::from(value)),
            "--only" => {
                groups = chosen(value, &Group::ALL)?;
            }
            "--runtimes" => {
                runtimes = chosen(value, &Runtime::ALL.map(|one| (one.name(), one)))?;
            }
            _ => bail!("{word} is unknown\n{USAGE}"),
        }
    }
    let programs = Programs {
        wherry: wherry.context(USAGE)?,
        peers: peers.context(USAGE)?,
        crun: crun.context(USAGE)?,
    };
    Ok(Options { programs, cache: cache.context(USAGE)?, runtimes, groups, json, traces, short })
}

/// The named ones, in the order of the table.
fn chosen<T: Copy>(names: &str, table: &[(&'static str, T)]) -> Result<Vec<T>> {
    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = names.iter().find(|name| table.iter().all(|(known, _)| known != *name)) {
        bail!("{unknown} is unknown\n{USAGE}");
    }
    Ok(table.iter().filter(|(known, _)| names.contains(known)).map(|(_, one)| *one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(more: &[&str]) -> Result<Options> {
        let mut words = vec!["--wherry", "/w", "--peers", "/p", "--crun", "/r", "--cache", "/c"];
        words.extend(more);
        read(&words.into_iter().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn everything_is_measured_unless_told_otherwise() {
        let all = with(&[]).unwrap();
        assert_eq!((all.runtimes.len(), all.groups.len()), (4, 6));
        let some = with(&["--only", "pull,start", "--runtimes", "wherry"]).unwrap();
        assert_eq!(some.groups, [Group::Start, Group::Pull]);
        assert_eq!(some.runtimes, [Runtime::Wherry]);
    }

    #[test]
    fn a_word_that_nobody_knows_is_told() {
        for words in [["--only", "pul"], ["--runtimes", "docker"], ["--fast", "1"]] {
            let error = with(&words).unwrap_err().to_string();
            assert!(error.contains("is unknown\nusage: "), "{error}");
        }
        assert!(with(&["--json"]).is_err());
    }
}
