//! The order of credentials. Without `no_new_privs` the filter needs `CAP_SYS_ADMIN`, so it comes
//! before capabilities go; with it, the filter comes last, after everything it might forbid.

use super::{PlanFacts, Step};
use crate::kind::Refused;
use crate::plan::CapabilitySets;
use crate::spec::{SpecInput, security};
use std::ffi::CString;

/// Credentials, working folder, filter, and the check that all of it took effect.
pub(super) fn steps(
    input: &SpecInput<'_>,
    facts: &PlanFacts<'_>,
    cwd: CString,
) -> Result<Vec<Step>, Refused> {
    let sets = security::sets(input.container, security::may(input.host, input.setup))?;
    let (uid, gid) = (input.user.uid, input.user.gid);
    let no_new_privs = input.container.no_new_privs;
    let filter =
        facts.seccomp.map(|filter| Step::Seccomp { filter: filter.to_bytes(), log: filter.log });
    // Capabilities of a process whose user is not root are lost when the user changes (capabilities(7)),
    // and an exec as another user gives none: only the ambient set would survive.
    let kept = if uid == 0 {
        sets
    } else {
        CapabilitySets { effective: sets.ambient, permitted: sets.ambient, ..sets }
    };
    let mut steps = Vec::new();
    if no_new_privs {
        steps.push(Step::NoNewPrivs);
    } else {
        steps.extend(filter.clone());
    }
    steps.push(Step::Bounding(sets.bounding));
    steps.push(Step::User { uid, gid, groups: input.user.groups.clone() });
    steps.push(Step::Capabilities(kept));
    steps.push(Step::Chdir(cwd));
    steps.push(Step::Verify { uid, gid, capabilities: kept, no_new_privs });
    if no_new_privs {
        steps.extend(filter);
    }
    Ok(steps)
}
