//! What a monitor is told to do by a handler's program. Plain data; part of the wire since version 2. A
//! monitor knows no program by name: how one is treated is decided here.

use crate::host::CgroupLayout;
use crate::id::ContainerId;
use crate::plan::PidNamespace;
use crate::wire::CgroupFds;
use serde::{Deserialize, Serialize};
use std::ffi::CString;

/// Which program it is, as far as that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// crun: can leave cgroups alone.
    Crun,
    /// runc: joins groups that are there, and sub-groups of them for commands.
    Runc,
    /// Anything else that knows the commands of runc.
    Other,
}

/// In which of a container's groups a program runs, from its first instruction on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In none: it joins them by their path.
    #[default]
    Outside,
    /// In the v2 group beside v1 ones, which not every program knows.
    Unified,
    /// In all.
    Groups,
}

/// A program, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path on the node.
    pub path: CString,
    /// Its options before every command.
    pub options: Vec<CString>,
    /// Which groups it runs in; what it makes stays there, unless it moves it.
    pub place: Place,
    /// It is not shown the v2 hierarchy beside v1 ones.
    pub hide_v2: bool,
    /// Its `exec` takes `--cgroup` with this before the name of the sub-group.
    pub sub_group: Option<CString>,
    /// The mount that holds the bundle: private in the program's view, so that what is attached to the
    /// bundle travels nowhere.
    pub mount: CString,
}

/// How a program deals with cgroups: the container's groups are made, limited and removed by us, whatever
/// it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Further options before every command.
    pub options: Vec<String>,
    /// See [`Program`].
    pub place: Place,
    /// See [`Program`].
    pub hide_v2: bool,
    /// See [`Program`].
    pub sub_group: Option<String>,
}

/// The habits of a kind of program on a node.
///
/// crun is put into the groups and told to leave them alone. runc has no such option: it joins the groups by
/// their path, which must be empty until then, so it runs outside of them; others are taken to do as runc does.
/// A v2 hierarchy beside v1 ones, where the sub-groups of commands are, is left to us by all: they are cloned
/// into the group and are not shown the hierarchy. crun would refuse to work beside it, runc would move
/// commands out of their sub-group.
pub fn habits(kind: Kind, layout: CgroupLayout) -> Habits {
    let hide_v2 = layout == CgroupLayout::Hybrid;
    let place = if hide_v2 { Place::Unified } else { Place::Outside };
    match (kind, layout) {
        (Kind::Crun, _) => Habits {
            options: vec!["--cgroup-manager".to_owned(), "disabled".to_owned()],
            place: Place::Groups,
            hide_v2,
            sub_group: None,
        },
        (Kind::Runc, CgroupLayout::V1) => {
            Habits { sub_group: Some("freezer:".to_owned()), ..Habits::default() }
        }
        (Kind::Runc, CgroupLayout::V2) => {
            Habits { sub_group: Some(String::new()), ..Habits::default() }
        }
        (Kind::Runc | Kind::Other, _) => Habits { place, hide_v2, ..Habits::default() },
    }
}

/// What is attached to a place in the bundle, where only the program and what it makes see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// The next detached mount of the message.
    Given,
    /// The pod's shared memory.
    PodShm,
    /// The pod's network namespace.
    Network,
    /// The pod's UTS namespace.
    Uts,
    /// The pod's IPC namespace.
    Ipc,
    /// The pod's own user namespace.
    User,
    /// A PID namespace that there is already.
    Pid(PidNamespace),
}

/// Start a container by a program. Descriptors: the log file; the cgroup descriptors; the node's mount,
/// network, UTS and IPC namespaces; the bundle; one for each [`Tree::Given`]. Further ones follow as with
/// `Start`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a descriptor or a stream is there"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartBy {
    /// Which container.
    pub container: ContainerId,
    /// The program.
    pub program: Program,
    /// Folder of the container, with `config.json`.
    pub bundle: CString,
    /// Absolute paths and what is attached there, in order.
    pub trees: Vec<(CString, Tree)>,
    /// Keep a pipe open as standard input; else it is /dev/null.
    pub stdin: bool,
    /// Close standard input after the first attached client.
    pub stdin_once: bool,
    /// It gets a terminal.
    pub tty: bool,
    /// Columns and rows of it; zero = not known.
    pub size: (u16, u16),
    /// Cgroup descriptors.
    pub cgroup: CgroupFds,
    /// How many descriptors follow in later messages.
    pub more: u16,
}

/// Run a command in a container that a program started. Descriptors: those of the streams that are asked
/// for, in the order of the fields. Waited for, the reply comes at its end, as for `Exec`; else when it
/// runs, as for `ExecStreamed`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a descriptor or a stream is there"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecBy {
    /// Which container.
    pub container: ContainerId,
    /// The process of the OCI spec, as text.
    pub process: Vec<u8>,
    /// The reply is how it ended.
    pub waited: bool,
    /// Kill it and everything it started after so many nanoseconds; 0 = never.
    pub timeout: u64,
    /// The read end of a pipe comes.
    pub stdin: bool,
    /// The write end of a pipe comes.
    pub stdout: bool,
    /// Another one comes.
    pub stderr: bool,
    /// It gets a terminal.
    pub tty: bool,
    /// Columns and rows of it; zero = not known.
    pub size: (u16, u16),
}

#[cfg(test)]
mod tests {
    use super::{Kind, Place, habits};
    use crate::host::CgroupLayout::{Hybrid, V1, V2};

    #[test]
    fn commands_are_in_their_own_group_whoever_runs_them() {
        for layout in [V1, Hybrid, V2] {
            let crun = habits(Kind::Crun, layout);
            assert_eq!((crun.place, crun.sub_group), (Place::Groups, None));
        }
        let runc = |layout| habits(Kind::Runc, layout);
        assert_eq!(runc(V1).sub_group.as_deref(), Some("freezer:"));
        assert_eq!(runc(V2).sub_group.as_deref(), Some(""));
        let hybrid = runc(Hybrid);
        assert_eq!((hybrid.place, hybrid.hide_v2, hybrid.sub_group), (Place::Unified, true, None));
        assert_eq!(habits(Kind::Other, Hybrid), runc(Hybrid));
        assert_eq!(habits(Kind::Other, V2), habits(Kind::Other, V1));
    }
}
