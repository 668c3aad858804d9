//! Which plugin set what of which container: two plugins may not set the same thing, unless the later one
//! says that it takes away what the earlier one did. Pure; one value lives as long as one request.

use shim_proto::nri_v1alpha1 as nri;
use shim_proto::nri_v1alpha1::Field;
use std::collections::BTreeMap;

/// Who set what, by container, field, and the entry of fields that have several.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<(String, i32, String), String>);

/// One plugin at work on one container.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    pub(super) owners: &'a mut Owners,
    pub(super) container: &'a str,
    pub(super) plugin: &'a str,
}

impl Claims<'_> {
    /// This plugin sets it.
    pub(super) fn set(&mut self, field: Field, entry: &str) -> Result<(), String> {
        let key = (self.container.to_owned(), i32::from(field), entry.to_owned());
        let owner = self.owners.0.entry(key).or_insert_with(|| self.plugin.to_owned());
        if owner == self.plugin {
            return Ok(());
        }
        let what = if entry.is_empty() { String::new() } else { format!(" \"{entry}\"") };
        let (field, plugin) = (field.as_str_name(), self.plugin);
        Err(format!("plugins {owner} and {plugin} both set {field}{what}"))
    }

    /// This plugin takes away what another one set, if one did.
    pub(super) fn clear(&mut self, field: Field, entry: &str) {
        let key = (self.container.to_owned(), i32::from(field), entry.to_owned());
        if let Some(owner) = self.owners.0.get_mut(&key) {
            self.plugin.clone_into(owner);
        }
    }
}

impl Owners {
    /// As validators are told.
    pub(super) fn shown(&self) -> nri::OwningPlugins {
        let mut shown = nri::OwningPlugins::default();
        for ((container, field, entry), plugin) in &self.0 {
            let fields = shown.owners.entry(container.clone()).or_default();
            if entry.is_empty() {
                fields.simple.insert(*field, plugin.clone());
            } else {
                let entries = fields.compound.entry(*field).or_default();
                entries.owners.insert(entry.clone(), plugin.clone());
            }
        }
        shown
    }
}

/// `-name` → `name`, to be taken away.
pub(super) fn removal(name: &str) -> (&str, bool) {
    name.strip_prefix('-').map_or((name, false), |name| (name, true))
}
