//! Whiteouts of the OCI image specification ("Whiteouts"): names that hide what a lower layer holds.
//! Pure: a last component to what it means.

/// What a last component means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// An ordinary name.
    Plain,
    /// Hides this name of the layers below.
    Hide(&'a [u8]),
    /// Hides everything of the layers below in its folder.
    Opaque,
    /// Bookkeeping of aufs, passed over.
    Ignore,
    /// No whiteout can have this name.
    Refused,
}

/// The meaning of a last component.
pub fn meaning(name: &[u8]) -> Meaning<'_> {
    match name.strip_prefix(b".wh.") {
        None => Meaning::Plain,
        Some(b".wh..opq") => Meaning::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Meaning::Ignore,
        Some(b"" | b"." | b"..") => Meaning::Refused,
        Some(rest) => Meaning::Hide(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, meaning};

    #[test]
    fn every_form_has_one_meaning() {
        assert_eq!(meaning(b"file"), Meaning::Plain);
        assert_eq!(meaning(b".wh.file"), Meaning::Hide(b"file"));
        assert_eq!(meaning(b".wh..wh..opq"), Meaning::Opaque);
        assert_eq!(meaning(b".wh..wh.plnk"), Meaning::Ignore);
        for bad in [b".wh.".as_slice(), b".wh..", b".wh..."] {
            assert_eq!(meaning(bad), Meaning::Refused);
        }
    }
}
