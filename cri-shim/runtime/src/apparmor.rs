//! AppArmor on this node: which profiles the kernel has, and our own among them. It is loaded at the daemon's
//! start by `apparmor_parser`, which nobody replaces: the kernel takes compiled profiles only. Its text is kept in
//! the state folder, so that a daemon that comes back loads what changed and nothing else.

use crate::error::{RuntimeError, chain};
use crate::handlers::program;
use crate::store::disk;
use parking_lot::Mutex;
use shim_model::labels::apparmor::{self, Choice, DEFAULT};
use shim_model::limits;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Names of all profiles, by the kernel.
const LIST: &str = "/sys/kernel/security/apparmor/profiles";
/// The program that compiles and loads.
const PARSER: &str = "apparmor_parser";
/// There where the parser knows what `abi` declares.
const ABI: &str = "/etc/apparmor.d/abi/3.0";

/// The profiles of this node; clones share everything.
#[derive(Clone, Debug)]
pub struct AppArmor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// It is on in the kernel.
    on: bool,
    folder: PathBuf,
    /// Held while our own profile is loaded.
    loading: tokio::sync::Mutex<()>,
    /// Why our own could not be loaded, and when that was.
    failed: Mutex<Option<(Instant, String)>>,
}

impl AppArmor {
    /// Loads our own profile, if this node's kernel wants any. Waited for: the first container finds it there.
    pub async fn start(on: bool, state: &Path) -> Self {
        let folder = state.join("apparmor");
        let (loading, failed) = (tokio::sync::Mutex::default(), Mutex::default());
        let known = Self(Arc::new(Inner { on, folder, loading, failed }));
        if on && let Err(why) = known.renew().await {
            tracing::warn!(
                why,
                "the AppArmor profile {DEFAULT} cannot be loaded; a container that names no profile runs without \
                 one, a container that asks for the runtime's default is refused"
            );
        }
        known
    }

    /// The profile that a choice comes to; `None` = unconfined. `field` is the request's.
    pub async fn label(
        &self,
        field: &str,
        choice: Choice<'_>,
    ) -> Result<Option<String>, RuntimeError> {
        match choice {
            Choice::Unconfined => Ok(None),
            Choice::Named(name) if apparmor::is_loaded(&list()?, name) => Ok(Some(name.to_owned())),
            Choice::Named(name) => Err(apparmor::not_loaded(field, name).into()),
            Choice::Default | Choice::Usual => match (self.ensure().await, choice) {
                (Ok(()), _) => Ok(Some(DEFAULT.to_owned())),
                (Err(_told_at_the_start), Choice::Usual) => Ok(None),
                (Err(why), _) => Err(apparmor::no_default(field, &why).into()),
            },
        }
    }

    /// What it is, for whoever asks.
    pub fn condition(&self) -> serde_json::Value {
        let loaded = self.0.on && list().is_ok_and(|list| apparmor::is_loaded(&list, DEFAULT));
        let why = self.0.failed.lock().as_ref().map(|(_, why)| why.clone());
        serde_json::json!({
            "enabled": self.0.on,
            "defaultProfile": DEFAULT,
            "defaultProfileLoaded": loaded,
            "reason": why.filter(|_| !loaded),
        })
    }

    /// Our own is there: somebody may have taken it away since it was loaded (aa-remove-unknown(8) does).
    async fn ensure(&self) -> Result<(), String> {
        if is_there()? {
            return Ok(());
        }
        let _one_at_a_time = self.0.loading.lock().await;
        if is_there()? {
            return Ok(());
        }
        if let Some((when, why)) = self.0.failed.lock().as_ref()
            && when.elapsed() < limits::APPARMOR_AGAIN
        {
            return Err(why.clone());
        }
        self.load().await
    }

    /// Loads our own, unless this very text was loaded before and is there.
    async fn renew(&self) -> Result<(), String> {
        let _one_at_a_time = self.0.loading.lock().await;
        let kept = std::fs::read_to_string(self.file()).is_ok_and(|known| known == text());
        if kept && is_there()? { Ok(()) } else { self.load().await }
    }

    async fn load(&self) -> Result<(), String> {
        let done = self.load_now().await;
        *self.0.failed.lock() = done.as_ref().err().map(|why| (Instant::now(), why.clone()));
        done
    }

    async fn load_now(&self) -> Result<(), String> {
        let told = |error: RuntimeError| chain(&error);
        let file = self.file();
        // Without a text a daemon that comes back would take a failure for a success.
        let _there_or_not = std::fs::remove_file(&file);
        disk::make(&self.0.folder).map_err(told)?;
        let written = file.with_extension("new");
        disk::write_file(&written, text().as_bytes()).map_err(told)?;
        // Replaces one that is loaded, and neither reads nor writes a cache: there is but one.
        let words = ["--replace".into(), "--skip-cache".into(), written.clone().into_os_string()];
        let output = program::run(Path::new(PARSER), &words, limits::APPARMOR_LOAD).await;
        let output = match output {
            Err(RuntimeError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{PARSER} is not installed (the package apparmor has it)"));
            }
            output => output.map_err(told)?,
        };
        if !output.success || !is_there()? {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: String = said.trim().chars().take(500).collect();
            return Err(format!("{PARSER} did not load it: {said}"));
        }
        tracing::info!(profile = DEFAULT, "the AppArmor profile is loaded");
        std::fs::rename(&written, &file)
            .map_err(|error| told(RuntimeError::file("make", file)(error)))
    }

    fn file(&self) -> PathBuf {
        self.0.folder.join(DEFAULT)
    }
}

fn text() -> String {
    apparmor::profile(Path::new(ABI).exists())
}

fn is_there() -> Result<bool, String> {
    list().map(|list| apparmor::is_loaded(&list, DEFAULT)).map_err(|error| chain(&error))
}

/// The kernel's list.
fn list() -> Result<String, RuntimeError> {
    let mut text = String::new();
    File::open(LIST)
        .and_then(|file| file.take(limits::APPARMOR_LIST_BYTES).read_to_string(&mut text))
        .map_err(RuntimeError::file("read the loaded AppArmor profiles", LIST))?;
    Ok(text)
}
