//! The bridge of our own, for pods of the command line: ports are reached, taken once, and given back.
//! Needs nft(8).

use super::place::{node, pod, pods, reaches, run, stop, within};
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
        assert!(!super::place::shell("nft list table ip wherry").contains("dport"));
    });
}
