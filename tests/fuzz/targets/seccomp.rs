//! Seccomp profiles: what is read compiles to a program that the kernel's own rules accept, or is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim_model::seccomp::compile::{SeccompFacts, compile};
use shim_model::seccomp::names::Machine;
use shim_model::seccomp::profile::Profile;

/// `BPF_MAXINSNS` of linux/bpf_common.h.
const MOST: usize = 4096;

fuzz_target!(|json: &[u8]| {
    let Ok(profile) = Profile::parse(json) else { return };
    for machine in [Machine::X86_64, Machine::Aarch64] {
        let facts = SeccompFacts { machine, kernel: (6, 18), capabilities: 0xa80425fb };
        if let Ok(filter) = compile(&profile, &facts) {
            assert!((1..=MOST).contains(&filter.instructions.len()));
        }
    }
});
