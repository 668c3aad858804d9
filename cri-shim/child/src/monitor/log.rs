//! A container's log file: whole records only, whatever a full disk does. A write that stops half-way
//! is cut back to the last whole record; what is lost is counted and told with the exit, and the next
//! record is tried anew. Cutting output into records is `shim_model::log`.

use shim_model::limits;
use shim_model::log::{Batch, content_bytes, whole_records};
use shim_sys::fd;
use std::os::fd::OwnedFd;

/// Where a container's records go; without a file they are dropped, as was asked.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: Option<OwnedFd>,
    /// Bytes of output that are in no file.
    pub(crate) lost: u64,
}

impl LogFile {
    /// `file` is open for appending.
    pub(crate) const fn new(file: Option<OwnedFd>) -> Self {
        Self { file, lost: 0 }
    }

    /// Everything from now on goes to this file; everything before is in the old one already.
    pub(crate) fn reopen(&mut self, file: OwnedFd) {
        self.file = Some(file);
    }

    /// The container ended.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    fn write(&mut self, batch: &[u8]) {
        let Some(file) = &self.file else { return };
        let mut written = 0;
        while let Some(rest) = batch.get(written..).filter(|rest| !rest.is_empty()) {
            match fd::write(file, rest) {
                Ok(count) => written = written.saturating_add(count),
                Err(_full) => break,
            }
        }
        let whole = whole_records(batch, written);
        if whole < written {
            // Nobody else appends to this file, so its end is ours.
            let torn = u64::try_from(written.saturating_sub(whole)).unwrap_or(0);
            let cut = fd::size(file).and_then(|size| fd::truncate(file, size.saturating_sub(torn)));
            drop(cut);
        }
        let lost = content_bytes(batch.get(whole..).unwrap_or_default());
        self.lost = self.lost.saturating_add(u64::try_from(lost).unwrap_or(u64::MAX));
    }
}

/// Collects records and writes them to a log, several at once.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) batch: &'a mut Vec<u8>,
    pub(crate) log: &'a mut LogFile,
}

impl Writer<'_> {
    pub(crate) fn flush(&mut self) {
        self.log.write(self.batch);
        self.batch.clear();
    }
}

impl Batch for Writer<'_> {
    fn room(&mut self, length: usize) -> &mut Vec<u8> {
        if self.batch.len().saturating_add(length) > limits::LOG_BATCH_BYTES {
            self.flush();
        }
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::{LogFile, Writer};
    use shim_model::log::{Lines, Output, stamp};
    use std::io::Read;

    #[test]
    fn a_full_disk_leaves_whole_records_and_a_count() {
        // A pipe of one page holds 4096 bytes: then it refuses, as a full disk does.
        let (input, output) = shim_sys::fd::pipe().unwrap();
        shim_sys::fd::set_nonblocking(&output).unwrap();
        let mut log = LogFile::new(Some(output));
        let (mut lines, mut batch) = (Lines::new(Output::Standard), Vec::new());
        let mut writer = Writer { batch: &mut batch, log: &mut log };
        lines.feed(&stamp(0), &b"0123456789\n".repeat(10_000), &mut writer);
        writer.flush();
        let written = 65536 / 51;
        assert!(log.lost >= (10_000 - written - 1) * 10, "{}", log.lost);
        log.close();
        let mut text = String::new();
        std::fs::File::from(input).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("1970-01-01T00:00:00.000000000Z stdout F 0123456789\n"));
    }

    #[test]
    fn without_a_file_nothing_is_lost_for_nothing_was_asked() {
        let mut log = LogFile::new(None);
        log.write(b"record\n");
        assert_eq!(log.lost, 0);
    }
}
