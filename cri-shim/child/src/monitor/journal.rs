//! The monitor's own record, `STATE/pods/ID/journal`: what began and what ended, appended before
//! anybody is told. Entries that a full disk refused are kept, in order, and tried again.

use shim_model::limits;
use shim_model::wire::{Journal, encode_journal};
use shim_sys::{clock, fd};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: OwnedFd,
    /// Bytes that are not in the file yet.
    waiting: Vec<u8>,
    /// When to try again.
    pub(crate) retry_at: Option<Duration>,
}

impl JournalFile {
    pub(crate) const fn new(file: OwnedFd) -> Self {
        Self { file, waiting: Vec::new(), retry_at: None }
    }

    /// Appends one entry, after those that still wait.
    pub(crate) fn append(&mut self, entry: &Journal) {
        // An entry always has a form: it holds no map of unknown length and no float.
        if let Ok(bytes) = encode_journal(entry) {
            self.waiting.extend_from_slice(&bytes);
        }
        self.write();
    }

    /// Tries again what waits, if it is time.
    pub(crate) fn retry(&mut self, now: Duration) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.write();
        }
    }

    fn write(&mut self) {
        self.retry_at = None;
        while !self.waiting.is_empty() {
            match fd::write(&self.file, &self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(_full) => {
                    let at = clock::monotonic().saturating_add(limits::WRITE_RETRY);
                    self.retry_at = Some(at);
                    return;
                }
            }
        }
        self.waiting = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::JournalFile;
    use shim_model::wire::{Journal, decode_journal};
    use shim_sys::clock;
    use std::io::Read;

    #[test]
    fn refused_entries_are_written_later_and_in_order() {
        // A pipe that is full refuses as a full disk does, and is emptied more easily.
        let (input, output) = shim_sys::fd::pipe().unwrap();
        shim_sys::fd::set_nonblocking(&output).unwrap();
        let filler = vec![0; 65536];
        assert_eq!(shim_sys::fd::write(&output, &filler).unwrap(), filler.len());
        let mut journal = JournalFile::new(output);
        journal.append(&Journal::PodInitExited { at: 1 });
        journal.append(&Journal::PodInitExited { at: 2 });
        assert!(journal.retry_at.is_some_and(|at| at > clock::monotonic()));
        let mut input = std::fs::File::from(input);
        input.read_exact(&mut vec![0; 65536]).unwrap();
        journal.retry(std::time::Duration::MAX);
        drop(journal);
        let mut text = Vec::new();
        input.read_to_end(&mut text).unwrap();
        let wanted = vec![Journal::PodInitExited { at: 1 }, Journal::PodInitExited { at: 2 }];
        assert_eq!(decode_journal(&text), (wanted, 0));
    }
}
