//! CreateContainer's request as plain data. Refuses what has no meaning in the protocol, by field; whether
//! the rest fits together and the host is the model's to say.

use super::{mounts, resources, security};
use crate::rpc::sandbox;
use shim_model::container::config as model;
use shim_model::kind::Refused;
use shim_proto::runtime_v1 as cri;

/// A request as plain data; unset messages are their zero values.
pub(crate) fn config(config: cri::ContainerConfig) -> Result<model::ContainerConfig, Refused> {
    let stop_signal = stop_signal(config.stop_signal)?;
    let metadata =
        config.metadata.ok_or_else(|| Refused::new("config.metadata", "nothing", "a name"))?;
    let image = config.image.filter(|image| !image.image.is_empty());
    let image = image.ok_or_else(|| Refused::new("config.image.image", "nothing", "an image"))?;
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    Ok(model::ContainerConfig {
        metadata: model::Metadata { name: metadata.name, attempt: metadata.attempt },
        image: mounts::image(image),
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.envs.into_iter().map(|env| (env.key, env.value)).collect(),
        mounts: config
            .mounts
            .into_iter()
            .enumerate()
            .map(mounts::mount)
            .collect::<Result<_, _>>()?,
        devices: config
            .devices
            .into_iter()
            .map(|d| model::Device {
                container_path: d.container_path,
                host_path: d.host_path,
                permissions: d.permissions,
            })
            .collect(),
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        labels: config.labels,
        annotations: config.annotations,
        log_path: config.log_path,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: linux.resources.map(resources::model).unwrap_or_default(),
        capabilities: security::capabilities(context.capabilities.clone()),
        privileged: context.privileged,
        namespaces: sandbox::namespaces(context.namespace_options.clone().unwrap_or_default())?,
        selinux: context.selinux_options.clone().map(sandbox::selinux),
        run_as: security::run_as(&context)?,
        readonly_rootfs: context.readonly_rootfs,
        no_new_privs: context.no_new_privs,
        seccomp: security::seccomp(&context)?,
        apparmor: security::apparmor(&context)?,
        masked_paths: context.masked_paths,
        readonly_paths: context.readonly_paths,
        stop_signal,
    })
}

/// The enum is not the kernel's numbering: it is mapped by name (`cri-contract.md` §1.4.3).
fn stop_signal(number: i32) -> Result<String, Refused> {
    let refuse =
        || Refused::new("config.stop_signal", number.to_string(), "a signal of the protocol");
    match cri::Signal::try_from(number).map_err(|_unknown| refuse())? {
        cri::Signal::RuntimeDefault => Ok(String::new()),
        signal => {
            let name = signal.as_str_name();
            let name = name.strip_prefix("SIGNAL_").unwrap_or(name);
            Ok(name.replace("RTMINPLUS", "RTMIN+").replace("RTMAXMINUS", "RTMAX-"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stop_signal;
    use shim_model::signal::Signal;
    use shim_proto::runtime_v1 as cri;

    #[test]
    fn every_signal_of_the_protocol_has_a_kernel_number() {
        for number in 1..=200 {
            let Ok(signal) = cri::Signal::try_from(number) else { continue };
            let name = stop_signal(number).unwrap();
            assert!(Signal::parse(&name).is_ok(), "{} became {name}", signal.as_str_name());
        }
        assert_eq!(
            Signal::parse(&stop_signal(cri::Signal::Sigterm.into()).unwrap()).unwrap().number(),
            15
        );
    }
}
