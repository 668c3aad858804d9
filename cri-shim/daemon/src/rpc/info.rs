//! What the daemon says of itself: version, conditions, handlers, features. Relies on facts gathered at
//! start and asks the network for its condition; changes nothing.

use crate::error::DaemonError;
use shim_model::cgroup::driver::Driver;
use shim_model::kind::Refused;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Version: the first field is the kubelet's own and must be exactly this.
pub(crate) fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "wherry".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

/// Conditions with honest reasons, handlers, features. No I/O beyond what was probed at start.
pub(crate) fn status(runtime: &Runtime, request: cri::StatusRequest) -> cri::StatusResponse {
    let network = runtime.network().ready();
    let condition = |name: &str, status, reason: &str, message: &str| cri::RuntimeCondition {
        r#type: name.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let conditions = vec![
        condition("RuntimeReady", true, "", ""),
        condition("NetworkReady", network.ready, &network.reason, &network.message),
    ];
    let user_namespaces = runtime.host().no_user_namespaces.is_none();
    let handlers = runtime.handlers().listed().into_iter().map(|(name, can)| {
        let features = cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts: can.recursive_read_only_mounts,
            user_namespaces: can.user_namespaces,
        };
        cri::RuntimeHandler { name, features: Some(features) }
    });
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        info: if request.verbose { info(runtime) } else { BTreeMap::new() },
        runtime_handlers: handlers.collect(),
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: user_namespaces,
            mount_options: true,
        }),
    }
}

fn info(runtime: &Runtime) -> BTreeMap<String, String> {
    let network = runtime.network().ready();
    let config = serde_json::json!({
        "stateDir": runtime.config().state,
        "rootDir": runtime.config().root,
        "runtimeVersion": env!("CARGO_PKG_VERSION"),
        "cgroupDriver": match runtime.cgroups().driver() {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        },
        "lastCNILoadStatus": if network.ready { "OK" } else { &network.message },
        "host": runtime.host(),
        "cdi": serde_json::Value::from(runtime.cdi()),
        "apparmor": runtime.apparmor().condition(),
        "nri": runtime.nri().condition(),
    });
    BTreeMap::from([("config".to_owned(), config.to_string())])
}

/// The cgroup driver.
pub(crate) fn runtime_config(driver: Driver) -> cri::RuntimeConfigResponse {
    let driver = match driver {
        Driver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
        Driver::Systemd => cri::CgroupDriver::Systemd,
    };
    let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
    cri::RuntimeConfigResponse { linux: Some(linux) }
}

/// `UpdateRuntimeConfig`. Pod addresses come from the CNI configuration, so a node's range is only checked.
pub(crate) fn update(
    request: &cri::UpdateRuntimeConfigRequest,
) -> Result<cri::UpdateRuntimeConfigResponse, DaemonError> {
    let network = request.runtime_config.clone().and_then(|config| config.network_config);
    ranges(&network.unwrap_or_default().pod_cidr)?;
    Ok(cri::UpdateRuntimeConfigResponse {})
}

/// Nothing, or address ranges with commas between them (one for each family).
fn ranges(text: &str) -> Result<(), Refused> {
    let legal = |range: &str| {
        let (address, prefix) = range.split_once('/')?;
        let longest = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        prefix.parse::<u8>().ok().filter(|prefix| *prefix <= longest)
    };
    if text.is_empty() || text.split(',').all(|range| legal(range.trim()).is_some()) {
        return Ok(());
    }
    let field = "runtime_config.network_config.pod_cidr";
    Err(Refused::new(field, text, "nothing, or address ranges such as 10.1.0.0/24,fd00::/64"))
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn a_range_is_an_address_and_a_prefix() {
        for good in ["", "10.1.0.0/24", "10.1.0.0/24,fd00::/64", "10.1.0.0/24, fd00::/128"] {
            assert_eq!(ranges(good), Ok(()));
        }
        for bad in ["10.1.0.0", "10.1.0.0/33", "x/8", "10.1.0.0/24,", "10.1.0.0/-1"] {
            assert!(ranges(bad).is_err(), "{bad}");
        }
    }
}
