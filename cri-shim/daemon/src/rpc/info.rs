//! What the daemon says of itself: version, conditions, handlers, features.

use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use std::collections::BTreeMap;

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
pub(crate) fn status(runtime: &Runtime, verbose: bool) -> cri::StatusResponse {
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
    let features = cri::RuntimeHandlerFeatures {
        recursive_read_only_mounts: runtime.host().recursive_readonly,
        user_namespaces: false,
    };
    let handler =
        |name: &str| cri::RuntimeHandler { name: name.to_owned(), features: Some(features) };
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        info: if verbose { info(runtime) } else { BTreeMap::new() },
        runtime_handlers: vec![handler(""), handler("wherry")],
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
            mount_options: true,
        }),
    }
}

fn info(runtime: &Runtime) -> BTreeMap<String, String> {
    let config = serde_json::json!({
        "stateDir": runtime.config().state,
        "rootDir": runtime.config().root,
        "sandboxImage": "",
        "host": runtime.host(),
    });
    BTreeMap::from([("config".to_owned(), config.to_string())])
}

/// The cgroup driver: the one that is built.
pub(crate) fn runtime_config() -> cri::RuntimeConfigResponse {
    let linux =
        cri::LinuxRuntimeConfiguration { cgroup_driver: cri::CgroupDriver::Cgroupfs.into() };
    cri::RuntimeConfigResponse { linux: Some(linux) }
}
