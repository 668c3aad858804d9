//! Compiled seccomp filters, kept by profile and capabilities: compiling costs more than everything
//! else of a start, and a node uses a handful of combinations.

use crate::error::RuntimeError;
use parking_lot::Mutex;
use shim_model::host::Host;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::seccomp::compile::{self, Filter, SeccompFacts};
use shim_model::seccomp::default;
use shim_model::seccomp::names::Machine;
use shim_model::seccomp::oci;
use shim_model::seccomp::profile::Profile;
use shim_model::spec::security::SeccompChoice;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

/// A profile's text (`None` = the built-in one) and the capabilities that it is compiled for.
type Key = (Option<Vec<u8>>, u64);

/// Filters by profile and capabilities.
#[derive(Debug, Default)]
pub struct Filters {
    known: Mutex<HashMap<Key, Arc<Filter>>>,
}

/// Combinations that are kept; more means profiles made by a program, not by people.
const KEPT: usize = 256;

impl Filters {
    /// The filter of a choice; `None` = unconfined. Reads a profile file anew each time, because it
    /// may have changed, and compiles it only if its text did.
    pub fn get(
        &self,
        choice: &SeccompChoice,
        capabilities: u64,
        host: &Host,
    ) -> Result<Option<Arc<Filter>>, RuntimeError> {
        let text = match choice {
            SeccompChoice::Unconfined => return Ok(None),
            SeccompChoice::Default => None,
            SeccompChoice::File(path) => Some(profile_text(path)?),
        };
        let key = (text, capabilities);
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let filter = Arc::new(compile(key.0.as_deref(), capabilities, host)?);
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, Arc::clone(&filter));
        Ok(Some(filter))
    }
}

/// A choice in the words of the OCI spec, for a handler's program; `None` = unconfined.
pub fn said(
    choice: &SeccompChoice,
    capabilities: u64,
    host: &Host,
) -> Result<Option<serde_json::Value>, RuntimeError> {
    let facts = facts(capabilities, host)?;
    let profile = match choice {
        SeccompChoice::Unconfined => return Ok(None),
        SeccompChoice::Default => default::spelled(),
        SeccompChoice::File(path) => Profile::parse(&profile_text(path)?)?,
    };
    // What is refused for our own filters is refused here too.
    compile::compile(&profile, &facts)?;
    Ok(Some(oci::spec(&profile, &facts)))
}

fn facts(capabilities: u64, host: &Host) -> Result<SeccompFacts, RuntimeError> {
    let machine = Machine::of(&host.machine).ok_or_else(|| {
        RuntimeError::Unsupported(format!("seccomp filters for {}", host.machine))
    })?;
    Ok(SeccompFacts { machine, kernel: host.kernel, capabilities })
}

fn profile_text(path: &str) -> Result<Vec<u8>, RuntimeError> {
    let field = "config.linux.security_context.seccomp.localhost_ref";
    let refused = |found: String| Refused::new(field, found, "a regular file of up to 1 MiB");
    let unreadable = |error: std::io::Error| refused(format!("{path}: {error}"));
    // Looked at before it is opened: to open a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(refused(path.to_owned()).into());
    }
    let bound = u64::try_from(limits::SECCOMP_PROFILE_BYTES).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bound.saturating_add(1)).read_to_end(&mut text))
        .map_err(unreadable)?;
    if text.len() > limits::SECCOMP_PROFILE_BYTES {
        return Err(refused(format!("{path}: more than 1 MiB")).into());
    }
    Ok(text)
}

fn compile(text: Option<&[u8]>, capabilities: u64, host: &Host) -> Result<Filter, RuntimeError> {
    let facts = facts(capabilities, host)?;
    let filter = match text {
        Some(text) => compile::compile(&Profile::parse(text)?, &facts)?,
        None => default::filter(&facts)?,
    };
    if !filter.skipped.is_empty() {
        tracing::warn!(names = ?filter.skipped, "a seccomp profile permits calls that no kernel has; they were skipped");
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::Filters;
    use shim_model::host::Host;
    use shim_model::spec::security::SeccompChoice;
    use std::sync::Arc;

    #[test]
    fn equal_profiles_share_a_filter_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.json");
        let choice = SeccompChoice::File(path.to_str().unwrap().to_owned());
        let filters = Filters::default();
        let get = |capabilities| filters.get(&choice, capabilities, &Host::example());
        std::fs::write(&path, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        let (first, again) = (get(0).unwrap().unwrap(), get(0).unwrap().unwrap());
        assert!(Arc::ptr_eq(&first, &again));
        let log = r#"{"defaultAction":"SCMP_ACT_LOG","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#;
        std::fs::write(&path, log).unwrap();
        let changed = get(0).unwrap().unwrap();
        assert_ne!(first, changed);
        assert!(changed.log);
    }

    #[test]
    fn an_empty_or_missing_profile_is_not_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let filters = Filters::default();
        let host = Host::example();
        filters.get(&SeccompChoice::Default, 0, &host).unwrap().unwrap();
        let empty = folder.path().join("empty.json");
        std::fs::write(&empty, "").unwrap();
        for path in [&empty, &folder.path().join("missing.json"), &folder.path().to_owned()] {
            let choice = SeccompChoice::File(path.to_str().unwrap().to_owned());
            let error = filters.get(&choice, 0, &host).unwrap_err();
            assert_eq!(error.kind(), shim_model::kind::Kind::BadArgument, "{error}");
        }
    }
}
