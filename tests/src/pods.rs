//! A pod of a test, with what nearly every test does with one. Not taken away with its value: tests say
//! what they remove, because that is a part of what they test.

use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::requests;
use shim_proto::runtime_v1 as cri;
use std::path::PathBuf;

/// A pod that was run.
#[derive(Debug)]
pub struct Pod<'d> {
    daemon: &'d Daemon,
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub config: cri::PodSandboxConfig,
}

impl<'d> Pod<'d> {
    /// Runs it.
    pub fn run(daemon: &'d Daemon, config: cri::PodSandboxConfig) -> Self {
        let id = daemon.cri().run_pod(&config).unwrap();
        Self { daemon, id, config }
    }

    /// Runs it by a handler.
    pub fn run_by(daemon: &'d Daemon, config: cri::PodSandboxConfig, handler: &str) -> Self {
        let id = daemon.cri().run_pod_by(&config, handler).unwrap();
        Self { daemon, id, config }
    }

    fn cri(&self) -> &Cri {
        self.daemon.cri()
    }

    /// A request for a container in it.
    pub fn container(&self, name: &str, command: &[&str]) -> cri::ContainerConfig {
        requests::container(name, command, &self.config)
    }

    /// Creates a container; its id.
    pub fn create(&self, config: &cri::ContainerConfig) -> String {
        self.cri().create(&self.id, config, &self.config).unwrap()
    }

    /// Creates and starts a container; its id.
    pub fn start(&self, config: &cri::ContainerConfig) -> String {
        let id = self.create(config);
        self.cri().start(&id).unwrap();
        id
    }

    /// Creates and starts a container that runs this; its id.
    pub fn run_in(&self, name: &str, command: &[&str]) -> String {
        self.start(&self.container(name, command))
    }

    /// A container that does nothing until it is stopped; its id. Its process is called `tail`.
    pub fn idle(&self, name: &str) -> String {
        self.run_in(name, &["tail", "-f", "/dev/null"])
    }

    /// The log of a container with this name.
    pub fn log(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.config.log_directory).join(format!("{name}.log"))
    }

    /// Stops and removes it, with its logs, which are the client's.
    pub fn remove(&self) {
        self.cri().stop_pod(&self.id).unwrap();
        self.cri().remove_pod(&self.id).unwrap();
        drop(std::fs::remove_dir_all(&self.config.log_directory));
    }
}
