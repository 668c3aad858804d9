//! `shim-sys`: the kernel made safe. Every wrapper takes borrowed descriptors, returns owned ones and
//! sets the safe flags itself. nix first, rustix where nix lacks a call, own wrappers last; nothing
//! else in the workspace names them.

pub mod error;
