//! Ranges of a blob (RFC 9110 §14): where the bytes of an answer really start. Pure.

use reqwest::header::{CONTENT_RANGE, HeaderMap};

/// First byte of a partial answer; `None` if the answer does not say it in the one form there is.
pub fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (start, _rest) = value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?;
    let plain = !start.is_empty() && start.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| start.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::starts_at;
    use reqwest::header::{CONTENT_RANGE, HeaderMap};

    fn of(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_RANGE, value.parse().unwrap());
        }
        starts_at(&headers)
    }

    #[test]
    fn only_one_well_formed_range_counts() {
        assert_eq!(of(&["bytes 20-99/100"]), Some(20));
        for bad in [
            &[][..],
            &["bytes */100"],
            &["bytes -5-9/9"],
            &["20-99/100"],
            &["bytes 1-2/3", "bytes 1-2/3"],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
