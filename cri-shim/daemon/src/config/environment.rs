//! The one reader of our own environment. Flags with an environment variable are clap's; what is asked
//! for here is a variable that a person named: `wherry run -e HOME`.

use std::os::unix::ffi::OsStringExt;

/// The value of a variable of whoever started us.
#[expect(clippy::disallowed_methods, reason = "the room that reads the environment for everybody")]
pub(crate) fn variable(name: &str) -> Option<Vec<u8>> {
    // A name with these is not a variable's, and would panic in some versions of the library.
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    std::env::var_os(name).map(OsStringExt::into_vec)
}
