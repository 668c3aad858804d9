//! The daemon's own metrics: what its rooms count while they work, as one type, and what is counted when
//! somebody asks. They are always counted, because that is a few additions; `http` shows them. Their names
//! begin with `wherry_`. Metrics of containers are not here (`rpc/metrics`).

use crate::error::DaemonError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use shim_model::phases::Phases;
use shim_model::sandbox::life::State as PodLife;
use shim_runtime::runtime::Runtime;
use shim_runtime::stats::disk::FsUse;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

/// Upper bounds of histograms, in seconds: a step of a start takes microseconds, a pull minutes.
const BOUNDS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    30.0, 120.0,
];

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    calls: Family<Call, Counter>,
    latency: Family<Method, Histogram>,
    phases: Family<Step, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    of: &'static str,
    phase: &'static str,
    plugin: String,
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

/// One for the process: every RPC counts, and none should have to be given the means.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    calls: Family::default(),
    latency: Family::new_with_constructor(histogram),
    phases: Family::new_with_constructor(histogram),
});

/// Counts a call that ended with a code, as the protocol spells it.
pub(crate) fn call(method: &'static str, code: &'static str, took: Duration) {
    METRICS.calls.get_or_create(&Call { method, code }).inc();
    METRICS.latency.get_or_create(&Method { method }).observe(took.as_secs_f64());
}

/// Counts the steps of something that was made.
pub(crate) fn phases(of: &'static str, phases: &Phases) {
    for step in &phases.0 {
        let plugin = step.phase.plugin().to_owned();
        let labels = Step { of, phase: step.phase.word(), plugin };
        let took = Duration::from_nanos(step.took).as_secs_f64();
        METRICS.phases.get_or_create(&labels).observe(took);
    }
}

/// The page.
pub(crate) async fn text(runtime: &Runtime) -> Result<String, DaemonError> {
    let disk = runtime.fs_use().await?;
    let mut text = String::new();
    encode(&mut text, &registry(Now { runtime: runtime.clone(), disk }))
        .map_err(DaemonError::Text)?;
    Ok(text)
}

/// Everything, in the order in which it is shown.
fn registry(now: Now) -> Registry {
    let mut all = Registry::with_prefix("wherry");
    let Metrics { calls, latency, phases } = &*METRICS;
    all.register("rpc", "Calls of the CRI and of our own API that ended", calls.clone());
    all.register("rpc_seconds", "How long those calls took", latency.clone());
    all.register(
        "phase_seconds",
        "How long steps of making pods and containers took",
        phases.clone(),
    );
    all.register_collector(Box::new(now));
    all
}

/// What is counted when somebody asks.
#[derive(Debug)]
struct Now {
    runtime: Runtime,
    disk: FsUse,
}

impl Collector for Now {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let runtime = &self.runtime;
        let counts = runtime.counts();
        for (name, help, value) in [
            ("pulls", "Pulls that brought an image", counts.pulls.get()),
            ("pulls_failed", "Pulls that did not", counts.pulls_failed.get()),
            ("starts", "Containers that were started", counts.starts.get()),
            ("ends", "Containers that ended", counts.ends.get()),
            ("out_of_memory", "Containers that memory ran out for", counts.out_of_memory.get()),
            ("log_lost_bytes", "Output that no log could take", counts.log_lost.get()),
            ("monitors_lost", "Monitors that died before their pods", counts.monitors_lost.get()),
            ("zygotes_lost", "Zygotes that had to be replaced", runtime.zygotes_lost()),
            ("listeners_lost", "Event streams that were too slow", runtime.listeners_lost()),
        ] {
            let counter = ConstCounter::new(value);
            let metric = to.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        self.gauges(&mut to)
    }
}

impl Now {
    fn gauges(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (runtime, disk) = (&self.runtime, &self.disk);
        let (pods, containers) = (runtime.sandboxes(), runtime.containers());
        let ready = pods.iter().filter(|pod| matches!(pod.state().life, PodLife::Ready { .. }));
        let running = containers.iter().filter(|container| container.is_running());
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("pods", "Pod sandboxes, ready or not", count(pods.len())),
            ("pods_ready", "Pod sandboxes that are ready", count(ready.count())),
            ("containers", "Containers in any state", count(containers.len())),
            ("containers_running", "Containers that run", count(running.count())),
            ("images", "Images", count(runtime.images().list().len())),
            ("layer_bytes", "Bytes of all layers of images", disk.images.0),
            (
                "writable_bytes",
                "Bytes of all writable layers, when they were counted last",
                disk.containers.0,
            ),
            (
                "network_ready",
                "1 if pods can have a network",
                u64::from(runtime.network().ready().ready),
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = to.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{call, phases};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use shim_model::phases::{Phase, Phases, Step};
    use std::time::Duration;

    #[test]
    fn calls_and_phases_are_counted_by_their_labels() {
        for _ in 0..2 {
            call("TestOnly", "NOT_FOUND", Duration::from_millis(3));
        }
        let step = Step { phase: Phase::Plugin("bridge".into()), begin: 1, took: 2_000_000 };
        phases("test", &Phases::of(vec![step]));
        let mut all = Registry::with_prefix("wherry");
        all.register("rpc", "calls", super::METRICS.calls.clone());
        all.register("rpc_seconds", "latency", super::METRICS.latency.clone());
        all.register("phase_seconds", "phases", super::METRICS.phases.clone());
        let mut text = String::new();
        encode(&mut text, &all).unwrap();
        for line in [
            "wherry_rpc_total{method=\"TestOnly\",code=\"NOT_FOUND\"} 2",
            "wherry_rpc_seconds_bucket{le=\"0.0025\",method=\"TestOnly\"} 0",
            "wherry_rpc_seconds_bucket{le=\"0.005\",method=\"TestOnly\"} 2",
            "wherry_phase_seconds_count{of=\"test\",phase=\"plugin\",plugin=\"bridge\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
