//! The binary called by the name `containerd` or `ctr`: what kind's image build and `kind load` and other
//! installers call, in the forms in which they call it and read it. Everything else is refused with the list
//! of what there is, so that nobody takes half an answer for a whole one. Owns the names, how a line that is
//! not understood is told, and the exit code 1 that such tools know; the work is the daemon's.

mod containerd;
mod ctr;
mod spool;

use crate::cli::failure::CliError;
use crate::cli::{print, usage};
use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Where containerd serves, and its tools look for it.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Who we are, where `containerd --version` tells the package and its version.
const VERSION: &str = concat!("wherry.dev/wherry v", env!("CARGO_PKG_VERSION"));

/// Does what was asked for, if the program was called by one of the names.
pub(crate) fn run() -> Option<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    match words.first().and_then(|program| name(program))? {
        "containerd" => Some(containerd::run(words)),
        "ctr" => Some(ctr::run(words)),
        _ => None,
    }
}

/// The name in a program's path.
fn name(program: &OsStr) -> Option<&str> {
    Path::new(program).file_name()?.to_str()
}

/// Understands a command line. Otherwise it is told what is wrong and what is `known`, or the help that was
/// asked for.
fn parse<T: Parser>(words: Vec<OsString>, known: &str) -> Result<T, ExitCode> {
    T::try_parse_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ended(print(error.render().to_string().trim_end()).map(|()| 0))
        }
        _ => {
            let what = usage::first(&error.render().to_string());
            ended(Err(CliError::new(format!("{what}; wherry stands in for {known}"))))
        }
    })
}

/// The exit code: any failure is 1.
fn ended(result: Result<u8, CliError>) -> ExitCode {
    ExitCode::from(result.unwrap_or_else(|error| error.tell().min(1)))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn the_last_part_of_the_program_is_its_name() {
        for (program, wanted) in
            [("ctr", "ctr"), ("/usr/local/bin/containerd", "containerd"), ("./x/wherry", "wherry")]
        {
            assert_eq!(name(program.as_ref()), Some(wanted));
        }
        assert_eq!(name("/".as_ref()), None);
    }
}
