//! The last word of an exec or attach: on the error stream, as a Status in JSON since protocol v4, as plain
//! text and only for failures before (`cri-contract.md` 4.5). Pure.

use super::session::Exit;
use crate::error::DaemonError;
use serde_json::json;
use shim_runtime::error::chain;

/// How a protocol version writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// What stands on the error stream; empty = nothing is written.
pub(crate) fn word(form: Form, ended: &Result<Exit, DaemonError>) -> Vec<u8> {
    match (form, ended) {
        (Form::Text, Ok(Exit::Code(0) | Exit::Detached)) => Vec::new(),
        (Form::Text, Ok(Exit::Code(code))) => said(*code).into_bytes(),
        (Form::Text, Err(error)) => chain(error).into_bytes(),
        (Form::Json, Ok(Exit::Code(0) | Exit::Detached)) => {
            json!({ "metadata": {}, "status": "Success" }).to_string().into_bytes()
        }
        (Form::Json, Ok(Exit::Code(code))) => exited(*code).to_string().into_bytes(),
        (Form::Json, Err(error)) => failed(&chain(error)).to_string().into_bytes(),
    }
}

fn exited(code: i32) -> serde_json::Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": said(code),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": shown(code).to_string() }] },
    })
}

fn failed(message: &str) -> serde_json::Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}

fn said(code: i32) -> String {
    format!("command terminated with non-zero exit code: {}", shown(code))
}

/// Clients read the code as a number of eight bits and fail at any other.
fn shown(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Form, word};
    use crate::error::DaemonError;
    use crate::streaming::session::Exit;

    fn check(form: Form, ended: &Result<Exit, DaemonError>) -> String {
        String::from_utf8(word(form, ended)).unwrap()
    }

    #[test]
    fn a_status_has_one_form_for_each_end() {
        let ends = [
            Ok(Exit::Code(0)),
            Ok(Exit::Detached),
            Ok(Exit::Code(137)),
            Ok(Exit::Code(-1)),
            Err(DaemonError::NotBuilt("say \"no\"")),
        ];
        insta::assert_snapshot!(ends.each_ref().map(|end| check(Form::Json, end)).join("\n"), @r#"
        {"metadata":{},"status":"Success"}
        {"metadata":{},"status":"Success"}
        {"details":{"causes":[{"message":"137","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: 137","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}
        {"details":{"causes":[{"message":"255","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: 255","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}
        {"code":500,"details":{"causes":[{"message":"say \"no\""}]},"message":"say \"no\"","metadata":{},"reason":"InternalError","status":"Failure"}
        "#);
        assert_eq!(
            ends.each_ref().map(|end| check(Form::Text, end)),
            [
                "",
                "",
                "command terminated with non-zero exit code: 137",
                "command terminated with non-zero exit code: 255",
                "say \"no\"",
            ]
        );
    }
}
