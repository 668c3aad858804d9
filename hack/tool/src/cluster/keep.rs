//! The first process of a machine: starts its components, starts them again when they end, and reaps
//! whatever else ends (monitors of pods become its children).

use super::layout::{log_file, pid_file};
use anyhow::Context;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at what ended and what may begin.
const LOOK: Duration = Duration::from_millis(30);
/// Before a component that ended begins again.
const PAUSE: Duration = Duration::from_millis(200);

/// A program that should always run.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its name, of its log too.
    pub name: &'static str,
    /// Its command line; the first word is the program.
    pub argv: Vec<String>,
    /// Folders of programs that it looks for, before those of everybody.
    pub path: Vec<PathBuf>,
    /// It begins when this file is there.
    pub after: Option<PathBuf>,
}

struct Kept {
    component: Component,
    runs: Option<Pid>,
    not_before: Instant,
}

/// Keeps them running until this process is killed. Logs and process ids are in `folder`.
pub fn keep(folder: &Path, components: Vec<Component>) -> anyhow::Result<Infallible> {
    let now = Instant::now();
    let mut all: Vec<Kept> = components
        .into_iter()
        .map(|component| Kept { component, runs: None, not_before: now })
        .collect();
    loop {
        while let Some(ended) = reaped()? {
            for kept in all.iter_mut().filter(|kept| kept.runs == Some(ended)) {
                kept.runs = None;
                kept.not_before = Instant::now() + PAUSE;
            }
        }
        for kept in all.iter_mut().filter(|kept| kept.runs.is_none()) {
            let waits = kept.component.after.as_ref().is_some_and(|file| !file.exists());
            if !waits && Instant::now() >= kept.not_before {
                kept.runs = Some(start(folder, &kept.component)?);
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn reaped() -> anyhow::Result<Option<Pid>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(status) => Ok(status.pid()),
        Err(Errno::ECHILD) => Ok(None),
        Err(error) => Err(error).context("wait for what ended"),
    }
}

fn start(folder: &Path, component: &Component) -> anyhow::Result<Pid> {
    let file = folder.join(component.name);
    let open = || File::options().create(true).append(true).open(log_file(&file));
    let (program, arguments) = component.argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(open()?).stderr(open()?);
    if !component.path.is_empty() {
        let places = component.path.iter().map(|place| place.display().to_string());
        let places: Vec<_> = places.chain([super::PATH.to_owned()]).collect();
        command.env("PATH", places.join(":"));
    }
    let child = command.spawn().with_context(|| format!("start {program}"))?;
    std::fs::write(pid_file(&file), child.id().to_string())?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}
