//! `wherry logs`: the CRI log file, back as the container said it. Follows a file that is renamed and
//! made anew, and ends when the container has ended and all was read.

use super::CliError;
use super::client::Client;
use clap::Args;
use shim_proto::runtime_v1 as cri;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often a quiet log is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `wherry logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// Print times
    #[arg(short, long)]
    timestamps: bool,
    /// Container
    container: String,
}

/// What is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Show {
    tail: Option<usize>,
    timestamps: bool,
}

/// Prints a log.
pub(crate) async fn logs(args: &Logs, client: &mut Client) -> Result<u8, CliError> {
    let found = client.find(&args.container).await?;
    let show = Show { tail: args.tail, timestamps: args.timestamps };
    if args.follow {
        follow(client, &found.container.id, show).await?;
        return Ok(0);
    }
    let status = client.status(&found.container.id).await?;
    let mut reading = Reading::open(&status.log_path, show)?;
    reading.print_new()?;
    Ok(0)
}

/// Prints a log until its container ends.
pub(crate) async fn follow(client: &mut Client, id: &str, show: Show) -> Result<(), CliError> {
    let status = client.status(id).await?;
    let mut reading = Reading::open(&status.log_path, show)?;
    loop {
        // Asked first: what was written before the end is then read.
        let ended = match client.status(id).await {
            Ok(status) => status.state() == cri::ContainerState::ContainerExited,
            Err(_) => true,
        };
        let printed = reading.print_new()?;
        if ended && !printed {
            return Ok(());
        }
        if !printed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

struct Reading {
    path: String,
    file: BufReader<File>,
    inode: u64,
    show: Show,
    /// A record that is not whole yet.
    rest: Vec<u8>,
}

impl Reading {
    fn open(path: &str, show: Show) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::new(format!("read the log {path}: {error}"));
        let file = File::open(path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        let mut reading = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            inode,
            show,
            rest: Vec::new(),
        };
        if let Some(lines) = show.tail {
            reading.skip_to_last(lines)?;
        }
        Ok(reading)
    }

    fn skip_to_last(&mut self, lines: usize) -> Result<(), CliError> {
        let text = std::fs::read(&self.path)
            .map_err(|error| CliError::new(format!("read the log: {error}")))?;
        let total = text.split(|byte| *byte == b'\n').count().saturating_sub(1);
        for _ in 0..total.saturating_sub(lines) {
            self.file
                .skip_until(b'\n')
                .map_err(|error| CliError::new(format!("read the log: {error}")))?;
        }
        Ok(())
    }

    /// Prints what is new; false if there was nothing.
    fn print_new(&mut self) -> Result<bool, CliError> {
        let failed = |error: std::io::Error| CliError::new(format!("print the log: {error}"));
        let mut printed = false;
        let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
        while self.file.read_until(b'\n', &mut self.rest).map_err(failed)? > 0
            && self.rest.ends_with(b"\n")
        {
            let (is_error, text) = content(&self.rest, self.show.timestamps);
            let to: &mut dyn Write = if is_error { &mut stderr } else { &mut stdout };
            to.write_all(&text).map_err(failed)?;
            self.rest.clear();
            printed = true;
        }
        stdout.flush().map_err(failed)?;
        if !printed && Path::new(&self.path).metadata().is_ok_and(|now| now.ino() != self.inode) {
            *self = Self::open(&self.path, Show { tail: None, ..self.show })?;
            return Ok(true);
        }
        Ok(printed)
    }
}

/// A record (`TIME STREAM TAG CONTENT`) as it was said: whether to standard error, and its bytes.
fn content(record: &[u8], timestamps: bool) -> (bool, Vec<u8>) {
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let (Some(time), Some(stream), Some(tag), Some(text)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return (false, record.to_vec());
    };
    let mut said = if timestamps { [time, b" "].concat() } else { Vec::new() };
    // A partial record's line end is the log's, not the container's.
    let text = if tag == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    said.extend_from_slice(text);
    (stream == b"stderr", said)
}

#[cfg(test)]
mod tests {
    use super::content;

    #[test]
    fn records_come_back_as_they_were_said() {
        assert_eq!(
            content(b"2026-01-01T00:00:00.0Z stdout F hello world\n", false),
            (false, b"hello world\n".to_vec())
        );
        assert_eq!(content(b"T stderr P part\n", false), (true, b"part".to_vec()));
        assert_eq!(content(b"T stdout F x\n", true), (false, b"T x\n".to_vec()));
        assert_eq!(content(b"T stdout F \n", false), (false, b"\n".to_vec()));
    }
}
