//! Image references: what is read is read the same again from its own full form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim_image::reference::Reference;

fuzz_target!(|name: &str| {
    let Ok(reference) = Reference::parse(name) else { return };
    let again = Reference::parse(&reference.to_string());
    assert_eq!(again.ok().as_ref(), Some(&reference), "{name:?} {reference}");
    assert!(!reference.repository().split('/').any(|part| part.is_empty() || part == ".."));
});
