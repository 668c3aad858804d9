//! The verbose halves of statuses: JSON under the key `info`, with the names that people know from crictl
//! and other runtimes (`pid`, `config`, `runtimeSpec`), and what only we have: the plan in words, groups,
//! the network's result, how long each step took. Made when somebody asks, never on the way of a start.

use serde_json::{Value, json};
use shim_image::index::Image;
use shim_model::container::life::State;
use shim_model::phases::Phases;
use shim_model::plan::{InitPlan, Step};
use shim_model::sandbox::life::State as PodLife;
use shim_runtime::network::told::Told;
use shim_runtime::runtime::Runtime;
use shim_runtime::store::container::Container;
use shim_runtime::store::pod::Pod;
use std::collections::BTreeMap;

/// The map of a verbose answer.
type Info = BTreeMap<String, String>;

fn info(value: &Value) -> Info {
    BTreeMap::from([("info".to_owned(), value.to_string())])
}

/// What `crictl inspect` shows beside the status; `said` is what the program of another runtime says of it.
pub(crate) fn container(
    runtime: &Runtime,
    container: &Container,
    said: Option<Result<Value, String>>,
) -> Info {
    let (record, state) = (&container.record, container.state());
    let pid = match &state.life {
        State::Running { process, .. } => process.pid,
        State::Creating {} | State::Created {} | State::Exited { .. } => 0,
    };
    let spec = runtime.container_spec(container);
    info(&json!({
        "sandboxID": record.sandbox,
        "pid": pid,
        "args": spec.as_ref().ok().and_then(|spec| spec.pointer("/process/args")),
        "cgroupsPath": record.cgroup.to_string(),
        "cgroups": runtime.container_groups(container),
        "config": record.config,
        "runtimeSpec": spec.as_ref().ok(),
        "runtimeSpecMissing": spec.as_ref().err(),
        // One that another runtime runs has none.
        "plan": runtime.container_plan(container).map(|plan| plan_in_words(&plan)),
        "handlerState": said.map(|said| said.unwrap_or_else(Value::String)),
        "phases": phases(&state.timing),
        "record": record,
        "state": *state,
    }))
}

/// What `crictl inspectp` shows beside the status.
pub(crate) fn pod(runtime: &Runtime, pod: &Pod) -> Info {
    let (record, state) = (&pod.record, pod.state());
    let reason = match &state.life {
        PodLife::NotReady { reason, .. } => reason.as_str(),
        PodLife::Ready { .. } | PodLife::Starting {} => "",
    };
    // Where it has no first process, its monitor is the one to enter its namespaces by.
    let first = state.facts.pod_init.or(state.facts.monitor);
    let setup = &record.setup;
    let sysctls: BTreeMap<_, _> =
        setup.sysctls.iter().map(|(path, value)| (path.replace('/', "."), value)).collect();
    let maps = runtime.pod_maps(pod).unzip();
    let network = runtime.network_told(pod);
    info(&json!({
        "pid": first.map_or(0, |process| process.pid),
        "config": record.config,
        "runtimeHandler": record.config.runtime_handler,
        "runtimeSpec": {
            "ociVersion": "1.2.1",
            "hostname": setup.hostname,
            "linux": {
                "namespaces": runtime.pod_namespaces(pod),
                "uidMappings": maps.0,
                "gidMappings": maps.1,
                "cgroupsPath": record.cgroup.to_string(),
                "sysctl": sysctls,
            },
        },
        "cgroupsPath": record.cgroup.to_string(),
        "cgroups": runtime.pod_groups(pod),
        "network": network.as_ref().map(shown_network),
        "cniResult": network.and_then(|network| network.result),
        "reason": reason,
        "phases": phases(&state.facts.timing),
        "record": record,
        "state": *state,
    }))
}

/// What `crictl inspecti` shows beside the status.
pub(crate) fn image(runtime: &Runtime, image: &Image) -> Info {
    let pulled = runtime.pull_steps(&image.id);
    info(&json!({
        "chainID": image.chain.last(),
        "chain": image.chain,
        "imageSpec": runtime.image_spec(image),
        "config": image.config,
        "phases": pulled.as_ref().map(phases),
    }))
}

/// Each plugin, and how it was done.
fn shown_network(network: &Told) -> Value {
    let plugins = network.plugins.iter();
    let plugins = plugins.map(|(kind, done)| json!({"type": kind, "done": done.word()}));
    json!({"name": network.name, "plugins": plugins.collect::<Vec<_>>()})
}

/// A waterfall: what began when after the first, and how long it took.
fn phases(known: &Phases) -> Value {
    let first = known.0.first().map_or(0, |step| step.begin);
    let steps = known.0.iter().map(|step| {
        let after = u64::try_from(step.begin.saturating_sub(first)).unwrap_or_default();
        json!({"phase": step.phase.shown(), "afterMs": millis(after), "tookMs": millis(step.took)})
    });
    json!({
        "wholeMs": millis(known.whole()),
        "workMs": millis(known.work()),
        "steps": steps.collect::<Vec<_>>(),
    })
}

/// Milliseconds with three digits after the point.
fn millis(nanos: u64) -> Value {
    let micros = nanos / 1_000;
    let text = format!("{}.{:03}", micros / 1_000, micros % 1_000);
    text.parse::<serde_json::Number>().map_or(Value::Null, Value::Number)
}

/// A plan as people read it.
fn plan_in_words(plan: &InitPlan) -> Value {
    let words = |steps: &[Step]| steps.iter().map(shim_child::explain).collect::<Vec<_>>();
    json!({
        "sources": plan.sources.iter().map(|source| format!("{source:?}")).collect::<Vec<_>>(),
        "pidNamespace": format!("{:?}", plan.pid),
        "mounts": words(&plan.mounts),
        "process": words(&plan.process),
        "program": plan.program.candidates.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::phases;
    use shim_model::phases::{Phase, Phases, Step};

    #[test]
    fn phases_are_a_waterfall_in_milliseconds() {
        let step = |phase, begin, took| Step { phase, begin, took };
        let known = Phases::of(vec![
            step(Phase::Plugin("bridge".into()), 3_000_000, 1_234_567),
            step(Phase::Namespace, 1_000_000, 500),
        ]);
        let shown = phases(&known).to_string();
        let wanted = r#"{"steps":[{"afterMs":0.000,"phase":"namespace","tookMs":0.000},{"afterMs":2.000,"phase":"plugin bridge","tookMs":1.234}],"wholeMs":3.234,"workMs":1.235}"#;
        let plain = |text: &str| text.replace(".000", ".0");
        assert_eq!(plain(&shown), plain(wanted));
    }
}
