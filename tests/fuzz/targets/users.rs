//! An image's user with the image's passwd and group files: nobody becomes root by a number that is none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim_model::container::config::RunAs;
use shim_model::users;

fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (user, passwd, group) = input;
    let Ok(found) = users::resolve(&RunAs::default(), user, Some(passwd), Some(group)) else { return };
    let says_root = user.is_empty()
        || user.starts_with(':')
        || user.split(':').next().is_some_and(|name| name.bytes().all(|b| b == b'0') && !name.is_empty());
    let passwd = String::from_utf8_lossy(passwd);
    let in_file = passwd.lines().any(|line| line.split(':').nth(2).is_some_and(|id| users::id(id) == Some(0)));
    assert!(found.uid != 0 || says_root || in_file, "{user:?} became root");
});
