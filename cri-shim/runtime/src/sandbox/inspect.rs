//! Everything about a pod that a person may want to see and nothing needs: its network as the plugins left
//! it, its namespaces by path. Reads a few small files; only for verbose statuses.

use crate::runtime::Runtime;
use crate::store::pod::Pod;
use serde_json::{Value, json};
use std::path::PathBuf;

impl Runtime {
    /// The result of the network's plugins, as they gave it.
    pub fn network_result(&self, pod: &Pod) -> Option<Value> {
        self.0.network.result(&pod.record.id)
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
        if record.setup.pod_init {
            all.push(own("pid", of(state.facts.pod_init.map(|process| process.pid), "pid")));
        }
        all
    }
}
