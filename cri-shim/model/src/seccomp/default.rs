//! The built-in profile: what a container gets that asks for the runtime's default. It permits the calls
//! that the common default of Docker and containerd permits, by the container's capabilities and the
//! kernel, and answers EPERM to the rest; programs that ran there run here.
//!
//! It is stricter where a hole was found in 2026: kernel crypto sockets (`AF_ALG`) wrote into the page
//! cache that pods share. The family is compared in the 32 bits that the kernel reads, so that a number
//! with higher bits set does not pass; and 32-bit x86 makes no sockets through `socketcall`, whose
//! arguments lie in memory where no filter sees them (`socket` itself is there since Linux 4.3). A 32-bit
//! program that knows only `socketcall` needs a profile of its own.

use super::compile::{Filter, SeccompFacts, compile};
use super::names::Machine;
use super::profile::{Action, Architectures, Condition, Profile, Rule, Scope, Test};
use crate::kind::Refused;
use crate::spec::security;

/// What every container may call, in the order of the alphabet.
const ALWAYS: &str = "\
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect \
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod \
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr \
    flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate \
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat \
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid \
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid \
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr \
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel \
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise \
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat \
    mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat \
    _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc \
    pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink \
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
    signalfd4 sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount \
    statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times \
    tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat \
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// What a capability adds. Each row: the capability, calls.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// What belongs to one machine.
const BY_MACHINE: [(Machine, &str); 2] = [
    (Machine::X86_64, "arch_prctl modify_ldt"),
    (
        Machine::Aarch64,
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
];

/// Personalities that change nothing about security: Linux, `PER_LINUX32`, both with `UNAME26`, and the
/// question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `CLONE_NEW…` of every namespace but time (linux/sched.h).
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// `AF_ALG` and `AF_VSOCK`: kernel crypto, and the way to the hypervisor past every network policy.
const FORBIDDEN_FAMILIES: [u64; 2] = [38, 40];
/// `AF_MCTP`, the last family (linux/socket.h).
const LAST_FAMILY: u64 = 45;
/// `SYS_SENDMMSG` of socketcall(2), the last one.
const LAST_SOCKET_CALL: u64 = 20;
/// `SYS_SOCKET` of socketcall(2).
const MAKE_SOCKET: u64 = 1;
/// The bits of an `int` argument.
const INT: u64 = 0xffff_ffff;
const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// The filter of a container that asks for the default.
pub fn filter(facts: &SeccompFacts) -> Result<Filter, Refused> {
    compile(&profile(), facts)
}

/// The built-in profile, for every machine, kernel and set of capabilities.
pub fn profile() -> Profile {
    with(by_argument())
}

fn with(by_argument: Vec<Rule>) -> Profile {
    let mut rules = vec![rule(ALWAYS, Action::Allow)];
    // Before Linux 4.8 ptrace could change a call after the filter had seen it.
    let mut tracing = rule("process_vm_readv process_vm_writev ptrace", Action::Allow);
    tracing.scope.from_kernel = Some((4, 8));
    rules.push(tracing);
    rules.extend(BY_CAPABILITY.iter().map(|(name, calls)| {
        let mut rule = rule(calls, Action::Allow);
        rule.scope.with_capabilities = security::mask(name).unwrap_or(u64::MAX);
        rule
    }));
    rules.extend(BY_MACHINE.iter().map(|(machine, calls)| {
        let mut rule = rule(calls, Action::Allow);
        rule.scope.on = vec![machine.word().to_owned()];
        rule
    }));
    rules.extend(by_argument);
    rules.extend(without_admin());
    let pair = |machine: &str, others: &[&str]| {
        let word = |name: &str| format!("SCMP_ARCH_{name}");
        (word(machine), others.iter().map(|name| word(name)).collect())
    };
    let map = vec![pair("X86_64", &["X86", "X32"]), pair("AARCH64", &["ARM"])];
    Profile { default: EPERM, architectures: Architectures::Mapped(map), rules, log: false }
}

/// The same for whoever lets the most permissive of several rules count, or drops those that say what the
/// default says, as compilers of handlers' programs do: nothing is permitted and forbidden again, what is
/// permitted is listed. So families that no kernel has yet are not.
pub fn spelled() -> Profile {
    let values = |name: &str, values: Vec<u64>| {
        let mut rule = rule(name, Action::Allow);
        let test = |value| vec![Condition { argument: 0, test: Test::Masked { mask: INT, value } }];
        rule.any_of = values.into_iter().map(test).collect();
        rule
    };
    let families = (0..=LAST_FAMILY).filter(|family| !FORBIDDEN_FAMILIES.contains(family));
    let calls = (0..=LAST_SOCKET_CALL).filter(|call| *call != MAKE_SOCKET);
    with(vec![
        personality(),
        values("socket", families.collect()),
        values("socketcall", calls.collect()),
    ])
}

/// Calls that depend on their first argument.
fn by_argument() -> Vec<Rule> {
    let int = |value| vec![Condition { argument: 0, test: Test::Masked { mask: INT, value } }];
    let mut family = rule("socket", EPERM);
    family.any_of = FORBIDDEN_FAMILIES.map(int).into();
    let mut socketcall = rule("socketcall", EPERM);
    socketcall.any_of = vec![int(MAKE_SOCKET)];
    vec![personality(), rule("socket socketcall", Action::Allow), family, socketcall]
}

fn personality() -> Rule {
    let mut personality = rule("personality", Action::Allow);
    let equal = |value| vec![Condition { argument: 0, test: Test::Equal(value) }];
    personality.any_of = PERSONALITIES.map(equal).into();
    personality
}

/// Processes without `CAP_SYS_ADMIN` make no namespaces. clone3 hides its flags in memory, so it is as if
/// the kernel had none: C libraries go on with clone.
fn without_admin() -> [Rule; 2] {
    let flags = Test::Masked { mask: NEW_NAMESPACES, value: 0 };
    let mut clone = rule("clone", Action::Allow);
    clone.any_of = vec![vec![Condition { argument: 0, test: flags }]];
    [clone, rule("clone3", ENOSYS)].map(|mut rule| {
        rule.scope.without_capabilities = security::mask("SYS_ADMIN").unwrap_or_default();
        rule
    })
}

fn rule(names: &str, action: Action) -> Rule {
    Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action,
        any_of: Vec::new(),
        scope: Scope::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{Call, run};
    use super::{Filter, compile, filter, profile, spelled};
    use crate::seccomp::compile::SeccompFacts;
    use crate::seccomp::names::{Abi, Machine, exists};
    use crate::seccomp::profile::Action;
    use crate::spec::security;

    fn facts(capabilities: &[&str]) -> SeccompFacts {
        let capabilities = capabilities
            .iter()
            .filter_map(|name| security::mask(name))
            .fold(0, |set, bit| set | bit);
        SeccompFacts { machine: Machine::X86_64, kernel: (6, 1), capabilities }
    }

    fn answer(filter: &Filter, abi: Abi, name: &str, arguments: &[u64]) -> Action {
        let value = run(filter, &Call::of(abi, name, arguments)).0;
        let known = [Action::Allow, super::EPERM, super::ENOSYS, Action::KillProcess];
        known.into_iter().find(|action| action.value() == value).unwrap()
    }

    #[test]
    fn both_spellings_are_one_profile() {
        for capabilities in [&[][..], &["SYS_ADMIN"], &["SYS_PTRACE", "BPF"]] {
            let facts = facts(capabilities);
            let (own, spelled) = (filter(&facts).unwrap(), compile(&spelled(), &facts).unwrap());
            for name in ["socket", "socketcall", "socketpair", "clone", "clone3", "mount", "read"] {
                for first in [0, 1, 2, 10, 16, 38, 39, 40, 45, 0x1_0000_0026, 0x1000_0000] {
                    let abis = [Abi::X86_64, Abi::X86, Abi::X32];
                    for abi in abis.into_iter().filter(|abi| abi.number(name).is_some()) {
                        let call = Call::of(abi, name, &[first]);
                        // What no kernel has is not listed.
                        let past = |(call, last)| name == call && first & super::INT > last;
                        let beyond = [("socket", 45), ("socketcall", 20)].into_iter().any(past);
                        let same = run(&own, &call).0 == run(&spelled, &call).0;
                        assert!(same || beyond, "{name} {first:#x} {abi:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_name_is_a_call_of_linux() {
        let unknown: Vec<_> = profile()
            .rules
            .into_iter()
            .flat_map(|rule| rule.names)
            .filter(|n| !exists(n))
            .collect();
        assert_eq!(unknown, Vec::<String>::new());
    }

    #[test]
    fn every_capability_of_the_table_is_known() {
        assert!(super::BY_CAPABILITY.iter().all(|(name, _)| security::mask(name).is_some()));
    }

    #[test]
    fn capabilities_open_what_belongs_to_them() {
        let plain = filter(&facts(&[])).unwrap();
        let admin = filter(&facts(&["SYS_ADMIN"])).unwrap();
        for name in ["mount", "setns", "unshare", "bpf"] {
            assert_eq!(answer(&plain, Abi::X86_64, name, &[]), super::EPERM, "{name}");
            assert_eq!(answer(&admin, Abi::X86_64, name, &[]), Action::Allow, "{name}");
        }
        assert_eq!(answer(&plain, Abi::X86_64, "clone3", &[]), super::ENOSYS);
        assert_eq!(answer(&admin, Abi::X86_64, "clone3", &[]), Action::Allow);
    }

    #[test]
    fn a_thread_may_be_made_and_a_user_namespace_not() {
        let plain = filter(&facts(&[])).unwrap();
        assert_eq!(answer(&plain, Abi::X86_64, "clone", &[0x3d_0f00]), Action::Allow);
        assert_eq!(answer(&plain, Abi::X86_64, "clone", &[0x1000_0011]), super::EPERM);
        assert_eq!(answer(&plain, Abi::X86, "clone", &[0x1000_0011]), super::EPERM);
    }

    #[test]
    fn kernel_crypto_sockets_are_closed_on_every_way() {
        let plain = filter(&facts(&[])).unwrap();
        for abi in [Abi::X86_64, Abi::X32, Abi::X86] {
            assert_eq!(answer(&plain, abi, "socket", &[2, 1, 0]), Action::Allow);
            assert_eq!(answer(&plain, abi, "socket", &[39]), Action::Allow);
            assert_eq!(answer(&plain, abi, "socket", &[38, 5, 0]), super::EPERM);
            assert_eq!(answer(&plain, abi, "socket", &[40, 1, 0]), super::EPERM);
            // The kernel reads an int: higher bits do not make it another family.
            assert_eq!(answer(&plain, abi, "socket", &[0x1_0000_0026, 5, 0]), super::EPERM);
        }
        assert_eq!(answer(&plain, Abi::X86, "socketcall", &[1]), super::EPERM);
        assert_eq!(answer(&plain, Abi::X86, "socketcall", &[3]), Action::Allow);
    }

    #[test]
    fn a_call_that_is_newer_than_the_profile_does_not_exist() {
        let plain = filter(&facts(&[])).unwrap();
        let call = |number| Call { number, ..Call::of(Abi::X86_64, "read", &[]) };
        assert_eq!(run(&plain, &call(1_000)).0, super::ENOSYS.value());
        // Known and forbidden is something else: io_uring_setup.
        assert_eq!(run(&plain, &call(425)).0, super::EPERM.value());
        let alien = Call { audit: Abi::Arm.audit(), ..Call::of(Abi::X86_64, "read", &[]) };
        assert_eq!(run(&plain, &alien).0, Action::KillProcess.value());
    }

    #[test]
    fn ptrace_waits_for_a_kernel_that_filters_behind_it() {
        let old = filter(&SeccompFacts { kernel: (4, 4), ..facts(&[]) }).unwrap();
        let new = filter(&facts(&[])).unwrap();
        assert_eq!(answer(&old, Abi::X86_64, "ptrace", &[]), super::EPERM);
        assert_eq!(answer(&new, Abi::X86_64, "ptrace", &[]), Action::Allow);
    }

    #[test]
    fn arm_programs_of_both_widths_run() {
        let arm = filter(&SeccompFacts { machine: Machine::Aarch64, ..facts(&[]) }).unwrap();
        assert_eq!(answer(&arm, Abi::Aarch64, "openat", &[]), Action::Allow);
        assert_eq!(answer(&arm, Abi::Arm, "set_tls", &[]), Action::Allow);
        assert_eq!(answer(&arm, Abi::Aarch64, "mount", &[]), super::EPERM);
    }

    #[test]
    fn it_is_short_and_shallow() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let filter = filter(&SeccompFacts { machine, ..facts(&[]) }).unwrap();
            let native = Call::of(machine.native(), "read", &[]);
            let steps: Vec<usize> =
                (0..470).map(|number| run(&filter, &Call { number, ..native }).1).collect();
            let (most, sum) = (steps.iter().max().copied().unwrap(), steps.iter().sum::<usize>());
            eprintln!(
                "{machine:?}: {} instructions, at most {most}, {:.1} on average",
                filter.instructions.len(),
                f64::from(u32::try_from(sum).unwrap()) / 470.0
            );
            assert!(filter.instructions.len() < 400);
            assert!(most <= 24);
        }
    }
}
