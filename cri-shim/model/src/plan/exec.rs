//! A further process in a running container: its process chapter with another command. Pure; the
//! container's plan is the only input, so an exec cannot differ from its container.

use super::{ExecPlan, InitPlan, Step, process};
use crate::kind::Refused;
use crate::limits;
use crate::spec::process::TERM;
use std::ffi::CString;

/// The plan of a command in the container that `init` made.
pub fn exec(init: &InitPlan, command: &[String]) -> Result<ExecPlan, Refused> {
    bounded(command)?;
    let program = process::candidates(command, init.program.env.clone())?;
    Ok(ExecPlan { process: init.process.clone(), program })
}

/// Refuses a command that execve(2) would.
pub fn bounded(command: &[String]) -> Result<(), Refused> {
    if command.first().is_none_or(String::is_empty) {
        return Err(Refused::new("cmd", "nothing", "a command"));
    }
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
    if command.iter().any(|arg| arg.contains('\0')) {
        return Err(Refused::new("cmd", "a NUL byte", "text without NUL"));
    }
    Ok(())
}

/// The same with a terminal of this many columns and rows; zero = not known.
pub fn with_terminal(mut plan: ExecPlan, (columns, rows): (u16, u16)) -> ExecPlan {
    // First of all: the devpts is looked for as the container has it, with the runtime's own rights.
    plan.process.insert(0, Step::Terminal { columns, rows });
    let is_known = |entry: &CString| entry.to_bytes().starts_with(b"TERM=");
    if !plan.program.env.iter().any(is_known) {
        plan.program.env.extend(CString::new(format!("TERM={TERM}")).ok());
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::{exec, with_terminal};
    use crate::container::config::{ContainerConfig, Mount};
    use crate::host::Host;
    use crate::id::ContainerId;
    use crate::image::ImageConfig;
    use crate::labels::Labels;
    use crate::plan::{InitPlan, Module, PlanFacts, Step, init};
    use crate::sandbox::config::{Metadata, SandboxConfig};
    use crate::seccomp::compile::Filter;
    use crate::seccomp::tree::Instruction;
    use crate::spec::{self, SpecInput};
    use crate::users::User;
    use std::collections::BTreeSet;

    fn plan_of(container: &ContainerConfig) -> InitPlan {
        labelled(container, &Labels::default())
    }

    fn labelled(container: &ContainerConfig, labels: &Labels) -> InitPlan {
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
            labels,
        };
        let built = spec::build(&input).unwrap();
        let allow = Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
        let filter = Filter { instructions: vec![allow], log: true, skipped: BTreeSet::new() };
        let id = ContainerId::from_random([7; 32]);
        let facts = PlanFacts { seccomp: Some(&filter), target: None, id: &id, bundle: "/b" };
        init(&input, &built, &facts).unwrap()
    }

    #[test]
    fn the_plan_of_an_ordinary_container() {
        insta::assert_debug_snapshot!(plan_of(&ContainerConfig::default()));
    }

    #[test]
    fn labels_are_told_before_the_keyring_is_made_and_rights_go() {
        let own = |text: &str| Some(text.to_owned());
        let labels =
            Labels { apparmor: own("web"), process: own("u:r:t:s0"), files: own("u:o:f:s0") };
        let config = ContainerConfig { no_new_privs: true, ..ContainerConfig::default() };
        let plan = labelled(&config, &labels);
        let label =
            |module, label: &std::ffi::CStr| Step::Label { module, label: label.to_owned() };
        let told = [label(Module::AppArmor, c"web"), label(Module::Selinux, c"u:r:t:s0")];
        assert_eq!(plan.process[1..3], told);
        assert_eq!(plan.process[3], Step::Keyring);
        assert_eq!(exec(&plan, &["ls".to_owned()]).unwrap().process[1..3], told);
        let context = |step: &Step| match step {
            Step::NewFs { fstype, options, .. } => {
                let found = options.iter().find(|(key, _)| key.as_c_str() == c"context");
                Some((
                    fstype.to_string_lossy().into_owned(),
                    found.and_then(|(_, label)| label.clone()),
                ))
            }
            _ => None,
        };
        let mut seen = plan.mounts.iter().filter_map(context).collect::<Vec<_>>();
        seen.sort();
        seen.dedup();
        let files = Some(c"u:o:f:s0".to_owned());
        for (fstype, label) in seen {
            let wanted = matches!(fstype.as_str(), "tmpfs" | "devpts" | "mqueue");
            assert_eq!(label, files.clone().filter(|_| wanted), "{fstype}");
        }
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

    #[test]
    fn a_terminal_is_made_last_before_the_pivot_and_first_in_an_exec() {
        let tty = ContainerConfig { tty: true, ..ContainerConfig::default() };
        let plan = plan_of(&tty);
        let terminal = Step::Terminal { columns: 0, rows: 0 };
        assert!(plan.mounts.ends_with(&[terminal, Step::Console, Step::Pivot]));
        assert!(plan.program.env.contains(&c"TERM=xterm".to_owned()));
        let plain = plan_of(&ContainerConfig::default());
        assert!(!plain.program.env.iter().any(|entry| entry.to_bytes().starts_with(b"TERM=")));
        let command = exec(&plain, &["ls".to_owned()]).unwrap();
        let command = with_terminal(command, (80, 24));
        assert_eq!(command.process[0], Step::Terminal { columns: 80, rows: 24 });
        assert_eq!(command.process[1..], plain.process);
        assert_eq!(command.program.env.last(), Some(&c"TERM=xterm".to_owned()));
    }

    #[test]
    fn a_console_is_bound_only_in_a_folder_of_ours() {
        for path in ["/dev", "/dev/console"] {
            let mount =
                Mount { container_path: path.into(), host_path: "/dev".into(), ..Mount::default() };
            let tty = ContainerConfig { tty: true, mounts: vec![mount], ..Default::default() };
            let plan = plan_of(&tty);
            assert!(plan.mounts.contains(&Step::Terminal { columns: 0, rows: 0 }));
            assert!(!plan.mounts.contains(&Step::Console), "{path}");
        }
    }
}
