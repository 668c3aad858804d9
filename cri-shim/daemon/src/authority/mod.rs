//! Makes HTTP/2 requests with any `:authority` acceptable. Clients that dial a unix socket send its
//! path, raw or percent-encoded, and the HTTP/2 library resets such streams before any handler runs.
//! `frames` walks the client's octets (RFC 9113), `fields` overwrites a literal value of `:authority`
//! (RFC 7541) with a legal one of the same octets and the same decoded length, so that frame sizes and
//! the header tables of both sides stay equal. Both are pure; `listen.rs` has the stream. The library
//! still judges everything else: what is not understood here passes unchanged.

mod fields;
pub(crate) mod frames;
