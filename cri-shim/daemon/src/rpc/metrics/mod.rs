//! Metrics of pods and containers over the CRI: the descriptors, and the values of everything that runs.
//! With `PodAndContainerStatsFromCRI` a kubelet shows them as they are under `/metrics/cadvisor`, so names
//! and labels are those that people's dashboards know. What there is stands in `table`; two series of a
//! name never have the same labels, because one such pair would spoil the whole page.

mod table;
mod text;
mod values;

pub(crate) use text::text;

use crate::error::DaemonError;
use crate::rpc::lists;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use shim_runtime::stats::detail::{Details, PodDetail};
use table::{ALL, Metric};
use values::Seen;

/// What every series has.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
/// What kubelets call the part of a pod that has its network.
const POD: &str = "POD";

/// `ListMetricDescriptors`: always all of them, because a kubelet asks once.
pub(crate) fn descriptors() -> cri::ListMetricDescriptorsResponse {
    let descriptor = |metric: &Metric| cri::MetricDescriptor {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        label_keys: LABELS.iter().chain(metric.labels).map(|key| (*key).to_owned()).collect(),
    };
    cri::ListMetricDescriptorsResponse { descriptors: ALL.iter().map(descriptor).collect() }
}

/// `ListPodSandboxMetrics`: those of ready pods.
pub(crate) async fn list(
    runtime: Runtime,
) -> Result<cri::ListPodSandboxMetricsResponse, DaemonError> {
    Ok(cri::ListPodSandboxMetricsResponse { pod_metrics: listed(&runtime).await? })
}

/// `StreamPodSandboxMetrics`.
pub(crate) async fn stream(
    runtime: Runtime,
) -> Result<Vec<cri::StreamPodSandboxMetricsResponse>, DaemonError> {
    let message =
        |pod_sandbox_metrics| cri::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
    Ok(lists::parts(listed(&runtime).await?, message))
}

async fn listed(runtime: &Runtime) -> Result<Vec<cri::PodSandboxMetrics>, DaemonError> {
    let details = runtime.details().await?;
    Ok(details.pods.iter().map(|found| pod(found, &details)).collect())
}

fn pod(found: &PodDetail, details: &Details) -> cri::PodSandboxMetrics {
    let container_metrics =
        (found.seen.containers.iter().zip(&found.containers)).map(|(seen, detail)| {
            cri::ContainerMetrics {
                container_id: seen.container.record.id.to_string(),
                metrics: series(
                    &Seen::container(seen, detail, details),
                    &of_container(found, seen),
                ),
            }
        });
    let mut metrics = series(&Seen::pod(found), &of_pod(found, ""));
    metrics.extend(series(&Seen::network(found), &of_pod(found, POD)));
    cri::PodSandboxMetrics {
        pod_sandbox_id: found.seen.pod.record.id.to_string(),
        container_metrics: container_metrics.collect(),
        metrics,
    }
}

/// Everything that can be told of what was seen.
fn series(seen: &Seen<'_>, labels: &[String; 6]) -> Vec<cri::Metric> {
    let one = |metric: &Metric, (more, value): (Vec<String>, u64)| cri::Metric {
        name: metric.name.to_owned(),
        timestamp: 0,
        metric_type: metric.kind.into(),
        label_values: labels.iter().cloned().chain(more).collect(),
        value: Some(cri::UInt64Value { value }),
    };
    let all = |metric: &'static Metric| {
        let values = (metric.values)(seen);
        values.into_iter().map(move |value| one(metric, value))
    };
    ALL.iter().flat_map(all).collect()
}

/// A container's labels, in the order of [`LABELS`].
fn of_container(pod: &PodDetail, seen: &shim_runtime::stats::ContainerUse) -> [String; 6] {
    let record = &seen.container.record;
    let metadata = &pod.seen.pod.record.config.metadata;
    [
        record.config.metadata.name.clone(),
        record.cgroup.to_string(),
        record.image_name.clone(),
        record.id.to_string(),
        metadata.namespace.clone(),
        metadata.name.clone(),
    ]
}

/// A pod's labels; it has no image, and no name of a container.
fn of_pod(pod: &PodDetail, container: &str) -> [String; 6] {
    let record = &pod.seen.pod.record;
    let name = if container.is_empty() { String::new() } else { record.id.to_string() };
    [
        container.to_owned(),
        record.cgroup.to_string(),
        String::new(),
        name,
        record.config.metadata.namespace.clone(),
        record.config.metadata.name.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::table::ALL;
    use super::values::Seen;
    use super::{LABELS, descriptors, series};
    use shim_model::cgroup::counters::{Counters, DeviceUse};
    use shim_model::cgroup::stats::{Pressure, Stats};
    use shim_model::interfaces::Interface;
    use shim_runtime::stats::detail::Details;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_the_names_that_kubelets_show() {
        let found = descriptors().descriptors;
        let names: BTreeSet<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((found.len(), names.len()), (56, 56));
        for one in &found {
            assert!(one.help.len() > 10 && one.help.ends_with('.'), "{}", one.name);
            let keys: BTreeSet<&String> = one.label_keys.iter().collect();
            assert!(keys.len() == one.label_keys.len() && keys.len() >= LABELS.len());
        }
    }

    #[test]
    fn labels_and_values_are_as_many_as_keys() {
        let everything = Counters {
            devices: [((8, 0), DeviceUse::default())].into(),
            huge_pages: [("2MB".to_owned(), (1, Some(2)))].into(),
            own_faults: Some(1),
            own_major_faults: Some(1),
            ..Counters::default()
        };
        let pressure = Some(Pressure::default());
        let stats = Stats {
            cpu_pressure: pressure,
            memory_pressure: pressure,
            io_pressure: pressure,
            ..Stats::nothing()
        };
        let interfaces = [Interface { name: "eth0".to_owned(), ..Interface::default() }];
        let details = Details::default();
        let seen = Seen {
            stats: Some(&stats),
            counters: Some(&everything),
            container: None,
            interfaces: &interfaces,
            node: Some(&details),
            started: None,
        };
        let labels = LABELS.map(str::to_owned);
        let found = series(&seen, &labels);
        let keys = descriptors().descriptors;
        for one in &found {
            let known = keys.iter().find(|known| known.name == one.name).unwrap();
            assert_eq!(one.label_values.len(), known.label_keys.len(), "{}", one.name);
        }
        let unique: BTreeSet<_> = found.iter().map(|one| (&one.name, &one.label_values)).collect();
        assert_eq!(unique.len(), found.len());
        let told: BTreeSet<&str> = found.iter().map(|one| one.name.as_str()).collect();
        let silent: Vec<_> = ALL.iter().filter(|one| !told.contains(one.name)).collect();
        // What a container alone has, and what was not counted above.
        assert!(silent.iter().all(|one| !one.name.contains("network")), "{silent:?}");
    }
}
