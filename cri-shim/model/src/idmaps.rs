//! The id maps of a pod's user namespace: which are accepted, and what an id inside is outside. Rules of
//! `cri-contract.md` §2.9. Nothing is made here.

use crate::kind::Refused;
use crate::sandbox::config::{IdMapping, NamespaceMode, UserNamespace};
use crate::users::User;
use serde::{Deserialize, Serialize};

/// One map for users and one for groups, both from id 0 of the pod on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMaps {
    /// Users.
    pub uids: IdMapping,
    /// Groups.
    pub gids: IdMapping,
}

impl UserMaps {
    /// The maps of a request; `None` = the node's user namespace.
    pub fn of(field: &str, user: &UserNamespace) -> Result<Option<Self>, Refused> {
        match user.mode {
            NamespaceMode::Node => Ok(None),
            NamespaceMode::Container | NamespaceMode::Target => Err(Refused::new(
                format!("{field}.mode"),
                format!("{:?}", user.mode),
                "POD or NODE",
            )),
            NamespaceMode::Pod => Ok(Some(Self {
                uids: only(&format!("{field}.uids"), &user.uids)?,
                gids: only(&format!("{field}.gids"), &user.gids)?,
            })),
        }
    }

    /// The pod's root, as the node sees it.
    pub const fn root(&self) -> (u32, u32) {
        (self.uids.host_id, self.gids.host_id)
    }

    /// A user of the pod as the node sees it; `None` = the pod does not have it.
    pub fn uid(&self, inside: u32) -> Option<u32> {
        outside(self.uids, inside)
    }

    /// A group of the pod as the node sees it.
    pub fn gid(&self, inside: u32) -> Option<u32> {
        outside(self.gids, inside)
    }

    /// An owner of the pod as the node sees it; its root where the pod does not have such ids.
    pub fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        let (root, root_group) = self.root();
        (self.uid(uid).unwrap_or(root), self.gid(gid).unwrap_or(root_group))
    }

    /// Refuses a user that the pod does not have: the kernel would, too late and without a name.
    pub fn check(&self, user: &User) -> Result<(), Refused> {
        let field = "config.linux.security_context";
        let refuse = |name: &str, id: u32, map: IdMapping| {
            let last = map.length.saturating_sub(1);
            let allowed = format!("0 to {last}: the pod's user namespace has no others");
            Err(Refused::new(format!("{field}.{name}"), id.to_string(), allowed))
        };
        if self.uid(user.uid).is_none() {
            return refuse("run_as_user", user.uid, self.uids);
        }
        if self.gid(user.gid).is_none() {
            return refuse("run_as_group", user.gid, self.gids);
        }
        match user.groups.iter().find(|group| self.gid(**group).is_none()) {
            Some(group) => refuse("supplemental_groups", *group, self.gids),
            None => Ok(()),
        }
    }
}

fn outside(map: IdMapping, inside: u32) -> Option<u32> {
    let offset = inside.checked_sub(map.container_id).filter(|offset| *offset < map.length)?;
    map.host_id.checked_add(offset)
}

/// The one line of a map. Its last id must be one: 2^32-1 is the kernel's "nobody said".
fn only(field: &str, lines: &[IdMapping]) -> Result<IdMapping, Refused> {
    let [line] = lines else {
        return Err(Refused::new(
            field,
            format!("{} maps", lines.len()),
            "exactly one, which begins at container id 0",
        ));
    };
    if line.container_id != 0 {
        let found = format!("container id {}", line.container_id);
        return Err(Refused::new(field, found, "a map that begins at container id 0"));
    }
    if line.length == 0 || line.host_id.checked_add(line.length).is_none() {
        let found = format!("{} ids from host id {} on", line.length, line.host_id);
        return Err(Refused::new(field, found, "at least one id, none above 4294967294"));
    }
    Ok(*line)
}

#[cfg(test)]
mod tests {
    use super::UserMaps;
    use crate::sandbox::config::{IdMapping, NamespaceMode, UserNamespace};
    use crate::users::User;

    fn line(container_id: u32, host_id: u32, length: u32) -> IdMapping {
        IdMapping { host_id, container_id, length }
    }

    fn maps(lines: &[IdMapping]) -> Result<Option<UserMaps>, String> {
        let (uids, gids) = (lines.to_vec(), vec![line(0, 5_000, 10)]);
        let user = UserNamespace { mode: NamespaceMode::Pod, uids, gids };
        UserMaps::of("user", &user).map_err(|refused| refused.field)
    }

    #[test]
    fn one_map_from_zero_on_is_accepted_and_nothing_else() {
        let found = maps(&[line(0, 1_000, 100_000)]).unwrap().unwrap();
        assert_eq!(found.root(), (1_000, 5_000));
        for bad in [
            vec![],
            vec![line(0, 1_000, 10), line(10, 5_000, 10)],
            vec![line(1, 1_000, 10)],
            vec![line(0, 1_000, 0)],
            vec![line(0, u32::MAX, 1)],
            vec![line(0, 4_294_000_000, 1_000_000)],
        ] {
            assert_eq!(maps(&bad), Err("user.uids".into()), "{bad:?}");
        }
        assert!(maps(&[line(0, u32::MAX - 1, 1)]).is_ok());
    }

    #[test]
    fn an_id_is_where_the_map_puts_it_or_nowhere() {
        let found = maps(&[line(0, 1_000, 100)]).unwrap().unwrap();
        assert_eq!((found.uid(0), found.uid(99), found.uid(100)), (Some(1_000), Some(1_099), None));
        assert_eq!((found.gid(9), found.gid(10)), (Some(5_009), None));
        assert_eq!(found.owner(3, 70), (1_003, 5_000));
    }

    #[test]
    fn a_user_without_a_place_in_the_map_is_refused_by_its_field() {
        let found = maps(&[line(0, 1_000, 100)]).unwrap().unwrap();
        let check = |uid, gid, groups: &[u32]| {
            let user = User { uid, gid, groups: groups.to_vec(), home: "/".into() };
            found.check(&user).map_err(|refused| refused.field)
        };
        assert_eq!(check(99, 9, &[0, 9]), Ok(()));
        let field = |name: &str| Err(format!("config.linux.security_context.{name}"));
        assert_eq!(check(100, 9, &[]), field("run_as_user"));
        assert_eq!(check(0, 10, &[]), field("run_as_group"));
        assert_eq!(check(0, 0, &[0, 10]), field("supplemental_groups"));
    }
}
