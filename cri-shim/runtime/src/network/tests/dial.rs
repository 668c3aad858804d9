//! Connections to ports inside a pod: by either family, refused with what each said, and no thread that
//! stays in the pod's namespace.

use super::place::{pod, run, within};
use crate::error::chain;
use std::net::TcpListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The network namespaces of all threads of this process but this test's own.
fn foreign_namespaces() -> Vec<String> {
    let of = |path: &str| std::fs::read_link(path).map(|link| link.display().to_string()).ok();
    let own = of("/proc/thread-self/ns/net").unwrap();
    let main = of("/proc/self/ns/net").unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let all = threads.filter_map(|thread| of(&format!("{}/ns/net", thread.path().display())));
    all.filter(|namespace| *namespace != own && *namespace != main).collect()
}

#[test]
fn root_a_port_inside_a_pod_is_reached_from_outside() {
    run(async |place| {
        let network = place.network("", &[]);
        let (one, _) = pod(1, |_| {});
        drop(network.namespace(&one.id).await.unwrap());
        let four = within(&place.pin(&one), || TcpListener::bind("127.0.0.1:0").unwrap());
        let six = within(&place.pin(&one), || TcpListener::bind("[::1]:0").unwrap());
        for listener in [&four, &six] {
            let port = listener.local_addr().unwrap().port();
            let mut calls = Vec::new();
            for _ in 0..50 {
                calls.push(network.dial(Some(&one.id), port).await.unwrap());
            }
            for mut call in calls {
                let (server, _) = listener.accept().unwrap();
                server.set_nonblocking(true).unwrap();
                let mut server = tokio::net::TcpStream::from_std(server).unwrap();
                call.write_all(b"hello").await.unwrap();
                let mut heard = [0; 5];
                server.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"hello");
            }
            // It is the pod's port, not the node's.
            let refused = network.dial(None, port).await.unwrap_err();
            assert!(chain(&refused).contains("127.0.0.1: Connection refused"), "{refused}");
        }
        let port = four.local_addr().unwrap().port();
        drop(four);
        let refused = chain(&network.dial(Some(&one.id), port).await.unwrap_err());
        for said in ["127.0.0.1: Connection refused", "::1: Connection refused"] {
            assert!(refused.contains(said), "{refused}");
        }
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        network.dial(None, here.local_addr().unwrap().port()).await.unwrap();
        assert_eq!(foreign_namespaces(), Vec::<String>::new());
        network.remove_namespace(&one.id).await.unwrap();
        let gone = network.dial(Some(&one.id), port).await.unwrap_err();
        assert!(chain(&gone).starts_with("open the namespace"), "{gone}");
        place.is_clean().await;
    });
}
