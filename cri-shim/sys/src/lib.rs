//! `shim-sys`: the kernel made safe. Every wrapper takes borrowed descriptors, returns owned ones and
//! sets the safe flags itself. nix first, rustix where nix lacks a call, own wrappers last; nothing
//! else in the workspace names them.

#![expect(
    unsafe_code,
    reason = "system calls that nix and rustix lack are wrapped here and nowhere else"
)]

pub mod bpf;
pub mod clock;
pub mod copy;
pub mod credentials;
pub mod error;
pub mod fd;
pub mod label;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod path;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod rooted;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod tty;
pub mod userns;
