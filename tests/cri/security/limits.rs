//! Limits that are about safety more than about shares: resource limits of processes, sysctls, huge pages,
//! swap, files of cgroup v2, block I/O.

use super::{idle, refused};
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, resources};

type Change = fn(&mut cri::LinuxContainerResources);

#[test]
fn root_resource_limits_are_the_configurations_and_not_the_daemons() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("rlimits", Network::Node);
    let id = pod.idle("c");
    // The daemon of the tests has what the test has, which is what the machine's owner gave.
    let line = cri.shell(&id, "grep 'Max open files' /proc/1/limits");
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let hard: u64 = own
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap()
        .split_whitespace()
        .nth(4)
        .unwrap()
        .parse()
        .unwrap();
    let words: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(words, ["1024", &hard.min(524_288).to_string()]);
    assert_eq!(cri.shell(&id, "ulimit -n"), "1024\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_sysctls_are_the_pods_own_or_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = requests::pod("sysctls", Network::Pod, &daemon.logs());
    let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
    for (name, value) in [
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "100"),
        ("net/ipv4/ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "500"),
    ] {
        sysctls.insert(name.into(), value.into());
    }
    let pod = Pod::run(&daemon, config);
    let id = pod.idle("c");
    let read = "cd /proc/sys; cat kernel/shm_rmid_forced fs/mqueue/msg_max net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start";
    assert_eq!(cri.shell(&id, read), "1\n100\n1\n500\n");
    pod.remove();
    for (name, value, network) in [
        ("kernel.core_pattern", "|/x", Network::Pod),
        ("net.ipv4.ip_forward", "1\n2", Network::Pod),
        ("net..x", "1", Network::Pod),
        ("net/../kernel/panic", "1", Network::Pod),
        ("user.max_user_namespaces", "1", Network::Pod),
        ("net.ipv4.ip_forward", "1", Network::Node),
    ] {
        let mut config = requests::pod("refused", network, &daemon.logs());
        config.linux.as_mut().unwrap().sysctls.insert(name.into(), value.into());
        let refused = cri.run_pod(&config).unwrap_err();
        assert!(refused.message().contains("sysctls"), "{name}: {refused:?}");
    }
    // One that the kernel refuses leaves no pod behind.
    let mut config = requests::pod("kernel", Network::Pod, &daemon.logs());
    config.linux.as_mut().unwrap().sysctls.insert("net.ipv4.no_such_file".into(), "1".into());
    assert!(cri.run_pod(&config).unwrap_err().message().contains("no_such_file"));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_limits_of_memory_and_pages_are_in_the_group() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("limits", Network::Node);
    let mut config = idle(&pod, "c");
    let limits = resources(&mut config);
    limits.memory_limit_in_bytes = 64 << 20;
    limits.memory_swap_limit_in_bytes = 64 << 20;
    // On a hybrid machine what is limited are v1's controllers; its huge pages may be v2's.
    let pages = daemon.cgroups().file("/", "hugetlb.2MB.limit_in_bytes").is_some()
        || daemon.cgroups().file("/", "memory.max").is_some();
    let pages = if pages { 4 << 20 } else { 0 };
    limits.hugepage_limits = vec![
        cri::HugepageLimit { page_size: "2MB".into(), limit: pages },
        // The kubelet sends every size of the node; a controller that is missing is no failure then.
        cri::HugepageLimit { page_size: "1GB".into(), limit: 0 },
        cri::HugepageLimit { page_size: "64KB".into(), limit: 0 },
    ];
    let id = pod.start(&config);
    let group = cri.info(&id)["cgroupsPath"].as_str().unwrap().to_owned();
    let read = |names: &[&str]| {
        let path = names.iter().find_map(|name| daemon.cgroups().file(&group, name));
        path.map(|path| std::fs::read_to_string(path).unwrap().trim().to_owned())
    };
    let memory = read(&["memory.max", "memory.limit_in_bytes"]);
    assert_eq!(memory.as_deref(), Some("67108864"));
    // Swap: the sum on v1, what is left on v2, where the kernel counts it.
    let swap = read(&["memory.swap.max", "memory.memsw.limit_in_bytes"]);
    assert!(swap.is_none_or(|swap| swap == "0" || swap == "67108864"));
    let written = read(&["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"]);
    assert!(pages == 0 || written.is_some_and(|written| written == "4194304"));
    let shown = cri.status(&id).resources.unwrap().linux.unwrap();
    assert_eq!(shown.memory_swap_limit_in_bytes, 64 << 20);
    let bad: [(&str, Change); 5] = [
        ("memory_swap_limit_in_bytes", |l| l.memory_swap_limit_in_bytes = 1 << 20),
        ("oom_score_adj", |l| l.oom_score_adj = 5_000),
        ("cpuset_cpus", |l| l.cpuset_cpus = "0;1".into()),
        ("page_size", |l| {
            l.hugepage_limits = vec![cri::HugepageLimit { page_size: "../x".into(), limit: 1 }];
        }),
        ("unified", |l| drop(l.unified.insert("../memory.max".into(), "1".into()))),
    ];
    for (wanted, change) in bad {
        let mut config = idle(&pod, "refused");
        resources(&mut config).memory_limit_in_bytes = 64 << 20;
        change(resources(&mut config));
        let text = refused(&daemon, &pod, &config);
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}
