//! Shapes on disk. A *record* is one file, written whole: a header line (`wherry 1 CRC BOOT`) and
//! JSON, so that a person can read a broken one. A *frame* is one entry of an append-only file
//! (journal, ledger): length, CRC-32, payload. Both are pure transformations of bytes; a torn or
//! damaged tail ends the reading and is reported, it never hides what stands before it.

use crate::limits;
use serde::{Serialize, de::DeserializeOwned};

/// Version that this build writes; it reads this one and the one before.
pub const VERSION: u32 = 1;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Larger than any record we write.
    #[error("record of {0} bytes is larger than any that is written")]
    TooLarge(usize),
    /// No header line of ours.
    #[error("record has no header line")]
    NoHeader,
    /// Written by a later build.
    #[error("record has version {0}, this build reads up to {VERSION}")]
    Version(u32),
    /// The content is not what was written.
    #[error("record is damaged: its checksum is {found:08x}, its header says {said:08x}")]
    Checksum { found: u32, said: u32 },
    /// The checksum holds but the shape is unknown.
    #[error("read the content of a record")]
    Shape(#[source] serde_json::Error),
    /// A value that has no JSON form.
    #[error("write a value as a record")]
    Write(#[source] serde_json::Error),
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// Boot id of the writer's boot.
    pub boot: String,
    /// The value.
    pub value: T,
}

/// The bytes of a record file.
pub fn encode<T: Serialize>(boot: &str, value: &T) -> Result<Vec<u8>, RecordError> {
    let body = serde_json::to_vec(value).map_err(RecordError::Write)?;
    let mut file = format!("wherry {VERSION} {:08x} {boot}\n", crc32fast::hash(&body)).into_bytes();
    file.extend_from_slice(&body);
    Ok(file)
}

/// Reads a record file.
pub fn decode<T: DeserializeOwned>(file: &[u8]) -> Result<Read<T>, RecordError> {
    if file.len() > limits::RECORD_BYTES {
        return Err(RecordError::TooLarge(file.len()));
    }
    let end = file.iter().position(|b| *b == b'\n').ok_or(RecordError::NoHeader)?;
    let (head, rest) = file.split_at(end);
    let body = rest.get(1..).unwrap_or_default();
    let mut words = std::str::from_utf8(head).unwrap_or_default().split(' ');
    let (Some("wherry"), Some(version), Some(sum), Some(boot)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(RecordError::NoHeader);
    };
    let version: u32 = version.parse().unwrap_or(u32::MAX);
    let said = u32::from_str_radix(sum, 16).unwrap_or_default();
    if version > VERSION {
        return Err(RecordError::Version(version));
    }
    let found = crc32fast::hash(body);
    if found != said {
        return Err(RecordError::Checksum { found, said });
    }
    let value = serde_json::from_slice(body).map_err(RecordError::Shape)?;
    Ok(Read { boot: boot.to_owned(), value })
}

/// Bytes before the payload of an entry of an append-only file.
pub const FRAME_HEADER: usize = 8;

/// One entry of an append-only file: little-endian length and CRC-32, then the payload.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut entry = Vec::with_capacity(payload.len().saturating_add(FRAME_HEADER));
    entry.extend_from_slice(&length.to_le_bytes());
    entry.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    entry.extend_from_slice(payload);
    entry
}

/// The payloads of an append-only file, and how many bytes at its end could not be used.
pub fn frames(mut file: &[u8]) -> (Vec<&[u8]>, usize) {
    let mut found = Vec::new();
    while let Some((payload, rest)) = next_frame(file) {
        found.push(payload);
        file = rest;
    }
    (found, file.len())
}

fn next_frame(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let payload = rest.get(..length)?;
    (crc32fast::hash(payload) == u32::from_le_bytes(*sum)).then_some(())?;
    Some((payload, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::{RecordError, decode, encode, frame, frames};

    #[test]
    fn a_record_survives_the_way_to_disk_and_back() {
        let file = encode("boot-1", &vec!["a", "b"]).unwrap();
        let read = decode::<Vec<String>>(&file).unwrap();
        assert_eq!((read.boot.as_str(), read.value.len()), ("boot-1", 2));
    }

    #[test]
    fn every_flipped_byte_of_the_body_is_noticed() {
        let file = encode("b", &"some content").unwrap();
        let start = file.iter().position(|b| *b == b'\n').unwrap() + 1;
        for at in start..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(
                matches!(decode::<String>(&bad), Err(RecordError::Checksum { .. })),
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_later_version_is_refused_by_number() {
        assert!(matches!(
            decode::<String>(b"wherry 99 00000000 b\n\"x\""),
            Err(RecordError::Version(99))
        ));
        assert!(matches!(decode::<String>(b""), Err(RecordError::NoHeader)));
    }

    #[test]
    fn a_torn_tail_hides_nothing_before_it() {
        let mut file = frame(b"one");
        file.extend(frame(b"two"));
        let whole = file.len();
        file.extend(&frame(b"three")[..9]);
        assert_eq!(frames(&file), (vec![b"one".as_slice(), b"two"], file.len() - whole));
        file[9] ^= 1;
        assert_eq!(frames(&file).0.len(), 0);
    }
}
