//! What containers print: from their pipes and terminals to their logs, and to who is attached. One
//! bounded read for each pipe and turn, so that a flood of one container delays no other; a writer that is
//! faster than the log waits, nothing is dropped. All containers share one pair of buffers, which an idle
//! monitor gives back.

use super::container::{Container, Phase};
use super::log::Writer;
use super::{Key, Monitor};
use shim_model::limits;
use shim_model::log::{Output, stamp};
use shim_sys::{clock, fd};
use std::time::Duration;

/// The buffers: what was read, what is to be written.
#[derive(Debug)]
pub(crate) struct Scratch {
    input: Vec<u8>,
    batch: Vec<u8>,
    /// When to give them back.
    pub(crate) idle_at: Duration,
}

impl Scratch {
    fn new() -> Self {
        Self {
            input: vec![0; limits::LOG_READ_BYTES],
            batch: Vec::with_capacity(limits::LOG_BATCH_BYTES),
            idle_at: Duration::MAX,
        }
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end.
    End,
}

impl Monitor {
    /// A container printed something, or its last writer closed.
    pub(crate) fn output_ready(&mut self, key: Key, output: Output) {
        let mut scratch = self.scratch.take().unwrap_or_else(Scratch::new);
        self.read_once(key, output, &mut scratch);
        scratch.idle_at = clock::monotonic().saturating_add(limits::LOG_BUFFER_IDLE);
        self.scratch = Some(scratch);
        self.finish_if_drained(key);
    }

    /// Reads what a pipe holds at most, to the log first, then to whoever is attached.
    fn read_once(&mut self, key: Key, output: Output, scratch: &mut Scratch) -> Got {
        let Some(container) = self.containers.get_mut(&key) else { return Got::End };
        let got = log_once(container, output, scratch);
        match got {
            Got::Bytes(count) => {
                self.fan_out(key, output, scratch.input.get(..count).unwrap_or_default());
            }
            Got::Nothing => {}
            Got::End => self.output_ended(key, output),
        }
        got
    }

    /// An output that was read to its end, or as far as it will be.
    fn output_ended(&mut self, key: Key, output: Output) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        if let Some(stream) = container.stream(output).take() {
            // A terminal may have a second descriptor, as standard input: the watch would go on.
            drop(self.poll.remove(&stream.pipe));
        }
        self.end_outputs(key, output);
    }

    /// Ends the reading of containers that ended and whose pipes somebody still holds open.
    pub(crate) fn end_drains(&mut self, now: Duration) {
        let late: Vec<Key> = self
            .containers
            .iter()
            .filter(|(_, container)| container.deadline().is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            let mut scratch = self.scratch.take().unwrap_or_else(Scratch::new);
            for output in [Output::Standard, Output::Error] {
                self.read_rest(key, output, &mut scratch);
            }
            scratch.idle_at = now;
            self.scratch = Some(scratch);
            self.finish_if_drained(key);
        }
    }

    /// Reads what is there now, at most what a pipe can hold, and ends the stream.
    fn read_rest(&mut self, key: Key, output: Output, scratch: &mut Scratch) {
        // The largest pipe (/proc/sys/fs/pipe-max-size) is 1 MiB unless an administrator raised it.
        for _ in 0..(1 << 20) / limits::LOG_READ_BYTES {
            if !matches!(self.read_once(key, output, scratch), Got::Bytes(_)) {
                break;
            }
        }
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(mut stream) = container.stream(output).take() else { return };
        let mut writer = Writer { batch: &mut scratch.batch, log: &mut container.log };
        stream.lines.end(&stamp(clock::now()), &mut writer);
        writer.flush();
        *container.stream(output) = Some(stream);
        self.output_ended(key, output);
    }

    pub(crate) fn finish_if_drained(&mut self, key: Key) {
        let drained = self.containers.get(&key).is_some_and(|container| {
            container.is_drained() && matches!(container.phase, Phase::Draining { .. })
        });
        if drained {
            self.finish(key);
        }
    }
}

fn log_once(container: &mut Container, output: Output, scratch: &mut Scratch) -> Got {
    // Taken out while the log is borrowed.
    let Some(mut stream) = container.stream(output).take() else { return Got::End };
    let read = fd::read(&stream.pipe, &mut scratch.input);
    let time = stamp(clock::now());
    let mut writer = Writer { batch: &mut scratch.batch, log: &mut container.log };
    let got = match read {
        Ok(0) => Got::End,
        Ok(count) => {
            let input = scratch.input.get(..count).unwrap_or_default();
            stream.lines.feed(&time, input, &mut writer);
            Got::Bytes(count)
        }
        Err(error) if error.would_block() => Got::Nothing,
        // A terminal's end too is told by an error (EIO).
        Err(_broken) => Got::End,
    };
    if got == Got::End {
        stream.lines.end(&time, &mut writer);
    }
    writer.flush();
    *container.stream(output) = Some(stream);
    got
}
