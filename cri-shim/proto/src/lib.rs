//! `shim-proto`: the generated messages, clients and servers of the CRI (`runtime.v1`, 1.37) and of our
//! own API (`wherry.v1`), and the messages of the Node Resource Interface, which is not gRPC. Generated code
//! only: `hack/proto` writes the modules from `proto/`, and nothing here is edited by hand. What the messages mean is `cri-contract.md` and the .proto files.
//!
//! Maps are ordered, so that whatever is printed or stored of them is stable. An RPC that a server does
//! not implement answers `UNIMPLEMENTED`.

#![forbid(unsafe_code)]
#![expect(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::excessive_nesting,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "generated code; what it allows itself and how its comments are laid out is not ours"
)]

// The Container Runtime Interface, `k8s.io/cri-api` v0.37.2.
#[rustfmt::skip]
pub mod runtime_v1;

// What the command line needs beside the CRI.
#[rustfmt::skip]
pub mod wherry_v1;

// The Node Resource Interface, `github.com/containerd/nri` v0.12.5.
#[rustfmt::skip]
pub mod nri_v1alpha1;
