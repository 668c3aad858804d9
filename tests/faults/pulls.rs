//! `kill -9` while an image is pulled, at many moments: of the daemon, of its worker, of both. The image is
//! there whole or not at all, the same pull works afterwards, and removed it leaves nothing.

use std::time::Duration;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::{Image, NAME};
use wherry_tests::leaks::Leaks;
use wherry_tests::registry::Registry;
use wherry_tests::requests::{self, Network};
use wherry_tests::{repetitions, until};

/// The name of a pull worker's process.
const WORKER: &str = "exe";

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Who {
    Daemon,
    Worker,
    Both,
}

fn kill(daemon: &Daemon, who: Who) {
    let workers =
        || daemon.space().named(WORKER).into_iter().for_each(|pid| daemon.space().kill(pid));
    match who {
        Who::Daemon => daemon.kill(),
        Who::Worker => workers(),
        Who::Both => {
            daemon.kill();
            workers();
        }
    }
}

/// The image works, as its first layer says.
fn works(daemon: &Daemon, name: &str) {
    let pod = daemon.pod("user", Network::Node);
    let mut config = requests::container("c", &["sh", "-c", "test -s /noise-2"], &pod.config);
    name.clone_into(&mut config.image.as_mut().unwrap().image);
    let id = pod.start(&config);
    assert_eq!(daemon.cri().ended(&id).exit_code, 0);
    pod.remove();
}

#[test]
fn root_a_pull_is_killed_at_any_moment() {
    let Some(daemon) = Daemon::start() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let image = Image::with_layers(&[3_000_000, 500_000, 6_000_000]);
    let name = registry.publish("team/app", "1", &image);
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    for round in 0..repetitions() * 3 {
        let who = [Who::Daemon, Who::Worker, Who::Both][round as usize % 3];
        let moment = Duration::from_millis(u64::from(round * 37 % 400));
        std::thread::scope(|scope| {
            // It fails with the daemon, and not with the worker alone.
            let pull = scope.spawn(|| cri.pull(&name));
            std::thread::sleep(moment);
            kill(&daemon, who);
            let told = pull.join().unwrap();
            let fails = !matches!(who, Who::Worker);
            assert!(fails || told.is_ok(), "{who:?} after {moment:?}: {told:?}");
        });
        if !matches!(who, Who::Worker) {
            daemon.start_again();
        }
        let known = cri.image(&name).unwrap();
        assert!(known.is_none_or(|known| known.id == image.id()), "{who:?} after {moment:?}");
        assert_eq!(cri.pull(&name).unwrap(), image.id(), "{who:?} after {moment:?}");
        works(&daemon, &name);
        cri.remove_image(&name).unwrap();
        until("the other image alone", || (cri.images().unwrap().len() == 1).then_some(()));
        assert!(cri.image(NAME).unwrap().is_some());
        daemon.forget_worker();
        leaks.assert_same_after(&daemon);
    }
}
