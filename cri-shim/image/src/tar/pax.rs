//! PAX extended header records (`LENGTH KEY=VALUE\n`, POSIX pax): parsed whole or refused whole.

use std::collections::BTreeMap;

/// Records of one extended header by key; the last of a key counts, as POSIX says.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Parses the body of an extended header; `None` if any record is malformed.
pub fn parse(mut body: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !body.is_empty() {
        let space = body.iter().take(20).position(|b| *b == b' ')?;
        let digits = std::str::from_utf8(body.get(..space)?).ok()?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let length: usize = plain.then(|| digits.parse().ok()).flatten()?;
        let record = body.get(..length)?;
        let content = record.get(space.checked_add(1)?..)?.strip_suffix(b"\n")?;
        let equals = content.iter().position(|b| *b == b'=')?;
        let (key, value) = content.split_at(equals);
        if key.is_empty() {
            return None;
        }
        let value = value.get(1..)?;
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            // The oldest form of sparse maps repeats these two keys in order: as the next form, one list.
            let map = records.entry(b"GNU.sparse.map".to_vec()).or_default();
            if !map.is_empty() {
                map.push(b',');
            }
            map.extend_from_slice(value);
        } else if value.is_empty() {
            // An empty value takes an earlier record back (POSIX pax, "Extended Header").
            records.remove(key);
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
        body = body.get(length..)?;
    }
    Some(records)
}

/// A decimal number without sign.
pub fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A time: seconds with an optional sign and fraction, digits past the ninth cut off.
pub fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = nanos.parse().ok()?;
    let negative = whole.starts_with('-') && nanos > 0;
    Some(if negative { (seconds.checked_sub(1)?, 1_000_000_000 - nanos) } else { (seconds, nanos) })
}

#[cfg(test)]
mod tests {
    use super::{number, parse, time};

    #[test]
    fn records_may_hold_line_ends_and_equal_signs() {
        let records = parse(b"11 a=b\nc=d\n8 k=v=w\n").unwrap();
        assert_eq!(records[b"a".as_slice()], b"b\nc=d");
        assert_eq!(records[b"k".as_slice()], b"v=w");
    }

    #[test]
    fn an_empty_value_takes_a_record_back_and_old_sparse_maps_become_one_list() {
        assert!(parse(b"6 a=b\n5 a=\n").unwrap().is_empty());
        let records = parse(b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=5\n").unwrap();
        assert_eq!(records[b"GNU.sparse.map".as_slice()], b"0,5");
    }

    #[test]
    fn malformed_records_are_refused_whole() {
        for bad in [
            b"4 a=\n".as_slice(),
            b"99 a=b\n",
            b"a=b\n",
            b"6 =bb\n",
            b"-7 a=b\n",
            b"6 a=b\n\n",
            b"6 a=bb",
        ] {
            assert!(parse(bad).is_none(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_keep_nanoseconds_before_the_epoch_too() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1e9"), None);
        assert_eq!(number(b"+1"), None);
    }
}
