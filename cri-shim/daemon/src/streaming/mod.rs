//! The streaming server: what stands behind the URLs that `Exec`, `Attach` and `PortForward` answer with.
//! `server` takes connections and tokens, `negotiate` decides what is spoken, `spdy` and `websocket`
//! carry several byte streams over one connection, `exec`, `attach` and `portforward` are the three
//! stories, `pump` moves the bytes. What they work on is behind `session::Backend`, so no room here
//! knows containers or pods. Codecs and decisions are pure; everything a client drives has its bound in
//! `limits`, and what a client leaves behind ends with its connection: each is one task.

pub(crate) mod attach;
pub(crate) mod channels;
pub(crate) mod command;
pub(crate) mod exec;
pub(crate) mod negotiate;
pub(crate) mod portforward;
pub(crate) mod pump;
pub(crate) mod runtime;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod spdy;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod websocket;
pub(crate) mod wire;

#[cfg(test)]
mod tests;
