//! Users: what a request and an image say, and the text of the image's passwd and group files, to
//! numbers. The files are hostile text; nothing of them but numbers and a home folder leaves here.

use crate::container::config::RunAs;
use crate::kind::Refused;
use crate::limits;
use serde::{Deserialize, Serialize};

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All supplementary groups, sorted, the primary among them.
    pub groups: Vec<u32>,
    /// Home folder of the passwd entry; `/` without one.
    pub home: String,
}

/// One line of passwd(5) that was understood.
struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves the user of a container. `image_user` is the image's `User` and counts where the request
/// names nobody; `passwd` and `group` are the image's files, `None` where it has none.
pub fn resolve(
    run_as: &RunAs,
    image_user: &str,
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
) -> Result<User, Refused> {
    let field = "config.linux.security_context";
    if run_as.group.is_some() && run_as.user.is_none() && run_as.username.is_empty() {
        let found = run_as.group.unwrap_or_default().to_string();
        return Err(Refused::new(
            format!("{field}.run_as_group"),
            found,
            "a group only together with run_as_user or run_as_username",
        ));
    }
    if run_as.user.is_some() && !run_as.username.is_empty() {
        return Err(Refused::new(
            format!("{field}.run_as_username"),
            &run_as.username,
            "only one of run_as_user and run_as_username",
        ));
    }
    let passwd = passwd.map(text_of).unwrap_or_default();
    let group = group.map(text_of).unwrap_or_default();
    let (user_text, group_text) = match run_as.user {
        Some(uid) => (number(&format!("{field}.run_as_user"), uid)?.to_string(), String::new()),
        None if run_as.username.is_empty() => split(image_user)?,
        // Where the request names no group by number, one may stand behind the name, as in an image.
        None if run_as.group.is_none() => split(&run_as.username)?,
        None => (run_as.username.clone(), String::new()),
    };
    let (name, uid, gid, home) = passwd_user(&user_text, &passwd)?;
    let gid = match run_as.group {
        Some(gid) => number(&format!("{field}.run_as_group"), gid)?,
        None if group_text.is_empty() => gid,
        None => group_id(&group_text, &group)?,
    };
    let mut groups = vec![gid];
    for gid in &run_as.supplemental_groups {
        groups.push(number(&format!("{field}.supplemental_groups"), *gid)?);
    }
    if !run_as.strict_groups {
        groups.extend(groups_of(name.as_deref(), &group));
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups, home })
}

/// `USER[:GROUP]`. A group without a user is nobody: no user at all would be root.
fn split(text: &str) -> Result<(String, String), Refused> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && !text.is_empty() {
        return Err(nobody(text));
    }
    Ok((user.to_owned(), group.to_owned()))
}

/// The user as the passwd file knows it; a number need not stand there, a name must.
fn passwd_user(text: &str, passwd: &str) -> Result<(Option<String>, u32, u32, String), Refused> {
    let text = if text.is_empty() { "0" } else { text };
    let by_number = id(text);
    // A number that is none is no name either: a line of the image's file must not make it one.
    let name = by_number.is_some() || is_name(text);
    if !name {
        return Err(nobody(text));
    }
    let found = lines(passwd).filter_map(passwd_line).find(|line| match by_number {
        Some(uid) => line.uid == uid,
        None => line.name == text,
    });
    match (found, by_number) {
        (Some(line), _) => Ok((Some(line.name.to_owned()), line.uid, line.gid, home_of(line.home))),
        (None, Some(uid)) => Ok((None, uid, 0, "/".to_owned())),
        (None, None) => Err(nobody(text)),
    }
}

fn nobody(text: &str) -> Refused {
    let allowed = "a user of the image's /etc/passwd, or a number up to 4294967294";
    Refused::new("user", text, allowed)
}

/// An id as digits and nothing else; `str::parse` would take a sign.
pub fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok().filter(|id| *id != u32::MAX) } else { None }
}

/// A word that cannot be meant as a number.
fn is_name(text: &str) -> bool {
    !text.starts_with(['+', '-'])
        && !text.contains(char::is_whitespace)
        && !text.bytes().all(|b| b.is_ascii_digit())
}

fn group_id(text: &str, group: &str) -> Result<u32, Refused> {
    if let Some(gid) = id(text) {
        return Ok(gid);
    }
    lines(group)
        .filter(|_| is_name(text))
        .filter_map(group_line)
        .find(|(name, _, _)| *name == text)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| {
            Refused::new(
                "group",
                text,
                "a group of the image's /etc/group, or a number up to 4294967294",
            )
        })
}

fn groups_of<'a>(name: Option<&'a str>, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    let member =
        move |members: &str| name.is_some_and(|name| members.split(',').any(|m| m.trim() == name));
    lines(group)
        .filter_map(group_line)
        .filter(move |(_, _, members)| member(members))
        .map(|(_, gid, _)| gid)
}

fn passwd_line(line: &str) -> Option<PasswdLine<'_>> {
    let mut parts = line.split(':');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let uid = id(parts.nth(1)?)?;
    let gid = id(parts.next()?)?;
    let home = parts.nth(1).unwrap_or("/");
    Some(PasswdLine { name, uid, gid, home })
}

fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut parts = line.split(':');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let gid = id(parts.nth(1)?)?;
    Some((name, gid, parts.next().unwrap_or_default()))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(limits::PASSWD_LINES).map(str::trim).filter(|line| !line.starts_with('#'))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An absolute home folder without control characters (it becomes `HOME`), else `/`.
fn home_of(text: &str) -> String {
    let legal = text.starts_with('/') && !text.contains(|c: char| c.is_control());
    if legal { text.to_owned() } else { "/".to_owned() }
}

fn number(field: &str, value: i64) -> Result<u32, Refused> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Refused::new(field, value.to_string(), "0 to 4294967294"))
}

#[cfg(test)]
mod tests {
    use super::{User, resolve};
    use crate::container::config::RunAs;
    use proptest::prelude::{any, proptest};

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/d:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\ndefault-user:x:1000:\nin-image:x:50000:default-user\n";

    fn who(run_as: &RunAs, image: &str) -> User {
        resolve(run_as, image, Some(PASSWD), Some(GROUP)).unwrap()
    }

    #[test]
    fn groups_of_the_image_are_merged_or_left_by_policy() {
        let mut run_as = RunAs { supplemental_groups: vec![1234], ..RunAs::default() };
        assert_eq!(who(&run_as, "1000").groups, [1000, 1234, 50000]);
        run_as.strict_groups = true;
        assert_eq!(who(&run_as, "1000").groups, [1000, 1234]);
    }

    #[test]
    fn the_image_names_its_user_in_four_ways() {
        for (text, uid, gid) in [
            ("", 0, 0),
            ("1002", 1002, 0),
            ("default-user", 1000, 1000),
            ("1003:1004", 1003, 1004),
            ("default-user:in-image", 1000, 50000),
        ] {
            let user = who(&RunAs::default(), text);
            assert_eq!((user.uid, user.gid), (uid, gid), "{text}");
        }
    }

    #[test]
    fn a_request_may_name_a_group_behind_its_user() {
        for (text, uid, gid) in [("default-user:in-image", 1000, 50000), ("7:in-image", 7, 50000)] {
            let run_as = RunAs { username: text.into(), ..RunAs::default() };
            let user = who(&run_as, "root");
            assert_eq!((user.uid, user.gid), (uid, gid), "{text}");
        }
        let both = RunAs { username: "root:in-image".into(), group: Some(1), ..RunAs::default() };
        assert!(resolve(&both, "", Some(PASSWD), Some(GROUP)).is_err());
    }

    #[test]
    fn unknown_names_and_impossible_numbers_are_refused() {
        let name = RunAs { username: "nobody-here".into(), ..RunAs::default() };
        let lone_group = RunAs { group: Some(5), ..RunAs::default() };
        let both = RunAs { user: Some(1), username: "root".into(), ..RunAs::default() };
        let negative = RunAs { user: Some(-1), ..RunAs::default() };
        let large = RunAs { user: Some(4_294_967_295), ..RunAs::default() };
        for run_as in [name, lone_group, both, negative, large] {
            assert!(resolve(&run_as, "", Some(PASSWD), Some(GROUP)).is_err(), "{run_as:?}");
        }
    }

    #[test]
    fn what_is_neither_a_number_nor_a_name_is_nobody() {
        let passwd = b"4294967295:x:0:0::/:\n+0:x:0:0::/:\n-1:x:0:0::/:\nbig:x:4294967296:0::/:\n\
            plus:x:+0:0::/:\n99999999999:x:0:0::/:\nroot:x:0:0::/:\n";
        let group = b"+0:x:0:\n4294967296:x:0:\n";
        let user = |text: &str| resolve(&RunAs::default(), text, Some(passwd), Some(group));
        for text in [
            "4294967295",
            "+0",
            "-1",
            "99999999999",
            ":0",
            ":",
            "big",
            "plus",
            "1:+0",
            "1:4294967296",
        ] {
            assert!(user(text).is_err(), "{text}");
        }
        assert_eq!(user("4294967294").unwrap().uid, 4_294_967_294);
        assert_eq!((user("7:").unwrap().uid, user("7:").unwrap().gid), (7, 0));
    }

    #[test]
    fn a_home_with_control_characters_is_not_believed() {
        let user =
            resolve(&RunAs::default(), "", Some(b"root:x:0:0:r:/a\tb:/bin/sh"), None).unwrap();
        assert_eq!(user.home, "/");
    }

    proptest! {
        #[test]
        fn hostile_files_never_break_the_parser(passwd in any::<Vec<u8>>(), group in any::<Vec<u8>>(), user in "[a-z0-9:]{0,12}") {
            let _either = resolve(&RunAs::default(), &user, Some(&passwd), Some(&group));
        }
    }
}
