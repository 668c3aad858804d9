//! Several connections over one socket, as NRI has them: frames of a connection's number, a length, and bytes.
//! Pure. A connection is a stream of bytes; where frames begin and end means nothing, but for one thing: the
//! other side reads a connection into a buffer of 4096 bytes and takes whole frames only, until it knows from
//! the first one how long the message is and reads the rest at once (`pkg/net/multiplex` of
//! containerd/nri, `bufio` below ttrpc). So a message is one frame of at most that, and one with what is left.

use bytes::Buf;
use shim_model::limits;

/// The plugin answers here.
pub(super) const PLUGIN: u32 = 1;
/// We answer here.
pub(super) const RUNTIME: u32 = 2;

/// A frame's number and length.
pub(super) const HEADER: usize = 8;
/// The first frame of a message.
const FIRST: usize = 4_096;
/// A frame's longest payload: a whole message with its own header.
const LONGEST: usize = limits::NRI_MESSAGE_BYTES + super::ttrpc::HEADER;

/// The frames of one message.
pub(super) fn frames(connection: u32, message: &[u8]) -> Vec<u8> {
    let (first, rest) = message.split_at(message.len().min(FIRST));
    let mut bytes = Vec::with_capacity(message.len().saturating_add(2 * HEADER));
    for part in [first, rest] {
        if !part.is_empty() {
            bytes.extend(connection.to_be_bytes());
            bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

/// Whose bytes follow, and how many.
pub(super) fn header(bytes: [u8; HEADER]) -> Result<(u32, usize), String> {
    let mut bytes = bytes.as_slice();
    let (connection, length) = (bytes.get_u32(), bytes.get_u32());
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(format!("a frame of {length} bytes, at most {LONGEST} are allowed"));
    }
    Ok((connection, length))
}

#[cfg(test)]
mod tests {
    use super::{FIRST, HEADER, LONGEST, frames, header};

    /// Lengths of the frames of a message, read as the other side does.
    fn lengths(message: &[u8]) -> Vec<usize> {
        let bytes = frames(2, message);
        let (mut at, mut found, mut whole) = (0, Vec::new(), Vec::<u8>::new());
        while at < bytes.len() {
            let (connection, length) = header(bytes[at..at + HEADER].try_into().unwrap()).unwrap();
            assert_eq!(connection, 2);
            at += HEADER;
            whole.extend(&bytes[at..at + length]);
            at += length;
            found.push(length);
        }
        assert_eq!(whole, message);
        found
    }

    #[test]
    fn a_message_is_at_most_two_frames() {
        assert_eq!(lengths(&[7; 10]), [10]);
        assert_eq!(lengths(&[7; FIRST]), [FIRST]);
        assert_eq!(lengths(&[7; FIRST + 1]), [FIRST, 1]);
        assert_eq!(lengths(&vec![7; LONGEST]), [FIRST, LONGEST - FIRST]);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn a_length_beyond_any_message_is_refused() {
        let with = |length: u32| {
            let mut bytes = [0, 0, 0, 1, 0, 0, 0, 0];
            bytes[4..].copy_from_slice(&length.to_be_bytes());
            header(bytes)
        };
        assert_eq!(with(u32::try_from(LONGEST).unwrap()), Ok((1, LONGEST)));
        assert!(with(u32::try_from(LONGEST + 1).unwrap()).unwrap_err().contains("at most"));
        assert!(with(u32::MAX).is_err());
    }
}
