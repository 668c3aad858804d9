//! Signals to a container that a handler's program started: by the program's `kill`, because only it knows
//! where its container's first process is (one in a virtual machine is not the node's).

use super::program::{Purpose, word};
use crate::monitor::connections::Asker;
use crate::monitor::container::Phase;
use crate::monitor::{Key, Monitor};
use shim_model::wire::{Failure, FromMonitor};

impl Monitor {
    /// Sends a signal; one that does not run gets none. The reply comes when the program has sent it.
    pub(crate) fn signal_by(&mut self, asker: Asker, key: Key, signal: i32) {
        let running = self.containers.get(&key).filter(|c| matches!(c.phase, Phase::Running));
        let Some((id, by)) = running.and_then(|c| Some((c.id.clone(), c.by.clone()?))) else {
            return self.reply(asker, &FromMonitor::Done);
        };
        let arguments = vec![word(id.as_str()), word(&signal.to_string())];
        if let Err(failure) = self.command(&by, "kill", arguments, Purpose::Signal(key, asker)) {
            self.reply(asker, &FromMonitor::Failed(failure));
        }
    }

    /// `kill` ended. It fails for a container that has ended meanwhile, which is as good.
    pub(crate) fn signal_ended(&mut self, key: Key, asker: Asker, done: Result<(), Failure>) {
        let lives = self.containers.get(&key).is_some_and(|c| matches!(c.phase, Phase::Running));
        let reply = match done {
            Err(failure) if lives => FromMonitor::Failed(failure),
            Ok(()) | Err(_) => FromMonitor::Done,
        };
        self.reply(asker, &reply);
    }
}
