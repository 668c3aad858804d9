//! What goes when a person removes an image by one of its names or by its id, or why nothing does. As
//! `docker rmi`: a name alone while there are others, the image with the last one, and nothing that a
//! container stands on. Pure; the kubelet's `RemoveImage` does not ask here.

use std::collections::BTreeSet;

/// What goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goes {
    /// This name; the image has others.
    Name(String),
    /// The image, with all its names.
    Image,
}

/// Why nothing does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// A container stands on it.
    #[error("container \"{0}\" is made of it; remove that first with \"wherry rm {0}\", or use -f")]
    Used(String),
    /// It was asked for by its id, and has several names.
    #[error("it has {} names ({}); remove them one by one, or all with -f", .0.len(), .0.join(", "))]
    Named(Vec<String>),
}

/// What is known of an image that is to go.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its names.
    pub tags: &'a BTreeSet<String>,
    /// Containers that stand on it, as people call them.
    pub users: &'a [String],
}

/// Decides; `asked` is the name it was asked for by, `None` for an id or a digest.
pub fn decide(known: Known<'_>, asked: Option<&str>, force: bool) -> Result<Goes, Stays> {
    let named = asked.filter(|name| known.tags.contains(*name));
    match (named, known.users.first()) {
        (Some(name), _) if known.tags.len() > 1 => Ok(Goes::Name(name.to_owned())),
        (Some(_) | None, Some(user)) if !force => Err(Stays::Used(user.clone())),
        (None, _) if known.tags.len() > 1 && !force => {
            Err(Stays::Named(known.tags.iter().cloned().collect()))
        }
        (Some(_) | None, Some(_) | None) => Ok(Goes::Image),
    }
}

#[cfg(test)]
mod tests {
    use super::{Goes, Known, Stays, decide};

    fn check(tags: &[&str], users: &[&str], asked: Option<&str>, force: bool) -> String {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        match decide(Known { tags: &tags, users: &users }, asked, force) {
            Ok(Goes::Name(name)) => format!("name {name}"),
            Ok(Goes::Image) => "image".to_owned(),
            Err(Stays::Used(by)) => format!("used by {by}"),
            Err(Stays::Named(names)) => format!("named {names:?}"),
        }
    }

    #[test]
    fn a_name_goes_alone_while_there_are_others() {
        assert_eq!(check(&["a", "b"], &[], Some("a"), false), "name a");
        assert_eq!(check(&["a", "b"], &["c"], Some("a"), false), "name a");
        assert_eq!(check(&["a", "b"], &["c"], Some("a"), true), "name a");
        assert_eq!(check(&["a"], &[], Some("a"), false), "image");
    }

    #[test]
    fn what_is_used_goes_by_force_only() {
        assert_eq!(check(&["a"], &["c", "d"], Some("a"), false), "used by c");
        assert_eq!(check(&["a"], &["c"], Some("a"), true), "image");
        assert_eq!(check(&[], &["c"], None, false), "used by c");
    }

    #[test]
    fn an_id_means_all_names_and_then_wants_force() {
        assert_eq!(check(&["a", "b"], &[], None, false), "named [\"a\", \"b\"]");
        assert_eq!(check(&["a", "b"], &[], None, true), "image");
        assert_eq!(check(&["a"], &[], None, false), "image");
        assert_eq!(check(&[], &[], None, false), "image");
    }
}
