//! SPDY/3.1 frames of a client, cut anywhere: the same frames and the same error come out as of one piece,
//! and never more bytes of headers than the bounds allow.

#![no_main]

#[path = "../../../cri-shim/daemon/src/streaming/spdy/frame.rs"]
#[expect(dead_code, reason = "the connection around it is not here")]
mod frame;
#[path = "../../../cri-shim/daemon/src/streaming/spdy/headers.rs"]
#[expect(dead_code, reason = "the connection around it is not here")]
mod headers;

use libfuzzer_sys::fuzz_target;

/// All frames of an input that arrives in pieces of this length, as text, data joined; then how it ended.
fn frames(input: &[u8], piece: usize) -> (String, Vec<u8>) {
    let mut decoder = frame::Decoder::default();
    let (mut told, mut data) = (String::new(), Vec::new());
    for part in input.chunks(piece.max(1)) {
        decoder.space().extend_from_slice(part);
        loop {
            match decoder.frame() {
                Ok(None) => break,
                // How data is cut depends on how it arrives; what it is does not.
                Ok(Some(frame::Frame::Data { bytes, .. })) => data.extend_from_slice(&bytes),
                Ok(Some(other)) => told.push_str(&format!("{other:?}\n")),
                Err(bad) => {
                    told.push_str(&format!("{bad:?}"));
                    return (told, data);
                }
            }
        }
    }
    (told, data)
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, input)) = input.split_first() else { return };
    assert_eq!(frames(input, usize::from(*piece)), frames(input, input.len()));
});
