//! The ledger: what the kubelet must still be told after a reboot. One append-only, checksummed file
//! in the durable data. Appending never waits for the disk; a thread of its own flushes it about once
//! a second, and writes it anew when it is mostly about what is gone. A damaged tail is reported and cut;
//! what stands before it is used.

use super::container::ContainerRecord;
use super::pod::PodRecord;
use crate::error::RuntimeError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shim_model::container::life::State;
use shim_model::id::{ContainerId, SandboxId};
use shim_model::limits;
use shim_model::record;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A pod is about to exist.
    Pod { boot: String, record: Box<PodRecord> },
    /// Its network attachment was taken away.
    Detached { id: SandboxId },
    /// A container was made.
    Container { record: Box<ContainerRecord> },
    /// A container's life changed in a way that must not be forgotten (it started, it ended).
    Life { id: ContainerId, life: State },
    /// A container was removed.
    ContainerGone { id: ContainerId },
    /// A pod was removed.
    PodGone { id: SandboxId },
}

/// A pod as the ledger remembers it.
#[derive(Clone, Debug)]
pub struct PastPod {
    /// In which boot it was made.
    pub boot: String,
    /// What it was.
    pub record: PodRecord,
    /// True while its network attachment may still hold an address.
    pub attached: bool,
    /// Its containers with their last known life.
    pub containers: BTreeMap<ContainerId, (ContainerRecord, Option<State>)>,
}

/// Everything the ledger remembers, without what was removed since.
pub type Past = BTreeMap<SandboxId, PastPod>;

/// The open ledger.
#[derive(Debug)]
pub struct Ledger {
    open: Arc<Mutex<Open>>,
    dirty: SyncSender<()>,
}

/// The file that lines are appended to.
#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes of whole lines.
    length: u64,
    /// Bytes when it was last written anew.
    living: u64,
}

impl Ledger {
    /// Reads the ledger of this data folder, writes it anew without dead lines, and opens it.
    pub fn open(root: &Path) -> Result<(Self, Past), RuntimeError> {
        let path = root.join("ledger");
        let past = match File::open(&path) {
            Ok(file) => {
                let whole = file.metadata().map_or(0, |meta| meta.len());
                let mut lines = Lines::of(file, whole);
                let past = replay(&mut lines);
                let torn = whole.saturating_sub(lines.used);
                if torn > 0 {
                    tracing::warn!(path = %path.display(), torn, "the end of the ledger is damaged and was cut");
                }
                past
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Past::new(),
            Err(error) => return Err(RuntimeError::file("read the ledger", &path)(error)),
        };
        let living = compact(&path, &past)?;
        fs::rename(beside(&path), &path)
            .map_err(RuntimeError::file("replace the ledger", &path))?;
        let file = append_to(&path)?;
        let open = Arc::new(Mutex::new(Open { file, length: living, living }));
        let dirty = flusher(&open, path)?;
        Ok((Self { open, dirty }, past))
    }

    /// Appends a line. Never waits for the disk and never fails its caller: a ledger that cannot be
    /// written costs knowledge after a reboot, not a pod now, so the failure is told and work goes on.
    pub fn append(&self, entry: &Entry) {
        let Ok(payload) = serde_json::to_vec(entry) else {
            tracing::error!("a ledger line has no JSON form");
            return;
        };
        let line = record::frame(&payload);
        let mut open = self.open.lock();
        match open.file.write_all(&line) {
            Ok(()) => open.length = open.length.saturating_add(line.len() as u64),
            Err(error) => {
                // Half a line would hide every later one.
                let _stays_torn_then = open.file.set_len(open.length);
                tracing::warn!(%error, "the ledger cannot be written; a reboot would forget this change");
            }
        }
        drop(open);
        let _full_means_a_flush_is_due_anyway = self.dirty.try_send(());
    }
}

fn append_to(path: &Path) -> Result<File, RuntimeError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(RuntimeError::file("open the ledger", path))
}

/// Where a ledger is written anew.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Starts the thread that flushes about once a second while there is something to flush, and writes the
/// ledger anew when it has grown.
fn flusher(open: &Arc<Mutex<Open>>, path: PathBuf) -> Result<SyncSender<()>, RuntimeError> {
    let (sender, receiver) = sync_channel::<()>(1);
    let (open, told) = (Arc::clone(open), path.clone());
    std::thread::Builder::new()
        .name("ledger".into())
        .stack_size(256 << 10)
        .spawn(move || {
            while receiver.recv().is_ok() {
                let waited = receiver.recv_timeout(limits::LEDGER_FLUSH);
                while receiver.try_recv().is_ok() {}
                if let Err(error) = tend(&open, &path) {
                    let error = crate::error::chain(&error);
                    tracing::warn!(error, "the ledger cannot be flushed");
                }
                if waited == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
                std::thread::sleep(limits::LEDGER_FLUSH / 2);
            }
        })
        .map_err(RuntimeError::file("start the thread that flushes", told))?;
    Ok(sender)
}

/// Flushes the ledger, or writes it anew.
fn tend(open: &Mutex<Open>, path: &Path) -> Result<(), RuntimeError> {
    let (file, grown) = {
        let open = open.lock();
        let dead = open.length.saturating_sub(open.living);
        let grown = dead > limits::LEDGER_DEAD_BYTES.max(open.living.saturating_mul(2));
        (open.file.try_clone().map_err(RuntimeError::file("duplicate", path))?, grown)
    };
    if grown {
        rewrite(open, path)?;
    }
    // After a rewrite this flushes the old file, which costs nothing that matters.
    file.sync_data().map_err(RuntimeError::file("flush", path))
}

/// Writes the living lines anew beside appending: who appends waits only for the few lines that came
/// meanwhile, which are in memory.
fn rewrite(open: &Mutex<Open>, path: &Path) -> Result<(), RuntimeError> {
    let known = open.lock().length;
    let file = File::open(path).map_err(RuntimeError::file("read the ledger", path))?;
    let past = replay(Lines::of(file, known));
    let living = compact(path, &past)?;
    let mut new = append_to(&beside(path))?;
    let mut open = open.lock();
    let mut meanwhile = Vec::new();
    let failed = || RuntimeError::file("write the ledger anew", path);
    let mut old = File::open(path).map_err(failed())?;
    old.seek(SeekFrom::Start(known)).map_err(failed())?;
    old.read_to_end(&mut meanwhile).map_err(failed())?;
    new.write_all(&meanwhile).map_err(failed())?;
    fs::rename(beside(path), path).map_err(failed())?;
    let length = living.saturating_add(meanwhile.len() as u64);
    *open = Open { file: new.try_clone().map_err(failed())?, length, living };
    drop(open);
    new.sync_data().map_err(failed())
}

/// The lines of a ledger, one in memory at a time: a large buffer, once freed, would stay with the daemon.
struct Lines {
    from: std::io::Take<BufReader<File>>,
    /// Bytes of whole lines so far.
    used: u64,
}

impl Lines {
    /// Up to so many bytes.
    fn of(file: File, upto: u64) -> Self {
        Self { from: BufReader::with_capacity(16 << 10, file).take(upto), used: 0 }
    }

    /// The next frame with its payload; `None` at the end and at what is damaged.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0u8; record::FRAME_HEADER];
        self.from.read_exact(&mut frame).ok()?;
        let length = u64::from(u32::from_le_bytes(*frame.first_chunk()?));
        if length > limits::RECORD_BYTES as u64 {
            return None;
        }
        (&mut self.from).take(length).read_to_end(&mut frame).ok()?;
        Some(frame)
    }
}

impl Iterator for Lines {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let frame = self.frame()?;
            let (payloads, _torn) = record::frames(&frame);
            let payload = payloads.first()?;
            self.used = self.used.saturating_add(frame.len() as u64);
            // A line that a later version wrote is passed over.
            if let Ok(entry) = serde_json::from_slice(payload) {
                return Some(entry);
            }
        }
    }
}

/// What is true after all lines.
fn replay(entries: impl Iterator<Item = Entry>) -> Past {
    let mut past = Past::new();
    for entry in entries {
        match entry {
            Entry::Pod { boot, record } => {
                let attached = record.attachment.is_some();
                let pod = PastPod { boot, attached, record: *record, containers: BTreeMap::new() };
                past.insert(pod.record.id.clone(), pod);
            }
            Entry::Detached { id } => {
                past.entry(id).and_modify(|pod| pod.attached = false);
            }
            Entry::Container { record } => {
                if let Some(pod) = past.get_mut(&record.sandbox) {
                    pod.containers.insert(record.id.clone(), (*record, None));
                }
            }
            Entry::Life { id, life } => {
                let found = past.values_mut().find_map(|pod| pod.containers.get_mut(&id));
                if let Some((_, known)) = found {
                    *known = Some(life);
                }
            }
            Entry::ContainerGone { id } => {
                for pod in past.values_mut() {
                    pod.containers.remove(&id);
                }
            }
            Entry::PodGone { id } => {
                past.remove(&id);
            }
        }
    }
    past
}

/// Writes the living lines beside the ledger and flushes them; their bytes. Renamed over it by the caller:
/// a crash leaves the old ledger or the new one.
fn compact(path: &Path, past: &Past) -> Result<u64, RuntimeError> {
    let beside = beside(path);
    let failed = || RuntimeError::file("write", &beside);
    super::disk::write_file(&beside, b"")?;
    let mut to = BufWriter::new(append_to(&beside)?);
    let mut bytes = 0u64;
    let mut push = |entry: &Entry| -> Result<(), RuntimeError> {
        let Ok(payload) = serde_json::to_vec(entry) else { return Ok(()) };
        let line = record::frame(&payload);
        bytes = bytes.saturating_add(line.len() as u64);
        to.write_all(&line).map_err(failed())
    };
    for (id, pod) in past {
        push(&Entry::Pod { boot: pod.boot.clone(), record: Box::new(pod.record.clone()) })?;
        if !pod.attached {
            push(&Entry::Detached { id: id.clone() })?;
        }
        for (id, (record, life)) in &pod.containers {
            push(&Entry::Container { record: Box::new(record.clone()) })?;
            if let Some(life) = life {
                push(&Entry::Life { id: id.clone(), life: life.clone() })?;
            }
        }
    }
    let file = to.into_inner().map_err(|error| failed()(error.into_error()))?;
    file.sync_all().map_err(RuntimeError::file("flush", &beside))?;
    Ok(bytes)
}
