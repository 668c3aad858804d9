//! How far mounts of the node travel, out of the text of /proc/self/mountinfo (proc(5)): what a request may
//! ask of a mount depends on it. Reads nothing itself.

use crate::container::config::Propagation;

/// What a mount of the node hands on and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Travels {
    /// It is in a peer group: what is mounted here appears at the others (`shared:N`).
    pub shared: bool,
    /// What is mounted at its master appears here (`master:N`).
    pub slave: bool,
}

impl Travels {
    /// True if a container's copy of such a mount can do what is asked.
    pub const fn allows(self, asked: Propagation) -> bool {
        match asked {
            Propagation::Private => true,
            Propagation::HostToContainer => self.shared || self.slave,
            Propagation::Bidirectional => self.shared,
        }
    }
}

/// The mount with this number; `None` if there is none.
pub fn travels(mountinfo: &str, id: u64) -> Option<Travels> {
    let number = id.to_string();
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(&number))?;
    // The optional fields are those between the sixth and a lone dash.
    let optional = line.split(' ').skip(6).take_while(|field| *field != "-");
    let mut found = Travels { shared: false, slave: false };
    for field in optional {
        found.shared |= field.starts_with("shared:");
        found.slave |= field.starts_with("master:");
    }
    Some(found)
}

/// Where the mount with this number is.
pub fn place(mountinfo: &str, id: u64) -> Option<String> {
    let number = id.to_string();
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(&number))?;
    let escaped = line.split(' ').nth(4)?;
    // proc(5): space, tab, newline and backslash are octal.
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    Some(codes.iter().fold(escaped.to_owned(), |text, (code, c)| text.replace(code, c)))
}

#[cfg(test)]
mod tests {
    use super::{Travels, place, travels};
    use crate::container::config::Propagation;

    const TEXT: &str = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw\n\
        22 21 0:5 / /a rw - tmpfs shared:9 rw\n\
        23 21 0:6 / /b rw shared:2 master:1 - tmpfs x rw\n\
        24 21 0:7 / /c rw master:1 propagate_from:2 - tmpfs x rw\n";

    #[test]
    fn a_mount_is_where_it_is() {
        assert_eq!(place(TEXT, 23).as_deref(), Some("/b"));
        assert_eq!(place("5 1 0:1 / /a\\040b rw - tmpfs x rw\n", 5).as_deref(), Some("/a b"));
        assert_eq!(place(TEXT, 2), None);
    }

    #[test]
    fn a_mount_is_known_by_its_optional_fields() {
        let of = |shared, slave| Some(Travels { shared, slave });
        let found = [21, 22, 23, 24, 2].map(|id| travels(TEXT, id));
        let wanted = [of(true, false), of(false, false), of(true, true), of(false, true), None];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_asked_needs_a_source_that_has_it() {
        let kinds =
            [Propagation::Private, Propagation::HostToContainer, Propagation::Bidirectional];
        let allowed = |id| kinds.map(|kind| travels(TEXT, id).unwrap().allows(kind));
        assert_eq!(allowed(21), [true, true, true]);
        assert_eq!(allowed(22), [true, false, false]);
        assert_eq!(allowed(24), [true, true, false]);
    }
}
