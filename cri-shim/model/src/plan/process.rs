//! The process chapter of a spec to steps: limits, session, then the order of credentials that
//! `plan/security` decides. Everything in here is also what an exec walks, so nothing of it mounts.

use super::{Module, PlanFacts, Program, Step, security};
use crate::kind::Refused;
use crate::spec::mounts::c_string;
use crate::spec::{Built, SpecInput};
use std::ffi::CString;

/// Steps after the pivot.
pub(super) fn steps(
    input: &SpecInput<'_>,
    built: &Built,
    facts: &PlanFacts<'_>,
) -> Result<Vec<Step>, Refused> {
    let mut steps = vec![Step::Session];
    steps.extend(labels(built)?);
    steps.extend([Step::Keyring, Step::Umask(0o022)]);
    steps.extend(built.rlimits.iter().copied().map(Step::Rlimit));
    let cwd =
        built.spec.process().as_ref().map(|process| process.cwd().to_string_lossy().into_owned());
    let cwd = c_string("config.working_dir", cwd.as_deref().unwrap_or("/"))?;
    steps.extend(security::steps(input, facts, cwd)?);
    Ok(steps)
}

/// What security modules are told. It takes effect at exec only, and comes before rights go: a module may ask
/// for some, and under `no_new_privs` a confined runtime may change its label no more.
fn labels(built: &Built) -> Result<Vec<Step>, Refused> {
    let process = built.spec.process().as_ref();
    let profile = process.and_then(|process| process.apparmor_profile().as_deref());
    let context = process.and_then(|process| process.selinux_label().as_deref());
    let told = [(Module::AppArmor, profile), (Module::Selinux, context)];
    let told = told.into_iter().filter_map(|(module, label)| Some((module, label?)));
    told.map(|(module, label)| Ok(Step::Label { module, label: c_string("process", label)? }))
        .collect()
}

/// The program of a spec.
pub(super) fn program(built: &Built) -> Result<Program, Refused> {
    let argv = built
        .spec
        .process()
        .as_ref()
        .and_then(|process| process.args().clone())
        .unwrap_or_default();
    let env = built
        .env
        .iter()
        .map(|(key, value)| {
            let mut entry = format!("{key}=").into_bytes();
            entry.extend_from_slice(value);
            CString::new(entry).map_err(|_nul| {
                Refused::new(format!("config.envs[{key}]"), "a NUL byte", "text without NUL")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    candidates(&argv, env)
}

/// A program with its candidates: the name as it is if it has a slash, else below each folder of the
/// environment's `PATH` (execvp(3); an empty folder means the working folder).
pub(super) fn candidates(argv: &[String], env: Vec<CString>) -> Result<Program, Refused> {
    let name = argv.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refused::new("cmd", "nothing", "a command"))?;
    let path = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let path = String::from_utf8_lossy(path.unwrap_or_default()).into_owned();
    let candidates = if name.contains('/') {
        vec![c_string("cmd", name)?]
    } else {
        path.split(':')
            .map(|folder| {
                c_string("cmd", &format!("{}/{name}", if folder.is_empty() { "." } else { folder }))
            })
            .collect::<Result<_, _>>()?
    };
    let argv = argv.iter().map(|arg| c_string("cmd", arg)).collect::<Result<_, _>>()?;
    Ok(Program { candidates, argv, env })
}
