//! The binary `wherry`: picks a role before any thread exists.

#![forbid(unsafe_code)]

mod authority;
mod config;
mod error;
mod listen;

fn main() {}
