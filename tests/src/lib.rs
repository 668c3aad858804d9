//! What the suites share: a daemon under a scratch root in namespaces of its own, images made on the fly,
//! generated clients, counts of what is left behind. Knows nothing of the runtime but its socket, its
//! binary and the folders it was given. A test that cannot run here says why, aloud, and passes.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::panic_in_result_fn,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests: what must not happen ends them, and what they cannot do they say aloud"
)]

pub mod cgroups;
pub mod cli;
pub mod cluster;
pub mod cri;
pub mod daemon;
pub mod docs;
pub mod handlers;
pub mod images;
pub mod leaks;
pub mod log;
pub mod plugins;
pub mod pods;
pub mod ptys;
pub mod registry;
pub mod requests;
pub mod sessions;
pub mod space;
pub mod streams;
pub mod weight;

use std::time::{Duration, Instant};

/// How long a state may take to come before a test gives up. Not a promise of the product: nothing is
/// asserted about time, this only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer: waits for a state, never for an event.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    // Emulated, everything takes many times as long.
    let end = Instant::now() + if in_guest() { PATIENCE * 6 } else { PATIENCE };
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "did not come: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// For whoever looks at a test's output.
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// A value of the environment: how `hack/check` talks to the suites.
#[expect(clippy::disallowed_methods, reason = "the tests' one door to the environment")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The program under test.
pub fn program() -> Option<String> {
    setting("WHERRY_BIN")
}

/// Whether this is the guest of `hack/guest`, where everything may be done to the whole machine.
pub fn in_guest() -> bool {
    setting("WHERRY_GUEST").is_some()
}

/// A plugin of NRI, made from `hack/peers/nri-plugin`; without it, its tests say that they skip.
pub fn nri_plugin() -> Option<String> {
    setting("WHERRY_NRI_PLUGIN")
}

/// How often a racy fault is tried; `hack/check --long` asks for more.
pub fn repetitions() -> u32 {
    setting("WHERRY_REPEAT").and_then(|text| text.parse().ok()).unwrap_or(2)
}
