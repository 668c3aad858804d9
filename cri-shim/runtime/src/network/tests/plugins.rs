//! In process and plugins undo each other. With real plugins, from `WHERRY_CNI_BIN` or /opt/cni/bin.

use super::place::{Place, node, pod, reaches, run, shell, start, stop, within};
use crate::network::Attachment;
use serde_json::{Value, json};
use shim_model::cni::conf::ConfList;
use shim_model::sandbox::config::PortMapping;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with these plugins, if there is one.
#[expect(clippy::disallowed_methods, reason = "where the plugins are is the machine's to say")]
fn real(names: &[&str]) -> Option<PathBuf> {
    let folder: PathBuf =
        std::env::var_os("WHERRY_CNI_BIN").map_or("/opt/cni/bin".into(), PathBuf::from);
    let missing: Vec<_> = names.iter().filter(|name| !folder.join(name).is_file()).collect();
    if missing.is_empty() {
        return Some(folder);
    }
    eprintln!("skipped: no plugins {missing:?} in {} (WHERRY_CNI_BIN)", folder.display());
    None
}

fn chain(first: &str, place: &Place) -> String {
    let data = place.folder("cni/networks");
    format!(
        r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{{{first},
            "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.1.0.0/16"}}]],
            "routes":[{{"dst":"0.0.0.0/0"}}]}}}},
            {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#,
        data.display()
    )
}

const KINDS: [&str; 2] = [
    r#""type":"bridge","bridge":"br1","isGateway":true,"ipMasq":true"#,
    r#""type":"ptp","ipMasq":true"#,
];

/// Runs the first plugin of a list as another runtime would.
fn by_hand(
    bin: &Path,
    verb: &str,
    list: &str,
    pod: (&Attachment, &Path),
    known: Option<&Value>,
) -> Value {
    let list = ConfList::parse(list).unwrap();
    let mut child = Command::new(bin.join(list.plugin_type(0)))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", pod.0.id.as_str())
        .env("CNI_NETNS", pod.1)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", bin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = list.input(0, &serde_json::Map::new(), known).to_string();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{verb}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn root_a_plugin_checks_and_undoes_what_was_made_in_process() {
    let Some(bin) = real(&["bridge", "ptp", "host-local"]) else { return };
    for kind in KINDS {
        run(async |place| {
            let list = chain(kind, &place);
            // Only the pods' own plugins are missing: nothing may be run.
            let network = place.network(&list, &[]);
            let (one, _) = start(&network, 1).await;
            let (two, others) = start(&network, 2).await;
            assert!(reaches(&place.pin(&one), &place.pin(&two), others[0]), "{kind}");
            let result = place.kept(&one).unwrap().result.unwrap();
            by_hand(&bin, "CHECK", &list, (&one, &place.pin(&one)), Some(&result));
            by_hand(&bin, "DEL", &list, (&one, &place.pin(&one)), Some(&result));
            assert!(
                within(&place.pin(&one), || shell("ip -o link")).lines().count() == 1,
                "{kind}"
            );
            assert_eq!(place.leases("net"), [format!("{} {}", others[0], two.id)]);
            // The next address is given by the plugin: it goes on where we were.
            let (three, _) = pod(3, |_| {});
            drop(network.namespace(&three.id).await.unwrap());
            let made = by_hand(&bin, "ADD", &list, (&three, &place.pin(&three)), None);
            assert_eq!(made["ips"][0]["address"], "10.1.0.4/16");
            assert_eq!(shape(&made), shape(&result), "{kind}: {made} {result}");
            assert!(reaches(&place.pin(&two), &place.pin(&three), "10.1.0.4".parse().unwrap()));
            by_hand(&bin, "DEL", &list, (&three, &place.pin(&three)), Some(&made));
            for pod in [&one, &two, &three] {
                stop(&network, pod).await;
            }
            place.is_clean().await;
        });
    }
}

/// A result without what differs from pod to pod.
fn shape(result: &Value) -> Value {
    let mut shape = result.clone();
    for interface in shape["interfaces"].as_array_mut().unwrap() {
        interface["mac"] = json!(interface["mac"].as_str().unwrap().len());
        let name = interface["name"].as_str().unwrap().to_owned();
        if let Some(hex) = name.strip_prefix("veth") {
            assert!(hex.len() == 8 && u32::from_str_radix(hex, 16).is_ok(), "{name}");
            interface["name"] = json!("veth");
        }
        if let Some(path) = interface.get_mut("sandbox") {
            *path = json!("path");
        }
    }
    shape["ips"][0]["address"] = json!("ip");
    shape
}

#[test]
fn root_what_a_plugin_made_is_undone_by_it_or_in_process() {
    let Some(bin) = real(&["bridge", "ptp", "host-local", "portmap"]) else { return };
    for kind in KINDS {
        run(async |place| {
            let list = chain(kind, &place);
            let before = place.network_with(&list, &[&bin], false);
            let (one, ips) = start(&before, 1).await;
            let (two, _) = start(&before, 2).await;
            assert!(reaches(node(), &place.pin(&one), ips[0]));
            drop(before);
            let after = place.network(&list, &[&bin]);
            after.check(&one).await.unwrap();
            stop(&after, &one).await;
            // The plugins are gone by now.
            drop(after);
            let bare = place.network(&list, &[]);
            stop(&bare, &two).await;
            place.is_clean().await;
            let rules = shell("nft list ruleset 2>/dev/null || true");
            assert!(!rules.contains(one.id.as_str()), "{kind}: {rules}");
        });
    }
}

#[test]
fn root_portmap_is_run_only_for_a_pod_that_publishes_a_port() {
    let Some(bin) = real(&["portmap"]) else { return };
    run(async |place| {
        // Of all plugins only this one: the rest of the chain is done in process.
        let only = place.folder("only");
        std::os::unix::fs::symlink(bin.join("portmap"), only.join("portmap")).unwrap();
        let network = place.network(&chain(KINDS[0], &place), &[&only]);
        let port = PortMapping { host_port: 3000, container_port: 80, ..PortMapping::default() };
        let (one, config) = pod(1, |config| config.ports = vec![port]);
        drop(network.namespace(&one.id).await.unwrap());
        network.add(&one, &config).await.unwrap();
        let listener =
            within(&place.pin(&one), || std::net::TcpListener::bind("0.0.0.0:80").unwrap());
        let client = std::net::TcpStream::connect("10.1.0.1:3000").unwrap();
        listener.accept().unwrap();
        drop((client, listener));
        network.check(&one).await.unwrap();
        let rules =
            || shell("iptables-save -t nat 2>/dev/null; nft list ruleset 2>/dev/null || true");
        assert!(rules().contains("3000"));
        stop(&network, &one).await;
        assert!(!rules().contains("3000"), "{}", rules());
        place.is_clean().await;
    });
}
