//! One container as its monitor knows it, from the clone to the day it is forgotten.

use super::connections::Asker;
use super::group::Group;
use super::handler::program::By;
use super::handler::start::Making;
use super::log::LogFile;
use crate::times::WalkTimes;
use shim_model::id::ContainerId;
use shim_model::log::{Lines, Output};
use shim_model::plan::InitPlan;
use shim_model::wire::{ContainerState, Exit, Nanos, Process};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) process: Process,
    pub(crate) pidfd: OwnedFd,
    pub(crate) group: Group,
    /// Out-of-memory kills counted before it began.
    pub(crate) oom_before: u64,
    pub(crate) started: Nanos,
    /// It runs in a PID namespace other than the monitor's, which execs join.
    pub(crate) other_pids: bool,
    pub(crate) log: LogFile,
    /// What it prints; `None` after the end of each.
    pub(crate) standard: Option<Stream>,
    pub(crate) error: Option<Stream>,
    /// Where its standard input is written, if it has one.
    pub(crate) stdin: Stdin,
    /// Its outputs are one terminal, `standard`.
    pub(crate) tty: bool,
    /// The terminal's other end, held while it lives: else every moment in which no process has it open
    /// would look like its end.
    pub(crate) peer: Option<OwnedFd>,
    /// The handler's program that runs it, where it is not this monitor.
    pub(crate) by: Option<Rc<By>>,
    pub(crate) phase: Phase,
}

/// The writing end of a container's standard input.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// `None`: it has none, it has not made its terminal yet, or it was closed.
    pub(crate) end: Option<OwnedFd>,
    /// The first client that closes its own closes it.
    pub(crate) once: bool,
    /// It is full, and watched for room.
    pub(crate) full: bool,
}

/// One output of a container.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The reading end of a pipe, or the master of a terminal.
    pub(crate) pipe: OwnedFd,
    pub(crate) lines: Lines,
    /// An attached client is behind, so it is not read.
    pub(crate) held: bool,
}

impl Stream {
    pub(crate) const fn new(pipe: OwnedFd, output: Output) -> Self {
        Self { pipe, lines: Lines::new(output), held: false }
    }
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Cloned; walks its plan.
    Walking(Box<Walking>),
    /// A handler's program is making it.
    Making(Box<Making>),
    /// Its program runs.
    Running,
    /// It ended; what it printed is still being read, up to a deadline.
    Draining { exit: Exit, deadline: Duration },
    /// It ended and that was told.
    Ended(Exit),
    /// Its program could not be executed; the clone is still to be reaped.
    NotStarted,
}

/// What is kept while a container walks.
#[derive(Debug)]
pub(crate) struct Walking {
    pub(crate) asker: Asker,
    /// What the clone says.
    pub(crate) told: OwnedFd,
    /// To name the step that failed.
    pub(crate) plan: InitPlan,
    /// The walk is done, the program is about to be executed.
    pub(crate) walked: Option<WalkTimes>,
    /// When the order came.
    pub(crate) asked: u64,
    /// Its terminal is to be its standard input for clients too.
    pub(crate) stdin: bool,
}

impl Container {
    pub(crate) fn stream(&mut self, output: Output) -> &mut Option<Stream> {
        match output {
            Output::Standard => &mut self.standard,
            Output::Error => &mut self.error,
        }
    }

    /// Nothing is left to be read.
    pub(crate) const fn is_drained(&self) -> bool {
        self.standard.is_none() && self.error.is_none()
    }

    pub(crate) const fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Draining { deadline, .. } => Some(*deadline),
            Phase::Walking(_)
            | Phase::Making(_)
            | Phase::Running
            | Phase::Ended(_)
            | Phase::NotStarted => None,
        }
    }

    /// Its first process has not been reaped.
    pub(crate) const fn lives(&self) -> bool {
        match self.phase {
            Phase::Walking(_) | Phase::Making(_) | Phase::Running | Phase::NotStarted => true,
            Phase::Draining { .. } | Phase::Ended(_) => false,
        }
    }

    /// As the daemon is told; `None` if it never started.
    pub(crate) fn state(&self) -> Option<ContainerState> {
        let exit = match &self.phase {
            Phase::NotStarted => return None,
            Phase::Walking(_) | Phase::Making(_) | Phase::Running | Phase::Draining { .. } => None,
            Phase::Ended(exit) => Some(exit.clone()),
        };
        let (container, process, started) = (self.id.clone(), self.process, self.started);
        Some(ContainerState { container, process, started, exit })
    }
}
