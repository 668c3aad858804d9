//! What a seccomp profile says, once it has been read and checked (`parse.rs`) or written by hand
//! (`default.rs`): actions, conditions, rules. Names of system calls are still text here; `compile.rs`,
//! which knows the machine, judges them.

/// What happens to a system call; the strictest comes first, as the kernel ranks them (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Ends the process.
    KillProcess,
    /// Ends the thread.
    KillThread,
    /// SIGSYS.
    Trap,
    /// Fails with this errno.
    Errno(u16),
    /// Asks a tracer, with this message; without one it is ENOSYS.
    Trace(u16),
    /// Allows and logs.
    Log,
    /// Allows.
    Allow,
}

impl Action {
    /// How strict, 0 = most; two errnos are equally strict.
    pub const fn rank(self) -> u8 {
        match self {
            Self::KillProcess => 0,
            Self::KillThread => 1,
            Self::Trap => 2,
            Self::Errno(_) => 3,
            Self::Trace(_) => 4,
            Self::Log => 5,
            Self::Allow => 6,
        }
    }

    /// The value that a filter returns (`SECCOMP_RET_…`, linux/seccomp.h).
    pub fn value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// `argument != value`
    NotEqual(u64),
    /// `argument < value`
    Less(u64),
    /// `argument <= value`
    LessOrEqual(u64),
    /// `argument == value`
    Equal(u64),
    /// `argument >= value`
    GreaterOrEqual(u64),
    /// `argument > value`
    Greater(u64),
    /// `argument & mask == value`
    Masked { mask: u64, value: u64 },
}

/// One condition on one argument; numbers are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// The comparison.
    pub test: Test,
}

/// Which calling conventions a profile speaks of, by their names (`SCMP_ARCH_…`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Architectures {
    /// These, and the machine's own.
    Listed(Vec<String>),
    /// Of the entry for the machine, its sub-architectures.
    Mapped(Vec<(String, Vec<String>)>),
}

/// When a rule counts; every part must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// All of these capabilities are in the container's bounding set.
    pub with_capabilities: u64,
    /// None of these is.
    pub without_capabilities: u64,
    /// The machine is one of these (`amd64`), if there are any.
    pub on: Vec<String>,
    /// It is none of these.
    pub not_on: Vec<String>,
    /// The kernel is at least this.
    pub from_kernel: Option<(u32, u32)>,
    /// The kernel is older than this.
    pub before_kernel: Option<(u32, u32)>,
}

/// Calls, what happens to them, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names of the calls.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Sets of conditions: one set must hold, and in it all. Empty = always.
    pub any_of: Vec<Vec<Condition>>,
    /// When the rule counts.
    pub scope: Scope,
}

/// A profile that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What happens to a call that no rule matches.
    pub default: Action,
    /// Calling conventions.
    pub architectures: Architectures,
    /// The rules.
    pub rules: Vec<Rule>,
    /// `SECCOMP_FILTER_FLAG_LOG`: whatever is not allowed may be logged.
    pub log: bool,
}
