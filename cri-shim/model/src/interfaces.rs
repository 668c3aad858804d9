//! Network interfaces of a namespace, out of the texts of `/proc/PID/net`: what they carried, and which of
//! them is the one that leads out (`proc_pid_net(5)`). Reads nothing itself.

/// One interface; the loopback is never one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// What was carried in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets that were thrown away.
    pub dropped: u64,
}

/// The interfaces of a `net/dev`, the one that leads out first: `eth0`, which is the name that a pod's
/// network gives it, else the one of the default route in `net/route`, else the first.
pub fn interfaces(dev: &str, route: &str) -> Vec<Interface> {
    let mut found: Vec<Interface> = dev.lines().filter_map(interface).collect();
    let named = |name: &str| found.iter().position(|interface| interface.name == name);
    let first = named("eth0").or_else(|| default_route(route).and_then(named)).unwrap_or_default();
    if let Some(before) = found.get_mut(..=first) {
        before.rotate_right(1);
    }
    found
}

/// `eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0`: bytes, packets, errors, dropped, four others, twice.
fn interface(line: &str) -> Option<Interface> {
    let (name, counts) = line.split_once(':')?;
    let mut counts = counts.split_whitespace().map(str::parse::<u64>);
    let mut four = || {
        let mut next = || counts.next()?.ok();
        Some(Traffic { bytes: next()?, packets: next()?, errors: next()?, dropped: next()? })
    };
    let (received, _others, sent) = (four()?, four()?, four()?);
    let name = name.trim();
    (name != "lo").then(|| Interface { name: name.to_owned(), received, sent })
}

/// The interface of the route to `00000000` with the mask `00000000`.
fn default_route(route: &str) -> Option<&str> {
    route.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, to, mask) = (words.first()?, words.get(1)?, words.get(7)?);
        (*to == "00000000" && *mask == "00000000").then_some(*name)
    })
}

#[cfg(test)]
mod tests {
    use super::{Traffic, interfaces};

    const HEAD: &str = "Inter-|   Receive     |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";

    fn dev(names: &[&str]) -> String {
        let line = |name: &&str| {
            format!(
                "{name:>6}:    1   2   3   4    0     0          0         0   5    6    7    8    0     0       0          0\n"
            )
        };
        HEAD.to_owned() + &names.iter().map(line).collect::<String>()
    }

    fn order(names: &[&str], route: &str) -> Vec<String> {
        interfaces(&dev(names), route).into_iter().map(|interface| interface.name).collect()
    }

    #[test]
    fn what_was_carried_is_read_and_the_loopback_left_out() {
        let found = interfaces(&dev(&["lo", "eth0"]), "");
        assert_eq!(found.len(), 1);
        let received = Traffic { bytes: 1, packets: 2, errors: 3, dropped: 4 };
        let sent = Traffic { bytes: 5, packets: 6, errors: 7, dropped: 8 };
        assert_eq!((found[0].received, found[0].sent), (received, sent));
    }

    #[test]
    fn the_interface_that_leads_out_comes_first() {
        let route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     a\t0000070A\t00000000\t0001\t0\t0\t0\t0000FFFF\n\
                     b\t00000000\t0100070A\t0003\t0\t0\t0\t00000000\n";
        assert_eq!(order(&["lo", "a", "b", "c"], route), ["b", "a", "c"]);
        assert_eq!(order(&["a", "b", "eth0"], route), ["eth0", "a", "b"]);
        assert_eq!(order(&["c", "d"], ""), ["c", "d"]);
        assert!(order(&["lo"], route).is_empty() && interfaces("rubbish:\n", "").is_empty());
    }
}
