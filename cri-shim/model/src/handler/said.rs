//! What a handler's program said when it failed: the last error of its log, which is a JSON object a line
//! (`--log-format json`), or the last line of anything else.

use crate::wire::Failure;
use serde::Deserialize;

/// Longest text of a program that is passed on.
const LONGEST: usize = 2_048;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The failure of `verb` of the program called `name`: what it logged, else how it ended.
pub fn failure(name: &str, verb: &str, log: &[u8], ended: &str) -> Failure {
    let said = last(&String::from_utf8_lossy(log)).unwrap_or_else(|| ended.to_owned());
    // The program of the request, which is not in the image, or is no program.
    // runc says `exec: "NAME": why`, crun ``executable file `NAME` why`` or `open executable: why`.
    let exec =
        ["exec: \"", "executable", "exec format error"].iter().any(|words| said.contains(words));
    Failure { step: format!("{name} {verb}: {said}"), errno: 0, exec }
}

fn last(log: &str) -> Option<String> {
    // Two of its processes may write at once, and leave zeroes where neither did.
    let ends = |c: char| c.is_whitespace() || c == '\0';
    let lines =
        || log.lines().map(|line| line.trim_matches(ends)).filter(|line| !line.is_empty()).rev();
    let parsed = |line: &str| serde_json::from_str::<Line>(line).ok();
    let errors = lines().filter_map(parsed).filter(|line| {
        matches!(line.level.as_str(), "error" | "fatal" | "panic") && !line.msg.is_empty()
    });
    // crun puts the whole line of a part of it into the text of another.
    let inner = |msg: String| serde_json::from_str::<Line>(&msg).map_or(msg, |line| line.msg);
    let found = errors.map(|line| inner(line.msg)).next();
    let text = found.or_else(|| lines().find(|line| parsed(line).is_none()).map(str::to_owned))?;
    Some(text.chars().filter(|c| !c.is_control()).take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::failure;

    #[test]
    fn the_last_error_of_the_log_is_told() {
        let log = br#"{"msg":"first","level":"error","time":"t"}
{"level":"error","msg":"exec: \"nope\": executable file not found in $PATH","time":"t"}
{"level":"warning","msg":"later","time":"t"}
"#;
        let told = failure("runc", "create", log, "it ended with code 1");
        assert_eq!(told.step, "runc create: exec: \"nope\": executable file not found in $PATH");
        assert!(told.exec && !told.to_string().contains("os error"), "{told}");
    }

    #[test]
    fn a_program_that_logs_nothing_or_no_json_is_quoted_too() {
        let quiet = failure("crun", "start", b"", "it ended with code 1");
        assert_eq!((quiet.step.as_str(), quiet.exec), ("crun start: it ended with code 1", false));
        assert_eq!(failure("x", "start", b"plain text\n", "").step, "x start: plain text");
        let nested = br#"{"msg":"{\"msg\":\"the hook\",\"level\":\"error\"}","level":"error"}"#;
        assert_eq!(failure("x", "create", nested, "").step, "x create: the hook");
        let holes = b"\0\0\0{\"msg\":\"later\",\"level\":\"error\"}\n";
        assert_eq!(failure("x", "start", holes, "").step, "x start: later");
    }
}
