//! A command line that was not understood, in one sentence with the way out, and Docker's exit code for
//! it; and help, which is no failure. The words are clap's.

use super::failure::CliError;
use clap::Command;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::process::ExitCode;

/// Tells what was wrong with these words, or the help that was asked for.
pub(crate) fn not_understood(
    error: &clap::Error,
    command: Command,
    words: impl IntoIterator<Item = OsString>,
) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = command;
    let text = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(error.render().to_string()),
        // The name of the program alone; a socket in the environment counts as a word for clap.
        _ if words.len() <= 1 => Ok(command.render_help().to_string()),
        _ => Err(sentence(&error.render().to_string(), &verb(&command, &words))),
    };
    let told = match text {
        Ok(help) => super::print(help.trim_end()),
        Err(sentence) => Err(CliError::new(sentence)),
    };
    ExitCode::from(told.map_or_else(|error| error.tell(), |()| 0))
}

/// The program and the sub-commands among its words.
fn verb(command: &Command, words: &[OsString]) -> String {
    let (mut found, mut within) = (vec![command.get_name()], command);
    for word in words.iter().skip(1) {
        if let Some(inner) = within.find_subcommand(word) {
            found.push(inner.get_name());
            within = inner;
        }
    }
    found.join(" ")
}

fn sentence(text: &str, verb: &str) -> String {
    format!("{}; \"{verb} --help\" tells what is allowed", first(text))
}

/// The first paragraph of what clap says of an error, in one line.
pub(crate) fn first(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{sentence, verb};
    use clap::Command;

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        let text = "error: the following required arguments were not provided:\n  <IMAGE>\n\nUsage: wherry run <IMAGE>\n";
        assert_eq!(
            sentence(text, "wherry run"),
            "the following required arguments were not provided: <IMAGE>; \"wherry run --help\" tells what is allowed"
        );
    }

    #[test]
    fn the_help_is_the_verbs() {
        let command = Command::new("wherry")
            .subcommand(Command::new("image").subcommand(Command::new("import")))
            .subcommand(Command::new("run"));
        let of = |words: &[&str]| verb(&command, &words.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(of(&["w", "--socket", "x", "image", "--foo", "import"]), "wherry image import");
        assert_eq!(of(&["w", "run", "image"]), "wherry run");
        assert_eq!(of(&["w", "nonsense"]), "wherry");
    }
}
