//! The process chapter: arguments, environment, working folder, stop signal. Rules of
//! `cri-contract.md` §2.4: a command of the request drops the image's arguments; nothing is ever
//! passed through a shell.

use super::{Environment, SpecInput, security};
use crate::container::config::ContainerConfig;
use crate::image::ImageConfig;
use crate::kind::Refused;
use crate::limits;
use crate::rlimits;
use crate::signal::Signal;
use oci_spec::runtime::{Process, UserBuilder};

/// Where programs are looked up when nobody says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a terminal is taken for: the CRI does not tell the client's, and this one is known everywhere.
pub const TERM: &str = "xterm";

/// What can be refused without the image.
pub fn check(container: &ContainerConfig) -> Result<(), Refused> {
    for (key, value) in &container.envs {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains(&0) {
            return Err(Refused::new(
                format!("config.envs[{key}]"),
                key,
                "a key without = and a value without NUL",
            ));
        }
    }
    if !container.working_dir.is_empty() && container.working_dir.contains('\0') {
        return Err(Refused::new("config.working_dir", &container.working_dir, "a path"));
    }
    stop_signal(&container.stop_signal, "").map(|_| ())
}

/// Arguments by the table of the contract; nothing at all is refused.
pub fn arguments(container: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, Refused> {
    let parts = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => [&container.command, &container.args],
        (true, false) => [&image.entrypoint, &container.args],
        (true, true) => [&image.entrypoint, &image.cmd],
    };
    let argv: Vec<String> = parts.into_iter().flatten().cloned().collect();
    if argv.first().is_none_or(String::is_empty) {
        return Err(Refused::new(
            "config.command",
            "nothing",
            "a command, because the image names none",
        ));
    }
    Ok(argv)
}

/// The environment: built-in, image, request; the last of a key wins, first place kept.
pub fn environment(input: &SpecInput<'_>) -> Environment {
    let mut env = Environment::new();
    let mut set = |key: &str, value: &[u8]| match env.iter_mut().find(|(known, _)| known == key) {
        Some((_, known)) => value.clone_into(known),
        None => env.push((key.to_owned(), value.to_owned())),
    };
    set("PATH", PATH.as_bytes());
    set("HOSTNAME", input.setup.hostname.as_bytes());
    if input.container.tty {
        set("TERM", TERM.as_bytes());
    }
    for entry in &input.image.env {
        if let Some((key, value)) =
            entry.split_once('=').filter(|(key, value)| !key.is_empty() && !value.contains('\0'))
        {
            set(key, value.as_bytes());
        }
    }
    for (key, value) in &input.container.envs {
        set(key, value);
    }
    if !env.iter().any(|(key, _)| key == "HOME") {
        env.push(("HOME".to_owned(), input.user.home.clone().into_bytes()));
    }
    env
}

/// The working folder: request, image, `/`; always absolute.
pub fn working_dir(container: &ContainerConfig, image: &ImageConfig) -> String {
    let named =
        [&container.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
    let dir = named.map_or("/", String::as_str);
    if dir.starts_with('/') { dir.to_owned() } else { format!("/{dir}") }
}

/// The effective stop signal: request, image, SIGTERM. An image's garbage counts as nothing said.
pub fn stop_signal(request: &str, image: &str) -> Result<Signal, Refused> {
    if !request.is_empty() {
        return Signal::parse(request);
    }
    Ok(Signal::parse(image).unwrap_or(Signal::TERM))
}

/// The process chapter and its environment as bytes.
pub(super) fn build(input: &SpecInput<'_>) -> Result<(Process, Environment), Refused> {
    let argv = arguments(input.container, input.image)?;
    let env = environment(input);
    bounded(&argv, &env)?;
    let user = UserBuilder::default()
        .uid(input.user.uid)
        .gid(input.user.gid)
        .additional_gids(input.user.groups.clone())
        .build()
        .map_err(|error| Refused::new("user", error.to_string(), "a user"))?;
    let shown = env
        .iter()
        .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)))
        .collect();
    let score = i32::try_from(input.container.resources.oom_score_adj).unwrap_or_default();
    let mut process = Process::default();
    process
        .set_terminal(Some(input.container.tty))
        .set_user(user)
        .set_args(Some(argv))
        .set_env(Some(shown))
        .set_cwd(working_dir(input.container, input.image).into())
        .set_capabilities(Some(security::oci_capabilities(input)?))
        .set_rlimits(Some(input.host.rlimits.iter().filter_map(rlimits::oci).collect()))
        .set_apparmor_profile(input.labels.apparmor.clone())
        .set_selinux_label(input.labels.process.clone())
        .set_no_new_privileges(Some(input.container.no_new_privs))
        .set_oom_score_adj(Some(score));
    Ok((process, env))
}

/// What execve(2) would refuse is refused before anything is made.
fn bounded(argv: &[String], env: &[(String, Vec<u8>)]) -> Result<(), Refused> {
    let mut total = 0usize;
    let lengths = argv
        .iter()
        .map(String::len)
        .chain(env.iter().map(|(key, value)| key.len().saturating_add(value.len())));
    for length in lengths {
        total = total.saturating_add(length);
        if length > limits::ARGUMENT_BYTES || total > limits::ARGUMENTS_BYTES {
            return Err(Refused::new(
                "config.args or config.envs",
                format!("{length} bytes in one, {total} so far"),
                "131072 bytes in one and 2097152 together",
            ));
        }
    }
    if argv.iter().any(|arg| arg.contains('\0')) {
        return Err(Refused::new("config.args", "a NUL byte", "text without NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{arguments, stop_signal, working_dir};
    use crate::container::config::ContainerConfig;
    use crate::image::ImageConfig;

    fn argv(command: &[&str], args: &[&str]) -> Result<Vec<String>, String> {
        let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let container = ContainerConfig {
            command: own(command),
            args: own(args),
            ..ContainerConfig::default()
        };
        let image = ImageConfig {
            entrypoint: own(&["entry"]),
            cmd: own(&["cmd"]),
            ..ImageConfig::default()
        };
        arguments(&container, &image).map_err(|refused| refused.field)
    }

    #[test]
    fn a_command_drops_what_the_image_says() {
        assert_eq!(argv(&["a"], &[]).unwrap(), ["a"]);
        assert_eq!(argv(&["a"], &["b"]).unwrap(), ["a", "b"]);
        assert_eq!(argv(&[], &["b"]).unwrap(), ["entry", "b"]);
        assert_eq!(argv(&[], &[]).unwrap(), ["entry", "cmd"]);
    }

    #[test]
    fn nothing_to_run_is_refused() {
        assert!(arguments(&ContainerConfig::default(), &ImageConfig::default()).is_err());
        assert!(argv(&[""], &[]).is_err());
    }

    #[test]
    fn the_images_garbage_signal_is_ignored_the_requests_is_refused() {
        assert_eq!(stop_signal("", "SIGFOO").unwrap().number(), 15);
        assert_eq!(stop_signal("", "QUIT").unwrap().number(), 3);
        assert!(stop_signal("SIGFOO", "QUIT").is_err());
    }

    #[test]
    fn a_relative_working_folder_is_below_the_root() {
        let image = ImageConfig { working_dir: "app".into(), ..ImageConfig::default() };
        assert_eq!(working_dir(&ContainerConfig::default(), &image), "/app");
    }
}
