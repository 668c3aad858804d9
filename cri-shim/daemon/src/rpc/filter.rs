//! Filters of lists: all parts must hold, an unset part holds always. Pure.

use std::collections::BTreeMap;

/// Exact match of all pairs.
pub(crate) fn labels(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| found.get(key) == Some(value))
}

/// An id or a prefix of it; empty = any.
pub(crate) fn id(wanted: &str, found: &str) -> bool {
    found.starts_with(wanted)
}

#[cfg(test)]
mod tests {
    use super::{id, labels};
    use std::collections::BTreeMap;

    #[test]
    fn all_labels_must_match_exactly() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let found = map(&[("a", "1"), ("b", "2")]);
        assert!(labels(&map(&[]), &found) && labels(&map(&[("a", "1")]), &found));
        assert!(!labels(&map(&[("a", "2")]), &found) && !labels(&map(&[("c", "")]), &found));
    }

    #[test]
    fn an_empty_id_is_any() {
        assert!(id("", "abc") && id("ab", "abc") && !id("abcd", "abc"));
    }
}
