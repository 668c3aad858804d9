//! Files of CDI devices, as JSON and as YAML: read or refused, never a panic, aliases in YAML within bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim_model::cdi::{File, Form};

fuzz_target!(|text: &str| {
    let _read_or_refused = File::parse(Form::Json, text);
    let _read_or_refused = File::parse(Form::Yaml, text);
});
