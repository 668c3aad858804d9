//! A further process in a running container: its process chapter with another command. Pure; the
//! container's plan is the only input, so an exec cannot differ from its container.

use super::{ExecPlan, InitPlan, process};
use crate::kind::Refused;
use crate::limits;

/// The plan of a command in the container that `init` made.
pub fn exec(init: &InitPlan, command: &[String]) -> Result<ExecPlan, Refused> {
    let total: usize = command.iter().map(String::len).sum();
    if total > limits::ARGUMENTS_BYTES
        || command.iter().any(|arg| arg.len() > limits::ARGUMENT_BYTES)
    {
        return Err(Refused::new(
            "cmd",
            format!("{total} bytes"),
            "131072 bytes in one and 2097152 together",
        ));
    }
    let program = process::candidates(command, init.program.env.clone())?;
    Ok(ExecPlan { process: init.process.clone(), program })
}

#[cfg(test)]
mod tests {
    use super::exec;
    use crate::container::config::ContainerConfig;
    use crate::host::Host;
    use crate::image::ImageConfig;
    use crate::plan::{InitPlan, PlanFacts, Step, init};
    use crate::sandbox::config::{Metadata, SandboxConfig};
    use crate::seccomp::compile::Filter;
    use crate::seccomp::tree::Instruction;
    use crate::spec::{self, SpecInput};
    use crate::users::User;
    use std::collections::BTreeSet;

    fn plan_of(container: &ContainerConfig) -> InitPlan {
        let metadata =
            Metadata { name: "web".into(), uid: "u".into(), namespace: "ns".into(), attempt: 0 };
        let sandbox = SandboxConfig {
            metadata,
            privileged: container.privileged,
            ..SandboxConfig::default()
        };
        let host = Host::example();
        let setup = crate::sandbox::plan::plan(&sandbox, &host).unwrap();
        let image = ImageConfig {
            cmd: vec!["sh".into()],
            volumes: vec!["/data".into()],
            ..ImageConfig::default()
        };
        let user = User { home: "/root".into(), groups: vec![0], ..User::default() };
        let input = SpecInput {
            sandbox: &sandbox,
            setup: &setup,
            container,
            image: &image,
            user: &user,
            host: &host,
            cgroup_path: "/wherry/c",
            devices: &[],
        };
        let built = spec::build(&input).unwrap();
        let allow = Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
        let filter = Filter { instructions: vec![allow], log: true, skipped: BTreeSet::new() };
        init(&input, &built, &PlanFacts { seccomp: Some(&filter), target: None }).unwrap()
    }

    #[test]
    fn the_plan_of_an_ordinary_container() {
        insta::assert_debug_snapshot!(plan_of(&ContainerConfig::default()));
    }

    #[test]
    fn the_filter_comes_last_only_with_no_new_privs() {
        let place =
            |plan: &InitPlan, want: fn(&Step) -> bool| plan.process.iter().position(want).unwrap();
        let early = plan_of(&ContainerConfig::default());
        let late = plan_of(&ContainerConfig { no_new_privs: true, ..ContainerConfig::default() });
        assert!(
            place(&early, |s| matches!(s, Step::Seccomp { .. }))
                < place(&early, |s| matches!(s, Step::Bounding(_)))
        );
        assert!(matches!(late.process.last(), Some(Step::Seccomp { .. })));
    }

    #[test]
    fn privileged_has_neither_masks_nor_a_cgroup_namespace() {
        let config = ContainerConfig {
            privileged: true,
            masked_paths: vec!["/proc/kcore".into()],
            ..ContainerConfig::default()
        };
        let plan = plan_of(&config);
        assert!(!plan.mounts.iter().any(|step| matches!(
            step,
            Step::Mask { .. } | Step::ReadonlyPath { .. } | Step::CgroupNamespace
        )));
    }

    #[test]
    fn an_exec_walks_what_its_container_walked() {
        let plan = plan_of(&ContainerConfig::default());
        let command = exec(&plan, &["ls".to_owned(), "-l".to_owned()]).unwrap();
        assert_eq!(command.process, plan.process);
        assert!(command.program.candidates.contains(&c"/bin/ls".to_owned()));
        assert!(exec(&plan, &[]).is_err());
    }
}
