//! What a step of a plan does, in words: for the message that names the one that failed, and for whoever
//! wants to see a plan. Pure. The
//! steps themselves are carried out by `walk.rs` and `mounts.rs`.

use shim_model::plan::{Module, Step};
use std::ffi::CStr;

fn text(path: &CStr) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}

/// The step as a person would say it: `mount proc at /proc`.
pub fn explain(step: &Step) -> String {
    match step {
        Step::CgroupNamespace => "make a cgroup namespace".to_owned(),
        Step::AttachRoot { .. } => "attach the root file system".to_owned(),
        Step::Bind { target, .. } => format!("bind a mount at {}", text(target)),
        Step::NewFs { fstype, target, .. } => {
            format!("mount {} at {}", text(fstype), text(target))
        }
        Step::PodShm { target } => format!("bind the pod's shared memory at {}", text(target)),
        Step::Folder { path, .. } => format!("make the folder {}", text(path)),
        Step::Link { path, to } => format!("link {} to {}", text(path), text(to)),
        Step::Device { path, major, minor, .. } => {
            format!("make the device {} ({major}:{minor})", text(path))
        }
        Step::Mask { path } => format!("mask {}", text(path)),
        Step::ReadonlyPath { path } => format!("make {} read-only", text(path)),
        Step::ReadonlyRoot => "make the root file system read-only".to_owned(),
        Step::Pivot => "change to the root file system".to_owned(),
        Step::OomScoreAdj(score) => format!("set the out-of-memory score to {score}"),
        Step::Rlimit(limit) => format!("set resource limit {}", limit.resource),
        Step::Session => "begin a session".to_owned(),
        Step::Keyring => "make a session keyring".to_owned(),
        Step::Umask(mask) => format!("set the umask to {mask:04o}"),
        Step::NoNewPrivs => "give up new privileges".to_owned(),
        Step::Bounding(_) => "limit the capability bounding set".to_owned(),
        Step::User { uid, gid, .. } => format!("become user {uid}:{gid}"),
        Step::Capabilities(_) => "set capabilities".to_owned(),
        Step::Chdir(path) => format!("change to the working folder {}", text(path)),
        Step::Seccomp { .. } => "install the seccomp filter".to_owned(),
        Step::Verify { .. } => "read back the credentials".to_owned(),
        Step::Terminal { .. } => "make a terminal of /dev/pts".to_owned(),
        Step::Console => "bind the terminal at /dev/console".to_owned(),
        Step::NodeMounts { .. } => "copy the node's mount namespace".to_owned(),
        Step::AttachRootAt { path, .. } => {
            format!("attach the root file system at {}", text(path))
        }
        Step::Label { module: Module::AppArmor, label } => {
            format!("take the AppArmor profile {}", text(label))
        }
        Step::Label { module: Module::Selinux, label } => {
            format!("take the SELinux context {}", text(label))
        }
        Step::Hook { path, .. } => format!("run the hook {}", text(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::explain;
    use shim_model::plan::{Attributes, Step};

    #[test]
    fn a_step_is_told_with_its_target() {
        let step = Step::NewFs {
            fstype: c"proc".to_owned(),
            source: c"proc".to_owned(),
            options: vec![],
            attributes: Attributes::default(),
            target: c"/proc".to_owned(),
        };
        assert_eq!(explain(&step), "mount proc at /proc");
        assert_eq!(explain(&Step::Umask(0o22)), "set the umask to 0022");
    }
}
