//! WebSocket (RFC 6455) as Kubernetes' clients use it. `channels` is the framing of several streams in
//! messages, pure; `connection` is their socket; `tunnel` makes a WebSocket a plain byte stream for SPDY.
//! The library has the protocol itself; its bounds are set here.

pub(crate) mod channels;
pub(crate) mod connection;
pub(crate) mod tunnel;

use shim_model::limits;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The library's bounds. What waits to be written is bounded too: pings of a client that reads nothing
/// would else pile their answers up.
fn bounds() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::STREAM_CHUNK_FIRST.saturating_mul(4))
        .write_buffer_size(0)
        .max_write_buffer_size(limits::STREAM_CHUNK_BYTES.saturating_mul(4))
        .max_message_size(Some(limits::WEBSOCKET_MESSAGE_BYTES))
        .max_frame_size(Some(limits::WEBSOCKET_MESSAGE_BYTES))
}
