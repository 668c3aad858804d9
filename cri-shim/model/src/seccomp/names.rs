//! Names and numbers of system calls, per calling convention. The tables are the `syscalls` crate's;
//! what it lacks (x32, the private calls of 32-bit ARM) is here. What a profile allows is elsewhere.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The node's machine, as far as filters can be made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM, little-endian.
    Aarch64,
}

impl Machine {
    /// Out of the machine name of uname(2); `None` = no filter can be made here.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The name in a profile's `includes.arches`, which is Go's.
    pub const fn word(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The calling convention of ordinary programs.
    pub const fn native(self) -> Abi {
        match self {
            Self::X86_64 => Abi::X86_64,
            Self::Aarch64 => Abi::Aarch64,
        }
    }

    /// Every calling convention that a process on this machine can use.
    pub const fn conventions(self) -> &'static [Abi] {
        match self {
            Self::X86_64 => &[Abi::X86_64, Abi::X32, Abi::X86],
            Self::Aarch64 => &[Abi::Aarch64, Abi::Arm],
        }
    }
}

/// A calling convention: which numbers mean which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 64-bit x86 with 32-bit pointers; told from [`Abi::X86_64`] by [`X32_BIT`] in the number.
    X32,
    /// 32-bit x86; every process of a 64-bit kernel can call through it (`int 0x80`).
    X86,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

/// `__X32_SYSCALL_BIT` (asm/unistd.h).
pub const X32_BIT: u32 = 0x4000_0000;

impl Abi {
    /// `AUDIT_ARCH_…` (linux/audit.h): what the kernel puts into `struct seccomp_data`.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The name in a profile's `architectures`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X32 => "SCMP_ARCH_X32",
            Self::X86 => "SCMP_ARCH_X86",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// True if an argument has 32 bits: only those are compared then, of the value in the profile too
    /// (a profile writes -1 with 64 bits).
    pub const fn is_narrow(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// The number of a call as the filter sees it; `None` = this convention has no such call.
    pub fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Self::X86_64 => look_up::<syscalls::x86_64::Sysno>(name)?.id(),
            Self::X86 => look_up::<syscalls::x86::Sysno>(name)?.id(),
            Self::Aarch64 => look_up::<syscalls::aarch64::Sysno>(name)?.id(),
            Self::Arm => match position(&ARM_PRIVATE, name) {
                Some(number) => return Some(number),
                None => look_up::<syscalls::arm::Sysno>(name)?.id(),
            },
            Self::X32 => {
                let number = position(&X32_OWN, name).or_else(|| Self::X86_64.number(name))?;
                return Some(number | X32_BIT);
            }
        };
        u32::try_from(id).ok()
    }
}

/// Calls whose x32 number is not the one of 64-bit programs (arch/x86/entry/syscalls, numbers from 512).
const X32_OWN: (u32, [&str; 36]) = (
    512,
    [
        "rt_sigaction",
        "rt_sigreturn",
        "ioctl",
        "readv",
        "writev",
        "recvfrom",
        "sendmsg",
        "recvmsg",
        "execve",
        "ptrace",
        "rt_sigpending",
        "rt_sigtimedwait",
        "rt_sigqueueinfo",
        "sigaltstack",
        "timer_create",
        "mq_notify",
        "kexec_load",
        "waitid",
        "set_robust_list",
        "get_robust_list",
        "vmsplice",
        "move_pages",
        "preadv",
        "pwritev",
        "rt_tgsigqueueinfo",
        "recvmmsg",
        "sendmmsg",
        "process_vm_readv",
        "process_vm_writev",
        "setsockopt",
        "getsockopt",
        "io_setup",
        "io_submit",
        "execveat",
        "preadv2",
        "pwritev2",
    ],
);

/// Calls that only 32-bit ARM has, outside its table (arch/arm, asm/unistd.h).
const ARM_PRIVATE: (u32, [&str; 6]) =
    (0x000f_0001, ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"]);

fn position<const N: usize>((first, names): &(u32, [&str; N]), name: &str) -> Option<u32> {
    let place = names.iter().position(|known| *known == name)?;
    u32::try_from(place).ok()?.checked_add(*first)
}

/// The crate's enums hold `break` as Rust spells it.
fn look_up<T: FromStr>(name: &str) -> Option<T> {
    name.parse().or_else(|_unknown| format!("r#{name}").parse()).ok()
}

/// True if some architecture of Linux has a call of this name.
pub fn exists(name: &str) -> bool {
    let here = [Abi::X86_64, Abi::X86, Abi::Aarch64, Abi::Arm];
    here.iter().any(|abi| abi.number(name).is_some())
        || look_up::<syscalls::loongarch64::Sysno>(name).is_some()
        || look_up::<syscalls::mips::Sysno>(name).is_some()
        || look_up::<syscalls::mips64::Sysno>(name).is_some()
        || look_up::<syscalls::powerpc::Sysno>(name).is_some()
        || look_up::<syscalls::powerpc64::Sysno>(name).is_some()
        || look_up::<syscalls::riscv32::Sysno>(name).is_some()
        || look_up::<syscalls::riscv64::Sysno>(name).is_some()
        || look_up::<syscalls::s390x::Sysno>(name).is_some()
        || look_up::<syscalls::sparc::Sysno>(name).is_some()
        || look_up::<syscalls::sparc64::Sysno>(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::{Abi, exists};

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(Abi::X86_64.number("execve"), Some(59));
        assert_eq!(Abi::X86.number("socketcall"), Some(102));
        assert_eq!(Abi::X86_64.number("socketcall"), None);
        assert_eq!(Abi::Aarch64.number("clone3"), Some(435));
        assert_eq!(Abi::Arm.number("set_tls"), Some(0x000f_0005));
        assert_eq!(Abi::X86.number("break"), Some(17));
    }

    #[test]
    fn x32_has_its_own_numbers_where_pointers_matter() {
        assert_eq!(Abi::X32.number("read"), Some(0x4000_0000));
        assert_eq!(Abi::X32.number("execve"), Some(0x4000_0000 + 520));
        assert_eq!(Abi::X32.number("pwritev2"), Some(0x4000_0000 + 547));
    }

    #[test]
    fn a_call_of_another_architecture_exists() {
        assert!(exists("riscv_flush_icache") && exists("s390_runtime_instr"));
        assert!(!exists("sethostnam") && !exists("") && !exists("r#read"));
    }
}
