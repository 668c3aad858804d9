//! Pods that are attached in process: what they have, whom they reach, and that nothing of them stays.

use super::place::{node, pod, reaches, run, shell, start, stop, within};
use crate::network::cache::Kept;
use shim_model::cni::conf::ConfList;

fn chain(first: &str, ipam: &str) -> String {
    format!(
        r#"{{"cniVersion":"1.0.0","name":"net","plugins":[
            {{{first},"ipam":{{"type":"host-local"{ipam}}}}},
            {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#
    )
}

const SUBNET: &str = r#","ranges":[[{"subnet":"10.1.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]"#;

#[test]
fn root_bridged_pods_reach_each_other_and_leave_nothing() {
    run(async |place| {
        let list = chain(r#""type":"bridge","bridge":"br1","isGateway":true,"mtu":1400"#, SUBNET);
        let network = place.network(&list, &[]);
        assert!(network.ready().ready);
        let (one, ips) = start(&network, 1).await;
        let (two, others) = start(&network, 2).await;
        assert_eq!(
            (ips[0].to_string(), others[0].to_string()),
            ("10.1.0.2".into(), "10.1.0.3".into())
        );
        assert!(reaches(&place.pin(&one), &place.pin(&two), others[0]));
        assert!(reaches(node(), &place.pin(&one), ips[0]));
        assert!(reaches(&place.pin(&one), node(), "10.1.0.1".parse().unwrap()));
        let routes = within(&place.pin(&one), || shell("ip route; ip -o link show eth0"));
        assert!(routes.contains("default via 10.1.0.1 dev eth0"), "{routes}");
        assert!(routes.contains("mtu 1400") && routes.contains("0a:58:0a:01:00:02"), "{routes}");
        network.check(&one).await.unwrap();
        within(&place.pin(&one), || shell("ip addr del 10.1.0.2/16 dev eth0"));
        assert!(network.check(&one).await.unwrap_err().to_string().contains("10.1.0.2"));
        stop(&network, &one).await;
        stop(&network, &two).await;
        // Again, and without a namespace: kubelets do that.
        stop(&network, &two).await;
        place.is_clean().await;
        assert_eq!(shell("ip -o link show br1").lines().count(), 1);
    });
}

#[test]
fn root_a_pod_of_both_families_has_no_tentative_address() {
    run(async |place| {
        let ranges = r#","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00:1::/64"}]]"#;
        let first = r#""type":"bridge","isDefaultGateway":true,"hairpinMode":true,"ipMasq":true"#;
        let network = place.network(&chain(first, ranges), &[]);
        let (one, ips) = start(&network, 1).await;
        let (two, others) = start(&network, 2).await;
        assert_eq!(ips[1].to_string(), "fd00:1::2");
        assert!(reaches(&place.pin(&one), &place.pin(&two), others[1]));
        let shown = within(&place.pin(&one), || shell("ip -6 addr show dev eth0; ip -6 route"));
        assert!(!shown.contains("fd00:1::2/64 scope global tentative"), "{shown}");
        assert!(shown.contains("default via fd00:1::1"), "{shown}");
        // A router among the pods changes nothing.
        let ra = "/proc/sys/net/ipv6/conf/eth0/accept_ra";
        let ra = within(&place.pin(&one), || shell(&format!("cat {ra}")));
        assert_eq!(ra.trim(), "0");
        assert!(shell("bridge -d link").contains("hairpin on"));
        let rules = shell("nft list ruleset");
        assert!(rules.contains("ip saddr 10.1.0.0/24") && rules.contains("ip6 saddr fd00:1::/64"));
        stop(&network, &one).await;
        stop(&network, &two).await;
        place.is_clean().await;
    });
}

#[test]
fn root_point_to_point_pods_reach_each_other_over_the_node() {
    run(async |place| {
        let network = place.network(&chain(r#""type":"ptp""#, SUBNET), &[]);
        let (one, ips) = start(&network, 1).await;
        let (two, others) = start(&network, 2).await;
        assert!(reaches(&place.pin(&one), &place.pin(&two), others[0]));
        assert!(reaches(node(), &place.pin(&one), ips[0]));
        let routes = within(&place.pin(&one), || shell("ip route"));
        assert!(routes.contains("10.1.0.0/16 via 10.1.0.1 dev eth0 src 10.1.0.2"), "{routes}");
        network.check(&one).await.unwrap();
        stop(&network, &one).await;
        stop(&network, &two).await;
        place.is_clean().await;
    });
}

#[test]
fn root_a_namespace_that_somebody_holds_does_not_keep_its_link() {
    run(async |place| {
        let network = place.network(&chain(r#""type":"bridge","isGateway":true"#, SUBNET), &[]);
        let (one, _) = start(&network, 1).await;
        let held = std::fs::File::open(place.pin(&one)).unwrap();
        stop(&network, &one).await;
        assert!(shell("bridge link").contains("state disabled"));
        place.is_clean().await;
        drop(held);
    });
}

#[test]
fn root_what_a_killed_daemon_left_is_taken_away_by_the_next() {
    run(async |place| {
        let list = chain(r#""type":"bridge","isGateway":true"#, SUBNET);
        let network = place.network(&list, &[]);
        let (done, _) = start(&network, 1).await;
        // Killed after the pair was made and before that was written down.
        let (half, _) = start(&network, 2).await;
        let kept = place.kept(&half).unwrap();
        Kept { result: None, ..kept }.put(&place.folder("cni")).unwrap();
        // Killed before anything was made.
        let (early, _) = pod(3, |_| {});
        let list = ConfList::parse(&list).unwrap();
        let kept = place.kept(&done).unwrap();
        Kept { list, id: early.id.to_string(), result: None, ..kept }
            .put(&place.folder("cni"))
            .unwrap();
        drop(network);
        // The configuration is another one by now.
        let network = place.network(r#"{"cniVersion":"1.0.0","name":"new","type":"none"}"#, &[]);
        for pod in [&done, &half, &early] {
            stop(&network, pod).await;
        }
        place.is_clean().await;
    });
}

#[test]
fn root_an_address_comes_back_with_its_hardware_address() {
    run(async |place| {
        let ranges = r#","subnet":"10.1.0.0/30""#;
        let network = place.network(&chain(r#""type":"bridge","isGateway":true"#, ranges), &[]);
        for n in 1..=3 {
            let (one, ips) = start(&network, n).await;
            assert_eq!(ips[0].to_string(), "10.1.0.2");
            assert!(reaches(node(), &place.pin(&one), ips[0]));
            let (full, config) = pod(9, |_| {});
            drop(network.namespace(&full.id).await.unwrap());
            let refused = network.add(&full, &config).await.unwrap_err().to_string();
            assert!(refused.contains("every address"), "{refused}");
            stop(&network, &full).await;
            stop(&network, &one).await;
        }
        place.is_clean().await;
    });
}
