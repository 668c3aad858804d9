//! How long the in-process network takes. Measurements, no tests: run them by name.

use super::place::{pod, run};
use std::time::{Duration, Instant};

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[
    {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local",
     "ranges":[[{"subnet":"10.1.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
    {"type":"portmap","capabilities":{"portMappings":true}}]}"#;

#[test]
#[ignore = "a measurement"]
fn root_median_times_of_a_pod() {
    run(async |place| {
        let network = place.network(LIST, &[]);
        let mut times: [Vec<Duration>; 4] = Default::default();
        for n in 0..60u8 {
            let (pod, config) = pod(n, |_| {});
            let mut took = |which: usize, since: Instant| times[which].push(since.elapsed());
            // Pods do not start without a pause: the pool is full again.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let begun = Instant::now();
            drop(network.namespace(&pod.id).await.unwrap());
            took(0, begun);
            let begun = Instant::now();
            network.add(&pod, &config).await.unwrap();
            took(1, begun);
            let begun = Instant::now();
            network.del(&pod).await.unwrap();
            took(2, begun);
            let begun = Instant::now();
            network.remove_namespace(&pod.id).await.unwrap();
            took(3, begun);
        }
        for (name, mut times) in ["namespace", "ADD", "DEL", "unpin"].iter().zip(times) {
            times.drain(..10);
            times.sort();
            println!("{name:>10}: median {:?}, 90 % {:?}", times[25], times[45]);
        }
    });
}
