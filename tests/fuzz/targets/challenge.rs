//! `WWW-Authenticate` headers of registries, as any registry may send them: read, or taken for none, never a
//! panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    let _read_or_none = shim_image::registry::challenge::parse(header);
});
