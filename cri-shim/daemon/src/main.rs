//! The binary `wherry`: picks a role before any thread exists.
fn main() {}
