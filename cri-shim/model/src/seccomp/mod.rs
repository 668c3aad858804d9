//! Seccomp as a decision: a profile (the language of Docker and the OCI runtime spec, as JSON) and facts
//! about node and container become one classic BPF program. Nothing is installed here: `shim-sys` does.
//!
//! The way: [`parse`] reads and refuses, [`profile`] is what was read, [`names`] knows the numbers,
//! [`compile`] decides what each number of each calling convention gets, [`tree`] turns that into
//! instructions. [`default`] is the built-in profile, [`oci`] says one in the words of the OCI spec. The same profile and facts always give the same
//! filter, so a caller may keep it.

pub mod compile;
pub mod default;
pub mod names;
pub mod oci;
pub mod parse;
pub mod profile;
pub mod tree;

#[cfg(test)]
mod oracle;
