//! Compiled seccomp filters, kept by profile and capabilities: compiling costs more than everything
//! else of a start, and a node uses a handful of combinations.

use crate::error::RuntimeError;
use parking_lot::Mutex;
use shim_model::host::Host;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::seccomp::compile::{self, SeccompFacts};
use shim_model::seccomp::default;
use shim_model::seccomp::names::Machine;
use shim_model::seccomp::profile::Profile;
use shim_model::spec::security::SeccompChoice;
use std::collections::HashMap;
use std::sync::Arc;

/// Filters by choice, profile text and capabilities.
#[derive(Debug, Default)]
pub struct Filters {
    known: Mutex<HashMap<(Vec<u8>, u64), Arc<[u8]>>>,
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
    ) -> Result<Option<Arc<[u8]>>, RuntimeError> {
        let text = match choice {
            SeccompChoice::Unconfined => return Ok(None),
            SeccompChoice::Default => Vec::new(),
            SeccompChoice::File(path) => profile_text(path)?,
        };
        let key = (text, capabilities);
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let filter: Arc<[u8]> = compile(choice, &key.0, capabilities, host)?.into();
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, Arc::clone(&filter));
        Ok(Some(filter))
    }
}

fn profile_text(path: &str) -> Result<Vec<u8>, RuntimeError> {
    let field = "config.linux.security_context.seccomp.localhost_ref";
    let found = std::fs::metadata(path).map_err(|error| {
        Refused::new(field, format!("{path}: {error}"), "the path of a seccomp profile")
    })?;
    if !found.is_file() || found.len() > limits::SECCOMP_PROFILE_BYTES as u64 {
        return Err(Refused::new(field, path, "a regular file of up to 1 MiB").into());
    }
    std::fs::read(path).map_err(RuntimeError::file("read the seccomp profile", path))
}

fn compile(
    choice: &SeccompChoice,
    text: &[u8],
    capabilities: u64,
    host: &Host,
) -> Result<Vec<u8>, RuntimeError> {
    let machine = Machine::of(&host.machine).ok_or_else(|| {
        RuntimeError::Unsupported(format!("seccomp filters for {}", host.machine))
    })?;
    let facts = SeccompFacts { machine, kernel: host.kernel, capabilities };
    let filter = match choice {
        SeccompChoice::File(_) => compile::compile(&Profile::parse(text)?, &facts)?,
        SeccompChoice::Default | SeccompChoice::Unconfined => default::filter(&facts)?,
    };
    if !filter.skipped.is_empty() {
        tracing::warn!(names = ?filter.skipped, "a seccomp profile permits calls that no kernel has; they were skipped");
    }
    Ok(filter.to_bytes())
}
