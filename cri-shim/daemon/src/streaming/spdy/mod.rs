//! SPDY/3.1 as a server of kubelets needs it. `frame` turns octets into frames, `encode` writes ours,
//! `headers` inflates header blocks, `streams` knows which streams are open, `flow` which credit to give: all
//! pure and bounded. `connection` is their socket. The other side is nearly always moby/spdystream.

pub(crate) mod connection;
pub(crate) mod encode;
pub(crate) mod flow;
pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod streams;
