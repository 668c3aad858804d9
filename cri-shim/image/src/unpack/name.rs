//! Names of entries: what may stand in an archive, as a path beneath the layer. Pure.

use shim_model::limits;

/// A path beneath the layer without `.`, doubled or trailing slashes; empty for the root itself. An
/// absolute name means the same name beneath the layer, as every unpacker takes it. `None` for a name
/// with `..`, a component over 255 bytes, or too many components.
pub fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    let mut count = 0usize;
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return None,
            long if long.len() > 255 => return None,
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
        count = count.saturating_add(1);
    }
    (count <= limits::PATH_COMPONENTS).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::clean;
    use proptest::prelude::{any, proptest};

    #[test]
    fn names_stay_beneath_the_layer() {
        assert_eq!(clean(b"./a//b/").as_deref(), Some(b"a/b".as_slice()));
        assert_eq!(clean(b"/etc/passwd").as_deref(), Some(b"etc/passwd".as_slice()));
        assert_eq!(clean(b"./").as_deref(), Some(b"".as_slice()));
        for bad in [b"..".as_slice(), b"a/../b", b"../x"] {
            assert_eq!(clean(bad), None);
        }
    }

    proptest! {
        #[test]
        fn a_clean_name_never_climbs(path in any::<Vec<u8>>()) {
            if let Some(clean) = clean(&path) {
                assert!(!clean.starts_with(b"/"));
                assert!(clean.split(|b| *b == b'/').all(|part| part != b".."));
            }
        }
    }
}
