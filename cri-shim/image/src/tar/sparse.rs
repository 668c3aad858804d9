//! Maps of sparse files: where the data of a file with holes lies. GNU's old form keeps it in binary
//! headers, PAX 0.1 in a record, PAX 1.0 in text before the data. A map that overlaps, goes backwards
//! or leaves the file is refused.

use super::pax;
use shim_model::limits;

/// Offset and length of each piece of data.
pub type Pieces = Vec<(u64, u64)>;

/// Pieces in order, inside the file, not overlapping.
pub fn checked(pieces: Pieces, size: u64) -> Option<Pieces> {
    let mut end = 0u64;
    for (offset, length) in &pieces {
        if *offset < end {
            return None;
        }
        end = offset.checked_add(*length)?;
    }
    (end <= size && pieces.len() <= limits::SPARSE_PIECES).then_some(pieces)
}

/// `GNU.sparse.map`: `offset,length,offset,length` (PAX 0.1).
pub fn from_record(value: &[u8]) -> Option<Pieces> {
    let numbers: Vec<u64> = value.split(|b| *b == b',').map(pax::number).collect::<Option<_>>()?;
    pairs(&numbers)
}

/// The map of PAX 1.0: a count and then pairs, one decimal number a line. Returns the pieces and how
/// many bytes of text were used, or `None` while more text is needed.
pub fn from_text(text: &[u8]) -> Option<Result<(Pieces, usize), ()>> {
    let mut used = 0usize;
    let mut next = || -> Option<Result<u64, ()>> {
        let rest = text.get(used..)?;
        let end = rest.iter().take(24).position(|b| *b == b'\n');
        let Some(end) = end else { return if rest.len() > 24 { Some(Err(())) } else { None } };
        used = used.saturating_add(end).saturating_add(1);
        Some(rest.get(..end).and_then(pax::number).ok_or(()))
    };
    let count = match next()? {
        Ok(count) => usize::try_from(count).unwrap_or(usize::MAX),
        Err(()) => return Some(Err(())),
    };
    if count > limits::SPARSE_PIECES {
        return Some(Err(()));
    }
    let mut numbers = Vec::with_capacity(count.saturating_mul(2));
    for _ in 0..count.saturating_mul(2) {
        match next()? {
            Ok(number) => numbers.push(number),
            Err(()) => return Some(Err(())),
        }
    }
    Some(pairs(&numbers).map(|pieces| (pieces, used)).ok_or(()))
}

fn pairs(numbers: &[u64]) -> Option<Pieces> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    (rest.is_empty() && pairs.len() <= limits::SPARSE_PIECES)
        .then(|| pairs.iter().map(|[a, b]| (*a, *b)).collect())
}

#[cfg(test)]
mod tests {
    use super::{checked, from_record, from_text};

    #[test]
    fn pieces_that_overlap_or_leave_the_file_are_refused() {
        assert!(checked(vec![(0, 5), (5, 5)], 10).is_some());
        assert!(checked(vec![(0, 6), (5, 5)], 10).is_none());
        assert!(checked(vec![(u64::MAX, 2)], 10).is_none());
        assert!(checked(vec![(8, 5)], 10).is_none());
    }

    #[test]
    fn both_text_forms_parse() {
        assert_eq!(from_record(b"1,2,3,4"), Some(vec![(1, 2), (3, 4)]));
        assert_eq!(from_record(b"1,2,3"), None);
        assert_eq!(from_text(b"1\n512\n10\nrest"), Some(Ok((vec![(512, 10)], 9))));
        assert_eq!(from_text(b"2\n512\n"), None);
        assert_eq!(from_text(b"x\n"), Some(Err(())));
    }
}
