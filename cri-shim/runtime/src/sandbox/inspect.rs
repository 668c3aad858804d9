//! Everything about a pod that a person may want to see and nothing needs: its network as the plugins left
//! it, its namespaces by path. Reads a few small files; only for verbose statuses.

use crate::network::told::Told;
use crate::runtime::Runtime;
use crate::store::pod::Pod;
use serde_json::{Value, json};
use shim_model::container::life::State;
use shim_model::sandbox::config::IdMapping;
use std::path::PathBuf;

impl Runtime {
    /// The network that it is attached to: its plugins, and what they gave.
    pub fn network_told(&self, pod: &Pod) -> Option<Told> {
        let attachment = pod.record.attachment.as_ref().filter(|known| !known.none)?;
        Some(self.0.network.told(attachment))
    }

    /// Where its group is, in every hierarchy.
    pub fn pod_groups(&self, pod: &Pod) -> Vec<PathBuf> {
        self.0.cgroups.folders(&pod.record.cgroup)
    }

    /// The namespaces that the pod's containers share, as an OCI runtime spec lists them: by a path that
    /// can be entered, or without one where they are the node's.
    pub fn pod_namespaces(&self, pod: &Pod) -> Vec<Value> {
        let (record, state) = (&pod.record, pod.state());
        let monitor = state.facts.monitor.map(|process| process.pid);
        let of = |pid: Option<i32>, name: &str| pid.map(|pid| format!("/proc/{pid}/ns/{name}"));
        let network = record
            .attachment
            .as_ref()
            .map(|_| self.0.network.namespace_path(&record.id).to_string_lossy().into_owned());
        let own = |kind: &str, path: Option<String>| json!({"type": kind, "path": path});
        let mut all = Vec::new();
        if !record.setup.host_network {
            all.push(own("network", network));
            all.push(own("uts", of(monitor, "uts")));
        }
        if !record.setup.host_ipc {
            all.push(own("ipc", of(monitor, "ipc")));
        }
        let init = state.facts.pod_init.map(|process| process.pid);
        if record.setup.pod_init {
            all.push(own("pid", of(init, "pid")));
        }
        if record.setup.user.is_some() {
            // The monitor stays outside.
            all.push(own("user", of(init.or_else(|| self.first_process(pod)), "user")));
        }
        all
    }

    /// A process of a container of the pod that runs.
    fn first_process(&self, pod: &Pod) -> Option<i32> {
        let containers = self.0.store.containers_of(&pod.record.id);
        containers.iter().find_map(|container| match &container.state().life {
            State::Running { process, .. } => Some(process.pid),
            State::Creating {} | State::Created {} | State::Exited { .. } => None,
        })
    }

    /// The maps of its user namespace, as an OCI runtime spec lists them; none with the node's.
    pub fn pod_maps(&self, pod: &Pod) -> Option<(Value, Value)> {
        let maps = pod.record.setup.user?;
        let map = |map: IdMapping| json!([{"containerID": map.container_id, "hostID": map.host_id, "size": map.length}]);
        Some((map(maps.uids), map(maps.gids)))
    }
}
