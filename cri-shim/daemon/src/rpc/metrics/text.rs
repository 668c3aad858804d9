//! The metrics of pods and containers as text, for scrapers that do not ask a kubelet: the same series as
//! over the CRI, each with its name and words once.

use super::table::{ALL, Metric};
use super::{LABELS, listed};
use crate::error::DaemonError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType as Kind;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use std::fmt;

/// All of it.
pub(crate) async fn text(runtime: &Runtime) -> Result<String, DaemonError> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Listed(listed(runtime).await?)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(DaemonError::Text)?;
    Ok(text)
}

#[derive(Debug)]
struct Listed(Vec<cri::PodSandboxMetrics>);

impl Listed {
    fn series(&self, name: &'static str) -> impl Iterator<Item = &cri::Metric> {
        let all = self.0.iter().flat_map(|pod| {
            let containers = pod.container_metrics.iter().flat_map(|one| &one.metrics);
            pod.metrics.iter().chain(containers)
        });
        all.filter(move |metric| metric.name == name)
    }
}

impl Collector for Listed {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &ALL {
            let mut series = self.series(metric.name).peekable();
            if series.peek().is_none() {
                continue;
            }
            // The format itself ends the names of counters with these letters.
            let counter = metric.name.strip_suffix("_total").filter(|_| is_counter(metric));
            let kind = if counter.is_some() { Kind::Counter } else { Kind::Gauge };
            let name = counter.unwrap_or(metric.name);
            let words = metric.help.trim_end_matches('.');
            let mut family = to.encode_descriptor(name, words, None, kind)?;
            for one in series {
                let keys = LABELS.iter().chain(metric.labels);
                let labels: Vec<(&str, &str)> =
                    keys.copied().zip(one.label_values.iter().map(String::as_str)).collect();
                let value = one.value.as_ref().map_or(0, |value| value.value);
                put(family.encode_family(&labels)?, kind, value)?;
            }
        }
        Ok(())
    }
}

fn is_counter(metric: &Metric) -> bool {
    metric.kind == cri::MetricType::Counter
}

fn put(to: MetricEncoder<'_>, kind: Kind, value: u64) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(to),
        _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(to),
    }
}

#[cfg(test)]
mod tests {
    use super::Listed;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use shim_proto::runtime_v1 as cri;

    #[test]
    fn series_are_written_with_their_labels() {
        let metric = |name: &str, more: &[&str], value| {
            let labels = ["c", "/kube/c", "im\"age", "id", "ns", "pod"];
            cri::Metric {
                name: name.to_owned(),
                label_values: labels.iter().chain(more).map(|text| (*text).to_owned()).collect(),
                value: Some(cri::UInt64Value { value }),
                ..cri::Metric::default()
            }
        };
        let pod = cri::PodSandboxMetrics {
            metrics: vec![
                metric("container_network_receive_bytes_total", &["eth0"], 7),
                metric("container_memory_failcnt", &[], 3),
            ],
            ..cri::PodSandboxMetrics::default()
        };
        let mut all = Registry::default();
        all.register_collector(Box::new(Listed(vec![pod])));
        let mut text = String::new();
        encode(&mut text, &all).unwrap();
        let labels = "container=\"c\",id=\"/kube/c\",image=\"im\\\"age\",name=\"id\",namespace=\"ns\",pod=\"pod\"";
        for line in [
            format!("container_network_receive_bytes_total{{{labels},interface=\"eth0\"}} 7"),
            format!("container_memory_failcnt{{{labels}}} 3"),
            "# TYPE container_network_receive_bytes counter".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
