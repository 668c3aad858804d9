//! A real cluster: unmodified Kubernetes on Wherry, and what people do with kubectl. Every test has a
//! cluster of its own, which `hack/cluster` starts in a few seconds.

#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod kubeadm;
mod network;
mod node;
mod pods;
mod restart;
mod tour;
mod workloads;
