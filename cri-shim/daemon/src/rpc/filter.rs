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

/// A state's number; unset = any, a number that the protocol does not have = none.
pub(crate) fn state(wanted: Option<i32>, found: i32) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

#[cfg(test)]
mod tests {
    use super::{id, labels, state};
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

    #[test]
    fn an_unset_state_is_any_and_an_unknown_one_is_none() {
        assert!(state(None, 1) && state(Some(0), 0));
        assert!(!state(Some(0), 1) && !state(Some(77), 0));
    }
}
