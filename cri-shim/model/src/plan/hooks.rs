//! Hooks of a container as steps (OCI runtime spec, `createContainer`): programs of the node that run in the
//! container's namespaces while its root is still a folder of the node's. For them, and only for them, the
//! container's mount namespace is a copy of the node's until the root is changed; what they are told is a
//! folder with the spec (`bundle`) and a state on their input. Their environment is the vendor's alone.

use super::{PlanFacts, Slot, Spread, Step};
use crate::kind::Refused;
use crate::limits;
use crate::spec::Built;
use crate::spec::mounts::c_string;
use std::ffi::CString;

/// Where the root is, below the bundle.
pub const ROOT: &str = "rootfs";

/// Attaches the root where hooks can see the node as well.
pub(super) fn prepare(
    slot: Slot,
    facts: &PlanFacts<'_>,
    steps: &mut Vec<Step>,
) -> Result<(), Refused> {
    let path = c_string("bundle", &format!("{}/{ROOT}", facts.bundle))?;
    steps.push(Step::NodeMounts { slot });
    steps.push(Step::AttachRootAt { slot: 0, spread: Spread::Slave, path });
    Ok(())
}

/// Runs them in order, after the mounts and before anything is hidden or made read-only: they may write.
pub(super) fn run(
    built: &Built,
    facts: &PlanFacts<'_>,
    steps: &mut Vec<Step>,
) -> Result<(), Refused> {
    let all = |texts: &[String]| -> Result<Vec<CString>, Refused> {
        texts.iter().map(|text| c_string("hooks", text)).collect()
    };
    for hook in &built.hooks {
        let most = u32::try_from(limits::HOOK_MOST.as_secs()).unwrap_or(u32::MAX);
        let usual = u32::try_from(limits::HOOK.as_secs()).unwrap_or(u32::MAX);
        steps.push(Step::Hook {
            path: c_string("hooks.path", &hook.path)?,
            argv: all(&hook.args)?,
            env: all(&hook.env)?,
            state: state(facts).into_bytes(),
            seconds: hook.timeout.unwrap_or(usual).min(most),
        });
    }
    Ok(())
}

/// The state of the OCI runtime spec. Its process is the hook's parent, whose number depends on where it is
/// looked at, so none is told: the specification asks for it from `created` on only.
fn state(facts: &PlanFacts<'_>) -> String {
    serde_json::json!({
        "ociVersion": "1.2.1",
        "id": facts.id.as_str(),
        "status": "creating",
        "bundle": facts.bundle,
    })
    .to_string()
}
