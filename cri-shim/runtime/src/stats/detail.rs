//! Everything that is known of what runs: what metrics ask for beyond statistics. Costs several times what
//! statistics cost, so nobody else asks for it.

use super::PodUse;
use super::processes::Processes;
use crate::error::RuntimeError;
use crate::runtime::{Runtime, blocking};
use crate::store::container::Container;
use shim_model::cgroup::counters::Counters;
use shim_sys::path::Space;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every ready pod, and the node as far as they need it.
#[derive(Debug, Default)]
pub struct Details {
    /// Pods.
    pub pods: Vec<PodDetail>,
    /// The file system of writable layers.
    pub space: Space,
    /// Where that file system is, as the mount table names it.
    pub device: String,
    /// Names of block devices by major and minor number.
    pub devices: BTreeMap<(u32, u32), String>,
}

/// One pod.
#[derive(Debug)]
pub struct PodDetail {
    /// What it uses.
    pub seen: PodUse,
    /// What its group counted, if it has one of its own.
    pub counters: Option<Counters>,
    /// Likewise its containers, in the order of `seen.containers`.
    pub containers: Vec<ContainerDetail>,
}

/// One container.
#[derive(Debug)]
pub struct ContainerDetail {
    /// What its group counted.
    pub counters: Counters,
    /// What its processes have.
    pub processes: Processes,
}

impl Runtime {
    /// Looks at every ready pod.
    pub async fn details(&self) -> Result<Details, RuntimeError> {
        let mut ready = self.sandboxes();
        ready.retain(|pod| pod.is_ready());
        let runtime = self.clone();
        blocking(move || {
            let pods = runtime.measure_pods(ready);
            let pods: Vec<PodDetail> = pods.into_iter().map(|pod| runtime.detail(pod)).collect();
            let root = &runtime.0.config.root;
            let space = shim_sys::path::space(root)
                .map_err(RuntimeError::system("look at the file system of writable layers"))?;
            let numbers = pods.iter().flat_map(|pod| {
                let own = pod.containers.iter().map(|one| &one.counters).chain(&pod.counters);
                own.flat_map(|counters| counters.devices.keys().copied())
            });
            let devices = numbers.map(|number| (number, device_name(number))).collect();
            Ok(Details { devices, pods, space, device: runtime.0.device.clone() })
        })
        .await
    }

    fn detail(&self, seen: PodUse) -> PodDetail {
        let group = &seen.pod.record.cgroup;
        let counters = seen.has_own_group.then(|| self.0.cgroups.counters(group));
        let detail = |container: &Container| ContainerDetail {
            counters: self.0.cgroups.counters(&container.record.cgroup),
            processes: self.processes(container),
        };
        let containers = seen.containers.iter().map(|one| detail(&one.container)).collect();
        PodDetail { seen, counters, containers }
    }
}

/// `/dev/vda1`, or the numbers where the kernel has no name.
fn device_name((major, minor): (u32, u32)) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

/// Where the file system of a folder is, as the mount table names it.
pub(crate) fn device_of(folder: &Path) -> String {
    let number = std::fs::metadata(folder).map(|meta| meta.dev()).unwrap_or_default();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    source_of(&table, shim_sys::path::device_number(number)).unwrap_or_default()
}

/// The source in the line of `mountinfo` with these numbers (proc(5)).
fn source_of(table: &str, (major, minor): (u32, u32)) -> Option<String> {
    let wanted = format!("{major}:{minor}");
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&wanted))?;
    line.split_once(" - ")?.1.split(' ').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::source_of;

    #[test]
    fn the_mount_table_names_the_device() {
        let table = "22 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw\n\
                     30 22 0:27 / /run rw shared:5 - tmpfs run rw,size=1k\n";
        assert_eq!(source_of(table, (254, 1)).as_deref(), Some("/dev/vda1"));
        assert_eq!(source_of(table, (0, 27)).as_deref(), Some("run"));
        assert_eq!(source_of(table, (8, 0)), None);
    }
}
