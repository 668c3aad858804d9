//! The bridge of our own, for pods of the command line: ports are reached, taken once, and given back.
//! Needs nft(8).

use super::place::{node, pod, pods, reaches, run, stop, within};
use crate::network::native::portmap::{Published, apply, ruleset};
use shim_model::sandbox::config::PortMapping;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

#[test]
fn root_a_published_port_is_reached_from_the_node_and_its_loopback() {
    if std::process::Command::new("nft").arg("-v").output().is_err() {
        eprintln!("skipped: there is no nft");
        return;
    }
    run(async |place| {
        let network = place.network("", &[]);
        assert!(!network.ready().ready);
        let port = PortMapping { host_port: 3000, container_port: 80, ..PortMapping::default() };
        let (one, config) = pod(1, |config| {
            config.own = true;
            config.ports = vec![port.clone()];
        });
        drop(network.namespace(&one.id).await.unwrap());
        let ips = network.add(&one, &config).await.unwrap().ips;
        let listener = within(&place.pin(&one), || TcpListener::bind("0.0.0.0:80").unwrap());
        for target in ["127.0.0.1:3000", "10.88.0.1:3000"] {
            let mut client = TcpStream::connect(target).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(b"x").unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 1);
        }
        drop(listener);
        let (two, config) = pod(2, |config| {
            config.own = true;
            config.ports = vec![port.clone()];
        });
        drop(network.namespace(&two.id).await.unwrap());
        let refused = network.add(&two, &config).await.unwrap_err().to_string();
        assert!(refused.contains("publish port 3000: sandbox"), "{refused}");
        stop(&network, &two).await;
        assert!(reaches(node(), &place.pin(&one), ips[0]));
        // Nobody knows it any more: it is swept.
        network.collect(&pods(&[])).await;
        place.is_clean().await;
        assert!(!super::place::shell("nft list table ip wherry-wherry0").contains("dport"));
    });
}

#[test]
fn root_two_daemons_keep_each_others_ports() {
    if std::process::Command::new("nft").arg("-v").output().is_err() {
        eprintln!("skipped: there is no nft");
        return;
    }
    run(async |_place| {
        for (bridge, host_port) in [("one0", 3000), ("two-0", 3001), ("one0", 3002)] {
            let port = PortMapping { host_port, container_port: 80, ..PortMapping::default() };
            let address = "10.88.0.2".parse().unwrap();
            let pod = Published { address, ports: vec![port], node_end: String::new() };
            apply(&ruleset(bridge, "10.88.0.0/16", &[("id".to_owned(), pod)])).unwrap();
        }
        let rules = super::place::shell("nft list ruleset");
        let has = |port: u32| rules.contains(&format!("tcp dport {port} dnat"));
        assert_eq!([has(3000), has(3001), has(3002)], [false, true, true], "{rules}");
    });
}
