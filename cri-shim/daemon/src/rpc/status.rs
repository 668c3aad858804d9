//! Failure to gRPC code: the one place. The message is the whole chain of causes in one line, without
//! credentials that a registry's text or an address may have brought in.

use crate::error::DaemonError;
use shim_model::kind::Kind;
use shim_runtime::error::chain;
use tonic::{Code, Status};

/// Words in front of a message that kubelets turn into a waiting reason. They see them only with the
/// code UNKNOWN (`cri-contract.md` 0.13).
const KUBELET_WORDS: [&str; 2] = ["RegistryUnavailable", "SignatureValidationFailed"];

/// What the clients act on (`cri-contract.md` 0.13). UNIMPLEMENTED is for RPCs only: clients' fall-backs
/// are keyed on it, so a request that this host cannot serve is UNKNOWN.
const fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::BadArgument => Code::InvalidArgument,
        Kind::WrongState => Code::FailedPrecondition,
        Kind::TryAgain => Code::Unavailable,
        Kind::TooSlow => Code::DeadlineExceeded,
        Kind::NoRoom => Code::ResourceExhausted,
        Kind::Unsupported => Code::Unknown,
        Kind::Internal => Code::Internal,
    }
}

/// The status of a failure.
pub(crate) fn of(error: &DaemonError) -> Status {
    let text = scrub(&chain(error));
    let code = match error {
        DaemonError::NotBuilt(_) => Code::Unimplemented,
        _ if KUBELET_WORDS.iter().any(|word| text.starts_with(word)) => Code::Unknown,
        other => code(other.kind()),
    };
    Status::new(code, text)
}

/// A code as the protocol spells it.
pub(crate) const fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A task of ours that ended without an answer: a bug, told as such.
pub(crate) fn panicked(method: &str) -> Status {
    Status::new(
        Code::Internal,
        format!("{method} ended in a bug of the runtime; its log tells more"),
    )
}

/// Takes out what may be a secret: user and query of an address, and the word after an authentication
/// scheme.
fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut secret_next = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let space = word.get(bare.len()..).unwrap_or_default();
        if secret_next && !bare.is_empty() {
            clean.push_str("[secret]");
        } else {
            clean.push_str(&address(bare));
        }
        clean.push_str(space);
        let scheme = bare.trim_start_matches(['"', '\'', '(']);
        secret_next = ["bearer", "basic"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    }
    clean
}

/// An address without user and query; anything else as it is.
fn address(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#', '"', '\'', ')', ',']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = match tail.split_once('?') {
        Some((path, query)) => {
            let after = query.find(['"', '\'', ')']).and_then(|end| query.get(end..));
            format!("{path}?[secret]{}", after.unwrap_or_default())
        }
        None => tail.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::{of, scrub};
    use crate::error::DaemonError;
    use shim_image::error::ImageError;
    use shim_model::kind::{Kind, Refused};
    use tonic::Code;

    #[test]
    fn secrets_of_addresses_and_headers_are_taken_out() {
        for (text, clean) in [
            (
                "get https://me:pw@r.example/v2/x?token=abc: refused",
                "get https://r.example/v2/x?[secret] refused",
            ),
            ("said \"Bearer eyJhbGci\" again", "said \"Bearer [secret] again"),
            ("authorization: Basic dTpw", "authorization: Basic [secret]"),
            ("found \"a  b\", allowed is x@y", "found \"a  b\", allowed is x@y"),
            ("(https://r.example/a?x=1) and more", "(https://r.example/a?[secret]) and more"),
        ] {
            assert_eq!(scrub(text), clean);
        }
    }

    #[test]
    fn kubelets_words_come_with_the_code_they_look_at() {
        let text = "RegistryUnavailable: r.example does not serve x: 503".to_owned();
        let status = of(&ImageError::Told { text: text.clone(), kind: Kind::TryAgain }.into());
        assert_eq!((status.code(), status.message()), (Code::Unknown, text.as_str()));
    }

    #[test]
    fn a_refused_field_is_an_invalid_argument_with_its_path() {
        let status = of(&Refused::new("config.metadata", "nothing", "a name").into());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "config.metadata: found \"nothing\", allowed is a name");
        assert_eq!(of(&DaemonError::NotBuilt("not yet")).code(), Code::Unimplemented);
    }
}
