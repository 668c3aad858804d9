//! AppArmor: which profile a process gets (`cri-contract.md` §2.10), what the kernel says it knows, and the
//! text of the profile that containers get when nobody names another one.

use crate::host::Host;
use crate::kind::Refused;
use crate::limits;
use crate::sandbox::config::Profile;

/// The name of our own profile.
pub const DEFAULT: &str = "cri-wherry.apparmor.d";

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// No profile.
    Unconfined,
    /// Our own, because nobody said anything: where it cannot be loaded, none.
    Usual,
    /// Our own, by name.
    Default,
    /// This one of the node's.
    Named(&'a str),
}

/// The choice of a request whose field is called `field`. What is asked for by name is applied or refused,
/// never dropped, also for a privileged container; said nothing, such a one is unconfined.
pub fn choose<'a>(
    field: &str,
    asked: Option<&'a Profile>,
    privileged: bool,
    host: &Host,
) -> Result<Choice<'a>, Refused> {
    let on = host.apparmor;
    let missing = "Unconfined or nothing: AppArmor is not on in this node's kernel";
    match asked {
        None if privileged || !on => Ok(Choice::Unconfined),
        None => Ok(Choice::Usual),
        Some(Profile::Unconfined) => Ok(Choice::Unconfined),
        Some(Profile::RuntimeDefault) if on => Ok(Choice::Default),
        Some(Profile::RuntimeDefault) => {
            Err(Refused::new(format!("{field}.profile_type"), "RuntimeDefault", missing))
        }
        Some(Profile::Localhost(name)) => {
            let field = format!("{field}.localhost_ref");
            if !on {
                return Err(Refused::new(field, name, missing));
            }
            let bad = |c: char| c.is_control() || c.is_whitespace();
            if name.is_empty() || name.len() > limits::APPARMOR_NAME_BYTES || name.contains(bad) {
                return Err(Refused::new(field, name, "the name of a loaded profile"));
            }
            Ok(Choice::Named(name))
        }
    }
}

/// The refusal of a profile that the kernel does not know.
pub fn not_loaded(field: &str, name: &str) -> Refused {
    let allowed = "a profile that is loaded on this node (/sys/kernel/security/apparmor/profiles)";
    Refused::new(format!("{field}.localhost_ref"), name, allowed)
}

/// The refusal of our own profile where it cannot be had.
pub fn no_default(field: &str, why: &str) -> Refused {
    let allowed = format!("Unconfined or a loaded profile: {DEFAULT} is not there: {why}");
    Refused::new(format!("{field}.profile_type"), "RuntimeDefault", allowed)
}

/// Whether a profile is in the kernel's list: a name and its mode in brackets on each line.
pub fn is_loaded(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _mode)| known == name))
}

/// Our own profile as `apparmor.d(5)` spells it. Everything is allowed but what reaches the node through
/// `/proc` and `/sys`, mounts, and processes outside: what other runtimes' default profiles deny. `abi`: the
/// parser knows the declaration; then what later kernels learned to mediate stays allowed.
pub fn profile(abi: bool) -> String {
    let abi = if abi { "abi <abi/3.0>,\n\n" } else { "" };
    let denied = DENIED.map(|(path, how)| format!("  deny {path} {how},")).join("\n");
    let signals = PEERS.map(|peer| format!("  signal (receive) peer={peer},")).join("\n");
    format!(
        "{abi}profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{\n  \
           capability,\n  file,\n  network,\n  umount,\n\n\
         {signals}\n  signal (send,receive) peer={DEFAULT},\n  \
           ptrace (trace,read,tracedby,readby) peer={DEFAULT},\n\n  \
           deny mount,\n{denied}\n}}\n"
    )
}

/// Who may send signals from outside: the node, and the programs of handlers where they have a profile.
const PEERS: [&str; 3] = ["unconfined", "runc", "crun"];

/// What is denied, and how. There is no "all but" in a path, so it is spelled letter by letter.
const DENIED: [(&str, &str); 18] = [
    // Files of the kernel right in /proc: only processes' own folders may be written, and kernel.shm*.
    ("/proc/*", "w"),
    ("/proc/{[^1-9s]*,s[^y]*,sy[^s]*,sys?*}/**", "w"),
    ("/proc/sys/[^k]**", "w"),
    ("/proc/sys/k[^e]**", "w"),
    ("/proc/sys/ke[^r]**", "w"),
    ("/proc/sys/kernel/{?,??,[^s]**,s[^h]**,sh[^m]**}", "w"),
    // Memory and keys of the node, also for reading.
    ("/proc/sysrq-trigger", "rwklx"),
    ("/proc/kcore", "rwklx"),
    ("/proc/kmem", "rwklx"),
    ("/proc/mem", "rwklx"),
    // Of /sys only the cgroups may be written.
    ("/sys/[^f]**", "wklx"),
    ("/sys/f[^s]**", "wklx"),
    ("/sys/fs/[^c]**", "wklx"),
    ("/sys/fs/c[^g]**", "wklx"),
    ("/sys/fs/cg[^r]**", "wklx"),
    // Firmware, power meters (CVE-2020-8694) and the policies of security modules, not even for reading.
    ("/sys/firmware/**", "rwklx"),
    ("/sys/devices/virtual/powercap/**", "rwklx"),
    ("/sys/kernel/security/**", "rwklx"),
];

#[cfg(test)]
mod tests {
    use super::{Choice, DEFAULT, DENIED, choose, is_loaded, profile};
    use crate::host::Host;
    use crate::sandbox::config::Profile;

    #[expect(clippy::fn_params_excessive_bools, reason = "a table of cases")]
    fn chosen(asked: Option<&Profile>, privileged: bool, on: bool) -> Result<Choice<'_>, String> {
        let host = Host { apparmor: on, ..Host::example() };
        choose("f", asked, privileged, &host).map_err(|refused| refused.field)
    }

    #[test]
    fn said_nothing_it_is_the_default_and_what_is_asked_for_is_never_dropped() {
        let named = Profile::Localhost("web".into());
        assert_eq!(chosen(None, false, true), Ok(Choice::Usual));
        assert_eq!(chosen(None, true, true), Ok(Choice::Unconfined));
        assert_eq!(chosen(None, false, false), Ok(Choice::Unconfined));
        for privileged in [false, true] {
            for on in [false, true] {
                assert_eq!(
                    chosen(Some(&Profile::Unconfined), privileged, on),
                    Ok(Choice::Unconfined)
                );
            }
            let default = chosen(Some(&Profile::RuntimeDefault), privileged, true);
            assert_eq!(default, Ok(Choice::Default));
            assert_eq!(chosen(Some(&named), privileged, true), Ok(Choice::Named("web")));
            assert_eq!(chosen(Some(&named), privileged, false), Err("f.localhost_ref".into()));
            let without = chosen(Some(&Profile::RuntimeDefault), privileged, false);
            assert_eq!(without, Err("f.profile_type".into()));
        }
        for bad in ["", "a b", "a\n", "a\0b"] {
            assert!(chosen(Some(&Profile::Localhost(bad.into())), false, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_profile_is_loaded_if_the_whole_name_is_in_the_list() {
        let list = "/usr/bin/man (enforce)\ncri-wherry.apparmor.d (enforce)\na (b) (complain)\n";
        for known in [DEFAULT, "/usr/bin/man", "a (b)"] {
            assert!(is_loaded(list, known), "{known}");
        }
        for unknown in ["cri-wherry", "a", "", "enforce"] {
            assert!(!is_loaded(list, unknown), "{unknown}");
        }
    }

    #[test]
    fn the_profile_is_whole() {
        let text = profile(true);
        assert!(
            text.starts_with("abi <abi/3.0>,\n\nprofile cri-wherry.apparmor.d flags="),
            "{text}"
        );
        assert!(profile(false).starts_with("profile "));
        assert_eq!(text.matches("  deny ").count(), DENIED.len() + 1);
        assert!(text.ends_with("}\n") && text.lines().all(|line| !line.ends_with(' ')), "{text}");
    }
}
