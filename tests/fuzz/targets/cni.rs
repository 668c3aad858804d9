//! What CNI plugins print, results and errors, and what configuration files say: read or refused, and an error
//! is always a line of text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim_model::cni::{conf, result};

fuzz_target!(|printed: &[u8]| {
    let failure = result::failure(printed, b"");
    assert!(!failure.text.is_empty() && !failure.text.contains(char::is_control));
    if let Ok(value) = serde_json::from_slice(printed) {
        let _any = result::addresses(&value);
        let _any = result::on_the_node(&value);
    }
    if let Ok(text) = std::str::from_utf8(printed) {
        let _read_or_refused = conf::ConfList::parse(text);
    }
});
