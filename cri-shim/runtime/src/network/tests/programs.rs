//! Plugins as programs: what they are told, what is made of their answers, and that none outlives its
//! call. The plugins are shell scripts.

use super::place::{Place, pod, run, shell};
use crate::network::Network;
use std::time::Duration;

fn list(version: &str) -> String {
    format!(
        r#"{{"cniVersion":"{version}","name":"net","plugins":[{{"type":"first","capabilities":{{"portMappings":true}}}},{{"type":"second"}}]}}"#
    )
}

const RESULT: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.9.0.2/24","interface":0}]}"#;

fn script(place: &Place, name: &str, rest: &str) -> std::path::PathBuf {
    let keep = place.folder("calls");
    place.program(
        name,
        &format!(
            "cat >{keep}/{name}.$CNI_COMMAND\nenv >{keep}/{name}.$CNI_COMMAND.env\n{rest}\n\
             [ $CNI_COMMAND = ADD ] && echo '{RESULT}'\nexit 0",
            keep = keep.display()
        ),
    )
}

fn told(place: &Place, file: &str) -> String {
    std::fs::read_to_string(place.folder("calls").join(file)).unwrap()
}

/// Waits until the network is ready, or not; why.
async fn becomes(network: &Network, ready: bool) -> String {
    for _ in 0..400 {
        let known = network.ready();
        if known.ready == ready && !known.message.contains("not answered yet") {
            return known.message;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", network.ready());
}

#[test]
fn root_a_chain_is_run_in_order_and_undone_in_reverse_with_the_same_words() {
    run(async |place| {
        let bin = script(&place, "first", "");
        script(&place, "second", "");
        let network = place.network(&list("1.0.0"), &[&bin]);
        let (one, config) = pod(1, |config| {
            config.metadata.name = "a;b=c".to_owned();
            config.ports = vec![shim_model::sandbox::config::PortMapping {
                host_port: 80,
                container_port: 8080,
                ..Default::default()
            }];
        });
        drop(network.namespace(&one.id).await.unwrap());
        network.add(&one, &config).await.unwrap();
        assert!(told(&place, "first.ADD").contains("portMappings"));
        assert!(!told(&place, "first.ADD").contains("prevResult"));
        let second = told(&place, "second.ADD");
        assert!(second.contains("prevResult") && !second.contains("portMappings"), "{second}");
        let env = told(&place, "first.ADD.env");
        assert!(env.contains("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=;K8S_POD_NAME=a_b_c;"));
        assert!(env.contains(&format!("CNI_NETNS={}", place.pin(&one).display())), "{env}");
        network.check(&one).await.unwrap();
        assert!(told(&place, "second.CHECK").contains("10.9.0.2"));
        // Another configuration by now, and the namespace is gone.
        network.remove_namespace(&one.id).await.unwrap();
        std::fs::remove_file(place.folder("conf").join("10-test.conflist")).unwrap();
        network.del(&one).await.unwrap();
        let del = told(&place, "first.DEL");
        assert!(del.contains("prevResult") && del.contains("portMappings"), "{del}");
        assert!(told(&place, "first.DEL.env").contains("CNI_NETNS=\n"));
        assert!(place.kept(&one).is_none());
    });
}

#[test]
fn root_a_failing_plugin_is_quoted_and_tried_again() {
    run(async |place| {
        let bin = script(
            &place,
            "first",
            r#"echo '{"code":11,"msg":"not now","details":"busy"}'; exit 1"#,
        );
        script(&place, "second", "");
        let network = place.network(&list("1.0.0"), &[&bin]);
        let (one, config) = pod(1, |_| {});
        drop(network.namespace(&one.id).await.unwrap());
        let refused = network.add(&one, &config).await.unwrap_err().to_string();
        assert_eq!(refused, "CNI plugin first (ADD): not now: busy");
        assert!(network.del(&one).await.is_err() && place.kept(&one).is_some());
        script(&place, "first", "");
        network.del(&one).await.unwrap();
        network.remove_namespace(&one.id).await.unwrap();
        place.is_clean().await;
    });
}

#[test]
fn root_the_plugins_say_whether_the_network_is_ready() {
    run(async |place| {
        let versions =
            r#"[ $CNI_COMMAND = VERSION ] && echo '{"supportedVersions":["1.1.0"]}' && exit 0"#;
        let bin = script(&place, "first", versions);
        let network = place.network(&list("1.1.0"), &[&bin]);
        assert!(becomes(&network, false).await.contains("no program second"));
        script(
            &place,
            "second",
            r#"[ $CNI_COMMAND = VERSION ] && echo '{"supportedVersions":["1.0.0"]}'"#,
        );
        assert_eq!(
            becomes_other(&network, "no program").await,
            "the network net is of CNI 1.1.0, its plugin second speaks 1.0.0"
        );
        script(
            &place,
            "second",
            r#"[ $CNI_COMMAND = STATUS ] && echo '{"code":50,"msg":"no agent"}' && exit 1"#,
        );
        assert_eq!(
            becomes_other(&network, "speaks").await,
            "the CNI plugin second is not ready: no agent"
        );
        // One that does not know the verb is not asked by it.
        script(
            &place,
            "second",
            r#"[ $CNI_COMMAND = STATUS ] && echo '{"code":4,"msg":"unknown CNI_COMMAND"}' && exit 1"#,
        );
        becomes(&network, true).await;
        assert!(!told(&place, "first.STATUS.env").contains("CNI_CONTAINERID"));
    });
}

/// Waits until the reason is not this one any more.
async fn becomes_other(network: &Network, old: &str) -> String {
    for _ in 0..400 {
        let known = network.ready();
        if !known.message.contains(old) {
            return known.message;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", network.ready());
}

#[test]
fn root_a_plugin_that_hangs_ends_with_its_children() {
    run(async |place| {
        let bin =
            script(&place, "first", "[ $CNI_COMMAND = ADD ] && { sleep 54321 & sleep 54321; }");
        script(&place, "second", "");
        let network = place.network(&list("1.0.0"), &[&bin]);
        let (one, config) = pod(1, |_| {});
        drop(network.namespace(&one.id).await.unwrap());
        // Nobody waits any more: as when the deadline of a pod passes.
        let given_up = tokio::time::timeout(Duration::from_millis(500), network.add(&one, &config));
        assert!(given_up.await.is_err());
        for _ in 0..100 {
            if shell("pgrep -fx 'sleep 54321' || true").is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("still there: {}", shell("pgrep -af 'sleep 54321'"));
    });
}

#[test]
fn root_a_child_that_keeps_a_plugins_output_open_holds_nobody_up() {
    run(async |place| {
        let bin =
            script(&place, "first", "[ $CNI_COMMAND = ADD ] && { sleep 20 & echo $! >$0.pid; }");
        script(&place, "second", "");
        let network = place.network(&list("1.0.0"), &[&bin]);
        let (one, config) = pod(1, |_| {});
        drop(network.namespace(&one.id).await.unwrap());
        network.add(&one, &config).await.unwrap();
        let pid = std::fs::read_to_string(bin.join("first.pid")).unwrap();
        assert!(std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
        shell(&format!("kill {pid}"));
    });
}
