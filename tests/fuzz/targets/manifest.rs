//! Manifests, indexes and configurations that a registry serves: read or refused, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    let _read_or_refused = shim_image::manifest::parse(document, "fuzzed", None);
    let _read_or_refused = shim_model::image::ImageConfig::parse(document);
});
