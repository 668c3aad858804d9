//! Namespaces of a machine of the cluster: made, entered, ended. The first process of each is this program
//! again; when it is killed, all that runs inside ends with it.

use super::layout::{Home, Machine};
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long namespaces may take to be made, and what is in them to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command; an error has what it said.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", words.join(" "), output.status, said.trim());
    }
    Ok(())
}

/// Asks until there is an answer, or for too long.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("did not come within {} s: {what}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes the namespaces of a machine and starts its first process, which goes on by itself.
pub fn begin(home: &Home, machine: Machine) -> anyhow::Result<()> {
    let folder = home.of(machine);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let log = folder.join("log");
    let open = || File::create(&log).with_context(|| format!("write {}", log.display()));
    let outer = Command::new("setsid")
        .args(["unshare", "--mount", "--propagation=private", "--net", "--uts", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().context("find this program")?)
        .args(["cluster", "--home"])
        .arg(&home.0)
        .args(["first", &machine.to_string()])
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .spawn()
        .context("start unshare")?
        .id();
    let children = format!("/proc/{outer}/task/{outer}/children");
    let first = until("the first process of its namespaces", PATIENCE, || {
        fs::read_to_string(&children).ok()?.trim().parse::<u32>().ok()
    })
    .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let begun = start_time(first).context("it ended at once")?;
    fs::write(first_file(home, machine), format!("{first} {begun}"))?;
    Ok(())
}

/// The machine's first process as this namespace numbers it, if it runs.
pub fn first(home: &Home, machine: Machine) -> Option<u32> {
    let text = fs::read_to_string(first_file(home, machine)).ok()?;
    let (pid, begun) = text.split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid)? == begun).then_some(pid)
}

/// A command in the namespaces of a machine; in its network alone with `only_network`.
pub fn inside(home: &Home, machine: Machine, only_network: bool) -> anyhow::Result<Command> {
    let first = first(home, machine).with_context(|| format!("{machine} does not run"))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &first.to_string(), "--net"]);
    if !only_network {
        command.args(["--mount", "--uts", "--pid", "--cgroup"]);
    }
    command.arg("--");
    Ok(command)
}

/// Kills a machine and waits until nothing of it runs. One that does not run is done.
pub fn end(home: &Home, machine: Machine) -> anyhow::Result<()> {
    if let Some(pid) = first(home, machine) {
        run(&["kill", "-KILL", &pid.to_string()])?;
    }
    until(&format!("the end of {machine}"), PATIENCE, || {
        first(home, machine).is_none().then_some(())
    })
}

fn first_file(home: &Home, machine: Machine) -> PathBuf {
    home.of(machine).join("first")
}

/// When a process began, in ticks since boot (`proc_pid_stat(5)`, field 22); none of one that ended.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let runs = fields.next()? != "Z";
    fields.nth(18).filter(|_| runs).map(str::to_owned)
}
