//! The wrapper that overwrites `:authority` before the HTTP/2 library reads it: nothing is added, lost or
//! kept for ever, and how the bytes are cut changes nothing.

#![no_main]

#[path = "../../../cri-shim/daemon/src/authority/fields.rs"]
mod fields;
#[path = "../../../cri-shim/daemon/src/authority/frames.rs"]
mod frames;

use libfuzzer_sys::fuzz_target;

fn rewritten(input: &[u8], piece: usize) -> Vec<u8> {
    let (mut rewriter, mut out) = (frames::Rewriter::default(), Vec::new());
    for part in input.chunks(piece.max(1)) {
        rewriter.feed(part, &mut out);
    }
    out
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, input)) = input.split_first() else { return };
    let whole = rewritten(input, input.len());
    assert!(whole.len() <= input.len());
    assert!(input.len() - whole.len() <= shim_model::limits::HEADER_BLOCK_BYTES + (16 << 20));
    assert_eq!(rewritten(input, usize::from(*piece)), whole);
});
