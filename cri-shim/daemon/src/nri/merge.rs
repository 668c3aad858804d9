//! What several plugins, one after the other, make of one request: each sees the container as those before it
//! left it, and what they ask for is gathered. Pure. Two that want the same thing fail the request
//! (`owners.rs`), as with NRI's own runtime package; so does whatever this runtime cannot do (`adjust.rs`).

use super::owners::{Claims, Owners, removal};
use super::{adjust, resources};
use shim_model::limits;
use shim_model::resources::Resources;
use shim_proto::nri_v1alpha1 as nri;
use shim_proto::nri_v1alpha1::Field;
use shim_runtime::nri::Change;
use std::collections::BTreeMap;

/// What plugins ask for so far.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// Who asked.
    pub(super) owners: Owners,
    /// About the container that is being made.
    pub(super) adjust: nri::ContainerAdjustment,
    /// About others, or the one whose limits are about to change.
    pub(super) changes: BTreeMap<String, Change>,
    /// Who is to be stopped.
    pub(super) evict: Vec<(String, String)>,
}

impl Merged {
    /// Adds what a plugin makes of a new container, and changes what the next one sees.
    pub(super) fn adjust(
        &mut self,
        plugin: &str,
        container: &mut nri::Container,
        theirs: nri::ContainerAdjustment,
    ) -> Result<(), String> {
        adjust::refuse(&theirs)?;
        let id = container.id.clone();
        let mut claims = Claims { owners: &mut self.owners, container: &id, plugin };
        let ours = &mut self.adjust;
        annotations(&mut claims, ours, container, theirs.annotations)?;
        mounts(&mut claims, ours, container, theirs.mounts)?;
        variables(&mut claims, ours, container, theirs.env)?;
        arguments(&mut claims, ours, container, theirs.args)?;
        for limit in theirs.rlimits {
            claims.set(Field::Rlimits, &limit.r#type)?;
            container.rlimits.retain(|known| known.r#type != limit.r#type);
            container.rlimits.push(limit.clone());
            ours.rlimits.push(limit);
        }
        for device in theirs.cdi_devices {
            claims.set(Field::CdiDevices, &device.name)?;
            ours.cdi_devices.push(device);
        }
        if let Some(theirs) = theirs.hooks {
            // Every plugin may have hooks of its own.
            let all = container.hooks.get_or_insert_default();
            all.create_container.extend(theirs.create_container.iter().cloned());
            let ours = ours.hooks.get_or_insert_default();
            ours.create_container.extend(theirs.create_container);
        }
        theirs.linux.map_or(Ok(()), |theirs| linux(&mut claims, ours, container, theirs))
    }

    /// Adds limits that a plugin asks for; those of `being_made` cannot be changed like this.
    pub(super) fn updates(
        &mut self,
        plugin: &str,
        being_made: Option<&str>,
        updates: Vec<nri::ContainerUpdate>,
    ) -> Result<(), String> {
        bounded(updates.len())?;
        for update in updates {
            let id = update.container_id.clone();
            if being_made == Some(id.as_str()) {
                return Err(format!("it updates container {id} while that is being made"));
            }
            let (ours, sets) = match asked(&update) {
                Ok(asked) => asked,
                Err(why) if update.ignore_failure => {
                    tracing::warn!(plugin, id, why, "limits that a plugin asks for are not set");
                    continue;
                }
                Err(why) => return Err(why),
            };
            let mut claims = Claims { owners: &mut self.owners, container: &id, plugin };
            for (field, entry) in &sets {
                claims.set(*field, entry)?;
            }
            let change = self.changes.entry(id.clone()).or_insert_with(|| Change {
                container: id.clone(),
                resources: Resources::default(),
                may_fail: true,
            });
            change.resources = change.resources.changed(&ours);
            change.may_fail &= update.ignore_failure;
        }
        Ok(())
    }

    /// Adds containers that a plugin wants stopped.
    pub(super) fn evictions(&mut self, evict: Vec<nri::ContainerEviction>) -> Result<(), String> {
        bounded(evict.len().saturating_add(self.evict.len()))?;
        self.evict.extend(evict.into_iter().map(|one| (one.container_id, one.reason)));
        Ok(())
    }

    /// The pending changes, as validators are told.
    pub(super) fn shown_updates(&self) -> Vec<nri::ContainerUpdate> {
        let shown = |change: &Change| nri::ContainerUpdate {
            container_id: change.container.clone(),
            linux: Some(nri::LinuxContainerUpdate {
                resources: Some(resources::shown(&change.resources)),
            }),
            ignore_failure: change.may_fail,
        };
        self.changes.values().map(shown).collect()
    }
}

/// What one update sets.
pub(super) fn asked(
    update: &nri::ContainerUpdate,
) -> Result<(Resources, Vec<resources::Set>), String> {
    let theirs = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    theirs.map_or(Ok((Resources::default(), Vec::new())), resources::asked)
}

/// So many updates are allowed in one message.
pub(super) fn bounded(count: usize) -> Result<(), String> {
    let most = limits::NRI_UPDATES;
    if count > most {
        return Err(format!("it asks for {count} updates, at most {most} are allowed"));
    }
    Ok(())
}

fn annotations(
    claims: &mut Claims<'_>,
    ours: &mut nri::ContainerAdjustment,
    container: &mut nri::Container,
    theirs: BTreeMap<String, String>,
) -> Result<(), String> {
    // `-` sorts before letters, so what is taken away comes before what is set instead.
    let (removed, set): (Vec<_>, Vec<_>) = theirs.into_iter().partition(|(key, _)| removal(key).1);
    for (marked, _) in removed {
        let key = removal(&marked).0;
        claims.clear(Field::Annotations, key);
        container.annotations.remove(key);
        ours.annotations.remove(key);
        ours.annotations.insert(marked, String::new());
    }
    for (key, value) in set {
        claims.set(Field::Annotations, &key)?;
        container.annotations.insert(key.clone(), value.clone());
        ours.annotations.insert(key, value);
    }
    Ok(())
}

fn mounts(
    claims: &mut Claims<'_>,
    ours: &mut nri::ContainerAdjustment,
    container: &mut nri::Container,
    theirs: Vec<nri::Mount>,
) -> Result<(), String> {
    let marked = |mount: &nri::Mount| removal(&mount.destination).1;
    let (removed, set): (Vec<_>, Vec<_>) = theirs.into_iter().partition(marked);
    for mount in removed {
        let path = removal(&mount.destination).0;
        claims.clear(Field::Mounts, path);
        container.mounts.retain(|known| known.destination != path);
        ours.mounts.retain(|known| known.destination != path);
        ours.mounts.push(mount);
    }
    for mount in set {
        claims.set(Field::Mounts, &mount.destination)?;
        container.mounts.retain(|known| known.destination != mount.destination);
        container.mounts.push(mount.clone());
        ours.mounts.push(mount);
    }
    Ok(())
}

fn variables(
    claims: &mut Claims<'_>,
    ours: &mut nri::ContainerAdjustment,
    container: &mut nri::Container,
    theirs: Vec<nri::KeyValue>,
) -> Result<(), String> {
    let (removed, set): (Vec<_>, Vec<_>) = theirs.into_iter().partition(|one| removal(&one.key).1);
    let other = |entry: &String, key: &str| entry.split_once('=').is_none_or(|(k, _)| k != key);
    for variable in removed {
        let key = removal(&variable.key).0;
        claims.clear(Field::Env, key);
        container.env.retain(|entry| other(entry, key));
        ours.env.retain(|known| known.key != key);
        ours.env.push(variable);
    }
    for variable in set {
        claims.set(Field::Env, &variable.key)?;
        container.env.retain(|entry| other(entry, &variable.key));
        container.env.push(format!("{}={}", variable.key, variable.value));
        ours.env.push(variable);
    }
    Ok(())
}

/// An empty first argument says that another plugin's command is replaced.
fn arguments(
    claims: &mut Claims<'_>,
    ours: &mut nri::ContainerAdjustment,
    container: &mut nri::Container,
    mut theirs: Vec<String>,
) -> Result<(), String> {
    if theirs.is_empty() {
        return Ok(());
    }
    if theirs.first().is_some_and(String::is_empty) {
        claims.clear(Field::Args, "");
        theirs.remove(0);
    }
    claims.set(Field::Args, "")?;
    container.args.clone_from(&theirs);
    ours.args = theirs;
    Ok(())
}

fn linux(
    claims: &mut Claims<'_>,
    ours: &mut nri::ContainerAdjustment,
    container: &mut nri::Container,
    theirs: nri::LinuxContainerAdjustment,
) -> Result<(), String> {
    let (ours, shown) =
        (ours.linux.get_or_insert_default(), container.linux.get_or_insert_default());
    let marked = |device: &nri::LinuxDevice| removal(&device.path).1;
    let (removed, set): (Vec<_>, Vec<_>) = theirs.devices.into_iter().partition(marked);
    for device in removed {
        let path = removal(&device.path).0;
        claims.clear(Field::Devices, path);
        shown.devices.retain(|known| known.path != path);
        ours.devices.retain(|known| known.path != path);
        ours.devices.push(device);
    }
    for device in set {
        claims.set(Field::Devices, &device.path)?;
        shown.devices.retain(|known| known.path != device.path);
        shown.devices.push(device.clone());
        ours.devices.push(device);
    }
    if let Some(theirs) = &theirs.resources {
        let (asked, sets) = resources::asked(theirs)?;
        for (field, entry) in &sets {
            claims.set(*field, entry)?;
        }
        let over = |known: &Option<nri::LinuxResources>| {
            let known = known.as_ref().map_or(Ok(Default::default()), resources::asked)?;
            Ok::<_, String>(Some(resources::shown(&known.0.changed(&asked))))
        };
        shown.resources = over(&shown.resources)?;
        ours.resources = over(&ours.resources)?;
    }
    if let Some(score) = theirs.oom_score_adj {
        claims.set(Field::OomScoreAdj, "")?;
        shown.oom_score_adj = Some(score);
        ours.oom_score_adj = Some(score);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Merged;
    use shim_proto::nri_v1alpha1 as nri;

    fn variable(key: &str, value: &str) -> nri::ContainerAdjustment {
        let env = vec![nri::KeyValue { key: key.into(), value: value.into() }];
        nri::ContainerAdjustment { env, ..Default::default() }
    }

    fn cpus(cpus: &str) -> nri::LinuxResources {
        let cpu = Some(nri::LinuxCpu { cpus: cpus.into(), ..Default::default() });
        nri::LinuxResources { cpu, ..Default::default() }
    }

    fn pinned(to: &str) -> nri::ContainerAdjustment {
        let resources = Some(cpus(to));
        let linux = nri::LinuxContainerAdjustment { resources, ..Default::default() };
        nri::ContainerAdjustment { linux: Some(linux), ..Default::default() }
    }

    /// Plugins 00-a, 01-b, … one after the other; what the last one is shown, or why it failed.
    fn check(all: Vec<nri::ContainerAdjustment>) -> Result<(nri::Container, Merged), String> {
        let env = vec!["HOME=/".to_owned()];
        let mut container = nri::Container { id: "c".into(), env, ..Default::default() };
        let mut merged = Merged::default();
        for (index, theirs) in all.into_iter().enumerate() {
            let name = ["00-a", "01-b", "02-c"][index];
            merged.adjust(name, &mut container, theirs)?;
        }
        Ok((container, merged))
    }

    #[test]
    fn the_next_plugin_sees_what_the_earlier_ones_did() {
        let (seen, merged) =
            check(vec![variable("A", "1"), variable("HOME", "/x"), pinned("1")]).unwrap();
        assert_eq!(seen.env, ["A=1", "HOME=/x"]);
        assert_eq!(seen.linux.unwrap().resources.unwrap().cpu.unwrap().cpus, "1");
        assert_eq!(merged.adjust.env.len(), 2);
        let owners = merged.owners.shown();
        let owners = &owners.owners["c"];
        assert_eq!(owners.compound[&6].owners["HOME"], "01-b");
        assert_eq!(owners.simple[&21], "02-c");
    }

    #[test]
    fn two_plugins_cannot_set_the_same_thing() {
        let conflict = check(vec![variable("A", "1"), variable("A", "1")]).unwrap_err();
        assert_eq!(conflict, "plugins 00-a and 01-b both set Env \"A\"");
        assert!(check(vec![pinned("0"), pinned("1")]).unwrap_err().contains("CPUSetCPUs"));
    }

    #[test]
    fn a_plugin_may_take_away_what_another_set_and_set_its_own() {
        let mut both = variable("-A", "");
        both.env.push(nri::KeyValue { key: "A".into(), value: "2".into() });
        let (seen, merged) = check(vec![variable("A", "1"), both]).unwrap();
        assert_eq!(seen.env, ["HOME=/", "A=2"]);
        let env: Vec<_> = merged.adjust.env.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(env, ["-A", "A"]);
        // What is taken away belongs to who took it.
        assert!(check(vec![variable("A", "1"), variable("-A", ""), variable("A", "3")]).is_err());
    }

    #[test]
    fn updates_of_several_plugins_are_one_change_of_each_container() {
        let update = |id: &str, resources, ignore_failure| nri::ContainerUpdate {
            container_id: id.into(),
            linux: Some(nri::LinuxContainerUpdate { resources: Some(resources) }),
            ignore_failure,
        };
        let memory =
            nri::LinuxMemory { limit: Some(nri::OptionalInt64 { value: 5 }), ..Default::default() };
        let memory = nri::LinuxResources { memory: Some(memory), ..Default::default() };
        let mut merged = Merged::default();
        merged.updates("00-a", Some("new"), vec![update("x", cpus("1"), true)]).unwrap();
        merged.updates("01-b", Some("new"), vec![update("x", memory, false)]).unwrap();
        let change = &merged.changes["x"];
        assert_eq!(
            (change.resources.cpuset_cpus.as_str(), change.resources.memory_limit),
            ("1", 5)
        );
        assert!(!change.may_fail);
        let conflict = merged.updates("02-c", None, vec![update("x", cpus("2"), false)]);
        assert!(conflict.unwrap_err().contains("both set"));
        let itself = merged.updates("02-c", Some("new"), vec![update("new", cpus("2"), true)]);
        assert!(itself.unwrap_err().contains("being made"));
    }
}
