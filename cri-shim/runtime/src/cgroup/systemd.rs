//! The systemd driver: a scope for each pod, and one for ourselves, made by systemd over D-Bus and delegated
//! to us (`model/cgroup/driver.rs` says why a pod and not a container). A scope is asked for once per pod
//! start, and ended once per pod; whether it stands is read from the cgroup itself, so no signal of systemd's
//! can be missed. systemd may be restarted or busy meanwhile: every call is bounded and tried again.

use super::{Cgroups, put};
use crate::error::RuntimeError;
use crate::runtime::blocking;
use shim_model::cgroup::driver::{Driver, GroupPath};
use shim_model::cgroup::keyed;
use shim_model::host::CgroupLayout;
use shim_model::limits;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use zbus::{Variant, zvariant::DynamicType};

/// There if systemd runs as the first process (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
/// Its name as the first process, which it gives itself. In another process-id namespace the first process is
/// another, and our numbers of processes are not systemd's: it would move what we do not mean.
const FIRST: (&str, &str) = ("/proc/1/comm", "systemd\n");
/// How it is called on the bus (`org.freedesktop.systemd1(5)`).
const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// The unit is there already: an earlier try of ours was heard.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// The unit is gone already.
const NO_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// What a bus says while nobody answers by that name: systemd executes itself anew, or is being restarted.
const AWAY: [&str; 4] = [
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.Disconnected",
];

/// The way to systemd; clones share one connection, which is made when it is first needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Systemd(std::sync::Arc<tokio::sync::Mutex<Option<zbus::Connection>>>);

impl Systemd {
    /// Calls a method of systemd's manager; what is done already counts as done.
    async fn call<B>(&self, method: &'static str, unit: &str, body: &B) -> Result<(), RuntimeError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let deadline = Instant::now() + limits::SYSTEMD;
        loop {
            let error = match timeout_at(deadline, self.once(method, body)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_elapsed) => {
                    *self.0.lock().await = None;
                    return Err(late(method, unit));
                }
            };
            match name_of(&error) {
                Some(EXISTS | NO_UNIT) => return Ok(()),
                Some(name) if !AWAY.contains(&name) => return Err(failed(method, unit, error)),
                Some(_) => {}
                // Whatever broke, a new connection is the way out.
                None => *self.0.lock().await = None,
            }
            if Instant::now() + limits::SYSTEMD_RETRY > deadline {
                return Err(failed(method, unit, error));
            }
            sleep(limits::SYSTEMD_RETRY).await;
        }
    }

    async fn once<B>(&self, method: &'static str, body: &B) -> zbus::Result<()>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let bus = self.bus().await?;
        bus.call_method(Some(NAME), OBJECT, Some(MANAGER), method, body).await.map(drop)
    }

    async fn bus(&self) -> zbus::Result<zbus::Connection> {
        let mut kept = self.0.lock().await;
        if let Some(bus) = &*kept {
            return Ok(bus.clone());
        }
        let bus = zbus::Connection::system().await?;
        *kept = Some(bus.clone());
        Ok(bus)
    }
}

impl Cgroups {
    /// Decides who makes groups, and puts the zygote and whatever it forks into a group of our own.
    /// `wanted`: by configuration; `None` = systemd, where it is the first process of a node with cgroup v2.
    pub async fn drive(self, wanted: Option<Driver>, zygote: i32) -> Result<Self, RuntimeError> {
        let is_first = std::fs::read_to_string(FIRST.0).is_ok_and(|name| name == FIRST.1);
        let fits = self.layout == CgroupLayout::V2 && is_first && Path::new(BOOTED).is_dir();
        let driver = wanted.unwrap_or(if fits { Driver::Systemd } else { Driver::Cgroupfs });
        let driven = Self { driver, ..self };
        match driver {
            Driver::Cgroupfs => driven.adopt(&driver.own(), zygote),
            Driver::Systemd if fits => driven.own_scope(zygote).await?,
            Driver::Systemd => {
                let text = "the systemd driver needs cgroup v2 alone, and systemd as the first process that \
                            wherry sees; here set the key cgroup.driver to \"cgroupfs\"";
                return Err(RuntimeError::Unsupported(text.to_owned()));
            }
        }
        tracing::info!(?driver, layout = ?driven.layout, "cgroups");
        Ok(driven)
    }

    /// Joins the scope of our own, or has it made. Other daemons of the node may share it, and it goes with
    /// the last process in it, which may be now.
    async fn own_scope(&self, pid: i32) -> Result<(), RuntimeError> {
        let own = self.driver.own();
        if self.place(&own, pid).is_ok() {
            return Ok(());
        }
        match self.start_scope(&own, pid).await {
            Ok(()) => Ok(()),
            Err(error) => self.place(&own, pid).map_err(|_still_missing| error),
        }
    }

    /// Has systemd make a group's scope, with this process in it, for a scope is never empty. Returns when
    /// it stands.
    pub(crate) async fn start_scope(
        &self,
        group: &GroupPath,
        pid: i32,
    ) -> Result<(), RuntimeError> {
        let Some((unit, slice)) = group.scope() else { return Ok(()) };
        let number = u32::try_from(pid).unwrap_or_default();
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", Variant::from("containers of wherry")),
            ("Slice", Variant::from(slice)),
            ("Delegate", Variant::from(true)),
            ("PIDs", Variant::from(vec![number])),
            // Not ended with the node's services: the kubelet ends pods in its own order.
            ("DefaultDependencies", Variant::from(false)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            // A pod's limits are its slice's and its containers', not the default of scopes.
            ("TasksMax", Variant::from(u64::MAX)),
        ];
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        self.systemd.call("StartTransientUnit", unit, &(unit, "fail", properties, none)).await?;
        // The answer says that the job is queued.
        let procs = self.scope_folder(group).join("cgroup.procs");
        let wanted = pid.to_string();
        until("start", unit, || {
            let text = std::fs::read_to_string(&procs).unwrap_or_default();
            text.lines().any(|line| line == wanted)
        })
        .await
    }

    /// Ends a group's scope, and everything in it. Safe to repeat; a missing one is done, and one without
    /// processes goes by itself as soon as systemd sees it.
    pub(crate) async fn stop_scope(&self, group: &GroupPath) -> Result<(), RuntimeError> {
        let Some((unit, _)) = group.scope() else { return Ok(()) };
        let folder = self.scope_folder(group);
        if !folder.exists() {
            return Ok(());
        }
        // Before systemd is asked: it must not wait for the end of a process that is stuck.
        let (cgroups, own) = (self.clone(), group.clone());
        blocking(move || cgroups.empty(&own)).await?;
        let stopped = match self.systemd.call("StopUnit", unit, &(unit, "replace")).await {
            Ok(()) => until("stop", unit, || !folder.exists()).await,
            Err(error) => Err(error),
        };
        // Without systemd the empty folder still goes; it forgets the unit when it is back.
        stopped.or_else(|error| match std::fs::remove_dir(&folder) {
            Err(left) if left.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
    }

    /// Kills what is in a scope, takes the groups below it away, and waits until nobody is left.
    fn empty(&self, group: &GroupPath) -> Result<(), RuntimeError> {
        let folder = self.scope_folder(group);
        let deadline = std::time::Instant::now() + limits::KILL_WAIT;
        let populated = || {
            let events = std::fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
            keyed(&events, "populated") == Some(1)
        };
        while populated() {
            if std::time::Instant::now() > deadline {
                let doing = format!("end the processes of {group}: {:?}", self.processes(group));
                return Err(RuntimeError::Deadline { doing, after: limits::KILL_WAIT });
            }
            self.kill(group);
            std::thread::sleep(Duration::from_millis(1));
        }
        super::cgroupfs::remove_below(&folder);
        Ok(())
    }

    /// Moves a process into a group that stands.
    pub(crate) fn place(&self, group: &GroupPath, pid: i32) -> Result<(), RuntimeError> {
        put(self.scope_folder(group).join("cgroup.procs"), &pid.to_string())
    }

    fn scope_folder(&self, group: &GroupPath) -> PathBuf {
        self.v2.clone().unwrap_or_default().join(group.as_str())
    }
}

/// Waits for what systemd does after it answered.
async fn until(
    verb: &'static str,
    unit: &str,
    done: impl Fn() -> bool,
) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + limits::SYSTEMD;
    let mut pause = Duration::from_micros(200);
    while !done() {
        if Instant::now() > deadline {
            return Err(late(verb, unit));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

fn name_of(error: &zbus::Error) -> Option<&str> {
    match error {
        zbus::Error::MethodError(name, _, _) => Some(name.as_str()),
        _ => None,
    }
}

fn failed(verb: &'static str, unit: &str, source: zbus::Error) -> RuntimeError {
    RuntimeError::Systemd { verb, unit: unit.to_owned(), source }
}

fn late(verb: &'static str, unit: &str) -> RuntimeError {
    let doing = format!("have systemd {verb} the unit {unit}");
    RuntimeError::Deadline { doing, after: limits::SYSTEMD }
}
