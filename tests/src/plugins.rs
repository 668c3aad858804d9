//! A plugin of the Node Resource Interface for one test: containerd's own stub (`hack/peers/nri-plugin`), which
//! tells what it is told, a JSON line each, and answers as its flags say. Ends with its value.

use crate::daemon::Daemon;
use crate::{nri_plugin, say, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A plugin.
#[derive(Debug)]
pub struct Plugin {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Plugin {
    /// A plugin that was synchronized, with these flags. `None`, said aloud, where there is no such program.
    pub fn start(daemon: &Daemon, flags: &[&str]) -> Option<Self> {
        let Some(program) = nri_plugin() else {
            say("skipped: WHERRY_NRI_PLUGIN does not name the program");
            return None;
        };
        let mut child = Command::new(program)
            .arg("-socket")
            .arg(daemon.beside("nri.sock"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                keep.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let plugin = Self { child, told };
        plugin.wait("Synchronize");
        Some(plugin)
    }

    /// Everything that it was told, in order.
    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    /// The names of what it was told about a pod or a container.
    pub fn events(&self, id: &str) -> Vec<String> {
        let about =
            |event: &&Value| event["container"].as_str().or(event["pod"].as_str()) == Some(id);
        let name = |event: &Value| event["event"].as_str().unwrap().to_owned();
        self.told().iter().filter(about).map(name).collect()
    }

    /// The last event of this name, once there is one.
    pub fn wait(&self, event: &str) -> Value {
        until(event, || self.told().into_iter().rev().find(|one| one["event"] == event))
    }

    /// Asks for new limits, unasked; how that went.
    pub fn update(&mut self, update: &Value) -> Value {
        let before = self.told().len();
        writeln!(self.child.stdin.as_mut().unwrap(), "{update}").unwrap();
        until("the answer to an update", || {
            self.told().into_iter().skip(before).find(|one| one["event"] == "Updated")
        })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
