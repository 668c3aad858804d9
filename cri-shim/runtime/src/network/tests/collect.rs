//! What no pod has is collected, and nothing else: attachments, leases, and what plugins have when GC
//! tells them which pods stay. The plugin is a shell script.

use super::place::{pod, pods, run, start};
use crate::network::cache::Kept;

fn list(version: &str, more: &str) -> String {
    format!(
        r#"{{"cniVersion":"{version}","name":"net"{more},"plugins":[
            {{"type":"bridge","isGateway":true,"ipam":{{"type":"host-local","subnet":"10.1.0.0/24"}}}},
            {{"type":"collector"}}]}}"#
    )
}

/// A plugin that passes results on, and keeps what it was given for GC.
fn collector(place: &super::place::Place) -> std::path::PathBuf {
    let said = place.folder("calls").join("said");
    place.program(
        "collector",
        &format!(
            "case $CNI_COMMAND in\n\
             ADD) sed 's/.*\"prevResult\":\\({{.*}}\\),\"type\".*/\\1/' ;;\n\
             GC) cat >{} ;;\nVERSION) echo '{{\"supportedVersions\":[\"1.0.0\",\"1.1.0\"]}}' ;;\nesac",
            said.display()
        ),
    )
}

#[test]
fn root_attachments_and_leases_that_no_pod_has_are_collected() {
    run(async |place| {
        let bin = collector(&place);
        let network = place.network(&list("1.1.0", ""), &[&bin]);
        let (stays, _) = start(&network, 1).await;
        let (gone, _) = start(&network, 2).await;
        let folder = place.folder("cni/networks/net");
        std::fs::write(folder.join("10.1.0.99"), "nobody\r\neth0").unwrap();
        // Another runtime keeps its attachments in the same cache.
        let (other, _) = pod(7, |_| {});
        let kept = Kept {
            id: other.id.to_string(),
            netns: place.folder("elsewhere"),
            ..place.kept(&stays).unwrap()
        };
        kept.put(&place.folder("cni")).unwrap();
        std::fs::write(folder.join("10.1.0.98"), format!("{}\r\neth0", other.id)).unwrap();
        network.collect(&pods(&[&stays])).await;
        assert_eq!(
            place.leases("net"),
            [format!("10.1.0.2 {}", stays.id), format!("10.1.0.98 {}", other.id)]
        );
        assert!(place.kept(&gone).is_none() && place.kept(&other).is_some());
        assert!(!place.pin(&gone).exists() && place.pin(&stays).exists());
        assert_eq!(place.calls("collector", "GC"), 1);
        let said = std::fs::read_to_string(place.folder("calls").join("said")).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let told = said["cni.dev/valid-attachments"].as_array().unwrap();
        assert_eq!(told.len(), 2);
        assert!(told.iter().any(|one| one["containerID"] == stays.id.as_str()));
        assert!(told.iter().all(|one| one["ifname"] == "eth0"));
        kept.remove(&place.folder("cni")).unwrap();
        network.collect(&pods(&[])).await;
        place.is_clean().await;
    });
}

#[test]
fn root_gc_is_not_called_where_the_list_forbids_it_or_is_too_old() {
    for (version, more) in [("1.1.0", r#","disableGC":true"#), ("1.0.0", "")] {
        run(async |place| {
            let bin = collector(&place);
            let network = place.network(&list(version, more), &[&bin]);
            let (stays, _) = start(&network, 1).await;
            let folder = place.folder("cni/networks/net");
            std::fs::write(folder.join("10.1.0.99"), "nobody\r\neth0").unwrap();
            network.collect(&pods(&[&stays])).await;
            assert_eq!((place.leases("net").len(), place.calls("collector", "GC")), (2, 0));
        });
    }
}

#[test]
fn root_gc_gives_way_to_a_pod() {
    run(async |place| {
        let bin = place.program("slow", "case $CNI_COMMAND in GC) sleep 1000 ;; ADD) echo '{\"ips\":[{\"address\":\"10.9.0.2/24\"}]}' ;; esac");
        let list = r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"slow"}]}"#;
        let network = place.network(list, &[&bin]);
        let none = pods(&[]);
        let collecting = async {
            network.collect(&none).await;
        };
        let adding = async {
            while place.calls("slow", "GC") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            start(&network, 1).await
        };
        let ((), (one, ips)) = tokio::join!(collecting, adding);
        assert_eq!(ips[0].to_string(), "10.9.0.2");
        network.del(&one).await.unwrap();
        network.remove_namespace(&one.id).await.unwrap();
        place.is_clean().await;
    });
}
